"""Which rungs are tried, and what they say: whole climbs over outcomes that are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from llm_users.calibration import command
from llm_users.calibration.capacity import Capacity, cores
from llm_users.calibration.ladder import Climb, Rung, climb
from llm_users.calibration.measured_run import MeasuredRun

GOOD = MeasuredRun(
    server="simulator", requests=100, failed=0, miscounted=0, ttft_p50_s=1e-5, ttft_p99_s=4e-5, span_p99_s=2e-5,
    cpu_per_token_s=4e-5, cpu_share=0.4, tokens_per_s=9000.0, rate=0.999, health="ok", stamp_source="kernel",
    late_p99_s=1e-3, server_cpu_per_token_s=3e-5, other_cores=0.0,
)  # fmt: skip


def up(outcome: Callable[[int], dict[str, Any]], listed: tuple[int, ...] | None = None) -> Climb:
    told: list[Rung] = []
    done = climb(lambda n: Rung(n, dataclasses.replace(GOOD, **outcome(n)), 1e-3), listed, told.append)
    assert tuple(told) == done.rungs
    return done


def tried(done: Climb) -> list[int]:
    return [rung.streams for rung in done.rungs]


def best(done: Climb) -> int:
    assert done.best is not None
    return done.best.streams


def test_it_doubles_until_a_rung_fails_twice_and_then_halves_the_step_twice() -> None:
    done = up(lambda n: {"ttft_p99_s": 2e-3} if n > 150 else {})
    assert tried(done) == [16, 32, 64, 128, 256, 256, 181, 181, 152, 152]
    assert (best(done), done.at_least) == (128, False)
    done = up(lambda n: {"ttft_p99_s": 2e-3} if n > 200 else {})
    assert (tried(done)[-3:], best(done)) == ([181, 215, 215], 181)
    assert done.stopped_by is not None
    assert done.stopped_by.streams == 215


def test_a_rung_that_passes_the_second_time_has_passed() -> None:
    tries: list[int] = []

    def first_time_bad(streams: int) -> dict[str, Any]:
        tries.append(streams)
        return {"span_p99_s": 2e-3} if tries.count(streams) == 1 else {}

    done = up(first_time_bad, (2, 4))
    assert (tried(done), best(done), done.stopped_by) == ([2, 2, 4, 4], 4, None)


def test_a_late_server_ends_the_climb_and_blames_nobody() -> None:
    done = up(lambda n: {"late_p99_s": 6e-3, "ttft_p99_s": 1.0} if n > 64 else {})
    assert tried(done) == [16, 32, 64, 128, 128]  # finer rungs would find the server's limit, not the client's
    assert (best(done), done.at_least) == (64, True)
    assert done.rungs[-1].judged == "not judged"
    assert "the simulated endpoint itself was late" in " ".join(command.result(done, found(done)).split())


def test_a_client_that_did_not_get_the_cpu_ends_the_climb_and_is_not_judged() -> None:
    done = up(lambda n: {"health": "disturbed", "ttft_p99_s": 1.0} if n > 64 else {})
    assert (tried(done), best(done), done.at_least) == ([16, 32, 64, 128, 128], 64, True)
    assert done.rungs[-1].judged == "not judged"
    said = " ".join(command.result(done, found(done)).split())
    assert "At 128 streams, other programs or a CPU limit kept the CPU from the worker" in said
    nothing = up(lambda _: {"health": "disturbed", "ttft_p99_s": 1.0})
    assert "No result: other programs or a CPU limit kept the CPU" in command.no_result(nothing).replace("\n", " ")


def test_a_server_that_was_late_once_does_not_excuse_the_client_for_good() -> None:
    tries: list[int] = []

    def late_once(streams: int) -> dict[str, Any]:
        tries.append(streams)
        late = {"late_p99_s": 6e-3} if tries.count(streams) == 1 else {}
        return {**late, "health": "saturated"} if streams > 100 else {}

    done = up(late_once)
    assert tried(done) == [16, 32, 64, 128, 128, 91, 108, 108]
    assert (best(done), done.at_least) == (91, False)
    assert "108 streams were too many: saturated." in command.result(done, found(done))


def test_listed_rungs_are_the_only_ones() -> None:
    done = up(lambda n: {"health": "saturated"} if n == 40 else {}, (40, 10, 20, 80))
    assert tried(done) == [10, 20, 40, 40]
    assert (best(done), done.at_least) == (20, False)
    assert up(lambda _: {}, (10, 20)).at_least  # nothing failed


@pytest.mark.parametrize(
    ("figures", "judged"),
    [
        ({}, "pass"),
        ({"health": "strained"}, "pass"),
        ({"health": "disturbed"}, "pass"),
        ({"health": "disturbed", "failed": 1, "ttft_p99_s": 1.0}, "fail: requests"),
        ({"health": "disturbed", "span_p99_s": 1.0}, "not judged"),
        ({"health": "saturated"}, "fail: saturated"),
        ({"failed": 1}, "fail: requests"),
        ({"miscounted": 1}, "fail: token counts"),
        ({"ttft_p99_s": 1e-3}, "fail: TTFT"),
        ({"ttft_p99_s": float("nan")}, "fail: TTFT"),
        ({"span_p99_s": 1e-3}, "fail: last - first"),
    ],
)
def test_what_a_rung_must_keep(figures: dict[str, Any], judged: str) -> None:
    assert Rung(8, dataclasses.replace(GOOD, **figures), 1e-3).judged == judged


def test_a_run_that_breaks_down_is_a_rung_that_failed() -> None:
    rungs = [Rung(2, GOOD, 1e-3), Rung(4, None, 1e-3), Rung(4, None, 1e-3)]
    waiting = iter(rungs)
    done = climb(lambda _: next(waiting), (2, 4, 8), lambda _: None)
    assert (done.rungs, best(done), done.at_least) == (tuple(rungs), 2, False)
    assert command.line(rungs[1]).split() == ["4", "-", "-", "-", "-", "fail:", "the", "run"]
    assert "4 streams were too many: the run." in command.result(done, found(done))


def test_no_rung_passes() -> None:
    done = up(lambda _: {"ttft_p99_s": 1.0})
    assert (tried(done), done.best) == ([16, 16], None)
    assert "16 streams were too many (TTFT)" in command.no_result(done)


def test_other_programs_are_told_of() -> None:
    assert "up to 0.7 cores" in command.no_result(up(lambda _: {"ttft_p99_s": 1.0, "other_cores": 0.7}))
    assert "cores" not in command.no_result(up(lambda _: {"ttft_p99_s": 1.0, "other_cores": 0.1}))


def test_every_line_fits_eighty_columns_and_processes_the_cores() -> None:
    done = up(lambda n: {"other_cores": 1.0, "tokens_per_s": 123456.0} | ({"failed": 1} if n > 2000 else {}))
    said = [command.header(), *map(command.line, done.rungs), *command.result(done, found(done)).splitlines()]
    assert max(map(len, said)) <= 80
    for line in (line for line in said if "--processes" in line):
        assert int(line.split("--processes ")[1].split()[0].rstrip(",")) <= cores()


def found(done: Climb) -> Capacity:
    return Capacity(
        host="here", cores=cores(), python="3.11", version="0.1.0", date="2026-01-01T00:00:00+0000", streams=best(done),
        tokens_per_s=9000.0, processes=1, at_least=done.at_least, gap_s=0.02, tokens=64, error_s=1e-3,
    )  # fmt: skip
