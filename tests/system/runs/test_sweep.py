"""The sweep: exact counts, phases, stages that go on after failure, ends of every kind."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS
from llm_users.simulator.launch import Simulator, launch
from tests.system.locust_runs import Locust


def test_a_sweep_starts_and_measures_exactly_the_requests_asked_for(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "1,3,2", "--llm-requests", "7", "--llm-warmup", "2")
    assert done.code == 0, done.err
    rows = done.rows()
    by_stage = Counter((row["stage"], row["phase"], row["measured"]) for row in rows)
    assert by_stage == {
        ("1", "warmup", "0"): 2, ("1", "measure", "1"): 7,
        ("2", "warmup", "0"): 6, ("2", "measure", "1"): 7,
        ("3", "warmup", "0"): 4, ("3", "measure", "1"): 7,
    }  # fmt: skip
    assert {(row["stage"], row["concurrency"]) for row in rows} == {("1", "1"), ("2", "3"), ("3", "2")}
    assert len({row["request_id"] for row in rows}) == len(rows) == 33
    assert sorted(int(row["prompt_index"]) for row in rows) == list(range(33))  # none is reused
    totals = simulator.stop()
    assert totals["requests"] - totals.get("errors", 0) >= 33
    assert totals["completed"] >= 33


def test_the_server_saw_no_more_requests_than_there_are_rows(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "simulator.jsonl"
    with launch("ttft=10ms,itl=2ms", log=log, max_seconds=60) as simulator:
        done = locust.run(
            "--host", simulator.url, "--llm-model", "simulated", "--llm-sweep", "2,4", "--llm-requests", "9"
        )
    seen = [line for line in log.read_text().splitlines() if '"chatcmpl' in line]
    assert len(seen) == len(done.rows()) == 2 * 1 + 9 + 4 * 1 + 9


def test_users_never_exceed_the_stage_and_start_evenly_over_the_ramp(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "5", "--llm-requests", "5", "--llm-ramp", "1s",
                      "--llm-output-tokens", "300,0")  # fmt: skip
    starts = sorted(float(row["started_at"]) for row in done.rows() if row["phase"] == "warmup")
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert len(starts) == 5
    assert all(0.15 < gap < 0.3 for gap in gaps), gaps


def test_without_warm_up_every_request_is_measured(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "6", "--llm-warmup", "0")
    assert [row["measured"] for row in done.rows()] == ["1"] * 6


def test_warm_up_by_time(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "6", "--llm-warmup", "1s")
    phases = Counter(row["phase"] for row in done.rows())
    assert phases["measure"] == 6
    assert phases["warmup"] >= 8  # some 70 ms a request, two users, one second


def test_stages_by_time_measure_what_started_inside(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-stage-time", "1500ms")
    (stage,) = done.rows("stages")
    assert float(stage["measure_s"]) == pytest.approx(1.5, abs=0.1)
    measured = [row for row in done.rows() if row["measured"] == "1"]
    assert len(measured) == int(stage["requests_measured"]) > 20
    assert {row["phase"] for row in measured} == {"measure"}
    assert {row["phase_end"] for row in measured} <= {"measure", "drain"}
    assert all(row["error_code"] == "" for row in measured)


def test_whichever_comes_first_ends_a_stage_with_time_and_count(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "1", "--llm-stage-time", "30s", "--llm-requests", "4")
    assert len([row for row in done.rows() if row["measured"] == "1"]) == 4


def test_stage_rows_add_up(locust: Locust, simulator: Simulator) -> None:
    done = locust.run(
        "--host", simulator.url, "--llm-sweep", "1,4", "--llm-requests", "20", "--llm-output-tokens", "30,5"
    )
    stages, rows = done.rows("stages"), done.rows()
    assert list(stages[0]) == [column.name for column in STAGE_COLUMNS]
    assert list(rows[0]) == [column.name for column in REQUEST_COLUMNS]
    for stage in stages:
        mine = [row for row in rows if row["stage"] == stage["stage"]]
        assert int(stage["requests_started"]) == len(mine)
        assert int(stage["requests_measured"]) == int(stage["requests_ok"]) == 20
        tokens = sum(float(row["window_tokens"] or 0) for row in mine)
        assert float(stage["window_tokens"]) == pytest.approx(tokens)
        rate = float(stage["window_tokens"]) / float(stage["measure_s"])
        assert float(stage["output_throughput_token_per_s"]) == pytest.approx(rate, rel=1e-6)
        assert float(stage["concurrency_actual"]) == pytest.approx(int(stage["concurrency"]), rel=0.15)
        assert stage["stamp_source"] in ("kernel", "user")
        gaps = sum(int(line["count"]) for line in done.rows("gaps") if line["stage"] == stage["stage"])
        assert gaps == sum(int(row["chunks"]) - 1 for row in mine if row["measured"] == "1")


def test_a_failing_stage_is_reported_and_the_sweep_goes_on(locust: Locust) -> None:
    with launch("ttft=5ms,itl=1ms,error=500:1", max_seconds=60) as simulator:
        done = locust.run(
            "--host", simulator.url, "--llm-model", "simulated", "--llm-sweep", "1,2", "--llm-requests", "3"
        )
    assert done.code == 1
    assert [row["error_code"] for row in done.rows()] == ["500"] * 9
    assert [stage["requests_failed"] for stage in done.rows("stages")] == ["3", "3"]


def test_the_sweep_ends_when_too_many_requests_fail_and_that_was_asked_for(locust: Locust) -> None:
    with launch("ttft=5ms,itl=1ms,error=500:1", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-model", "simulated", "--llm-sweep", "1,2,3",
                          "--llm-requests", "3", "--llm-stop-on-errors", "0.5")  # fmt: skip
    assert len(done.rows("stages")) == 1
    assert "--llm-stop-on-errors" in done.err


def test_users_wait_after_failures_so_that_a_dead_server_is_not_hammered(locust: Locust) -> None:
    with launch("ttft=5ms,itl=1ms,error=500:1", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-model", "simulated", "--llm-sweep", "1",
                          "--llm-requests", "4", "--llm-warmup", "0")  # fmt: skip
    starts = [float(row["started_at"]) for row in done.rows()]
    waits = [later - earlier for earlier, later in pairwise(starts)]
    for wait, wanted in zip(waits, [0.1, 0.2, 0.4], strict=True):
        assert wanted <= wait < wanted + 0.15


def test_nobody_listening_ends_the_stage_after_twenty_failures_and_names_the_address(locust: Locust) -> None:
    done = locust.run(
        "--host", "http://127.0.0.1:9/v1", "--llm-model", "m", "--llm-sweep", "8", "--llm-requests", "500",
        "--llm-keep-going",
    )  # fmt: skip
    assert done.code == 1
    rows = done.rows()
    assert {row["error_code"] for row in rows} == {"connect"}
    assert 20 <= len(rows) < 40
    assert "127.0.0.1:9" in done.err
    assert all(row["ttft_s"] == row["end_to_end_latency_s"] == "" for row in rows)


def test_the_run_time_ends_a_sweep_too(locust: Locust, simulator: Simulator) -> None:
    began = time.monotonic()
    done = locust.run("--host", simulator.url, "--llm-sweep", "1,2", "--llm-requests", "100000", "--run-time", "4s")
    assert time.monotonic() - began < 20
    assert done.code == 0, done.err
    assert {row["stage"] for row in done.rows()} == {"1"}
    assert len(done.rows("stages")) == 1


def test_without_a_sweep_the_run_is_one_stage_of_locusts_users(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "-u", "3", "-r", "3", "-t", "3s")
    assert done.code == 0, done.err
    rows = done.rows()
    assert {row["stage"] for row in rows} == {"1"}
    assert {row["concurrency"] for row in rows} == {"3"}
    assert {row["phase"] for row in rows} <= {"ramp", "warmup", "measure"}
    (stage,) = done.rows("stages")
    assert 0.5 < float(stage["measure_s"]) < 4
    assert all(row["error_code"] in ("", "aborted") for row in rows)


def test_a_run_that_ends_before_its_test_begins_fails(locust: Locust, simulator: Simulator) -> None:
    (locust.folder / "early.py").write_text(
        "from locust import events, task\n"
        "from llm_users import OpenAIUser\n"
        "class Chat(OpenAIUser):\n"
        "    @task\n"
        "    def go(self):\n"
        "        self.ask()\n"
        "@events.init.add_listener\n"
        "def leave(environment, **kwargs):\n"
        "    environment.runner.quit()\n"
    )
    done = locust.run("--host", simulator.url, "-u", "1", "-t", "1s", locustfile="early.py")
    assert done.code == 3, done.err
    assert "nothing was measured" in done.err


def test_bad_options_are_refused_with_exit_code_2(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    for arguments, complaint in (
        (("--llm-sweep", "1,x"), "1,2,4,8"),
        (("--llm-requests", "0"), "--llm-requests"),
        (("--llm-extra-body", "{"), "JSON"),
        (("--llm-prompts", "missing.jsonl"), "missing.jsonl"),
        (("--llm-header-env", "X=NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE"),
        (("--llm-timeout", "soon"), "500ms"),
    ):
        done = locust.run("--host", simulator.url, *arguments)
        assert done.code == 2, (arguments, done.err)
        assert complaint in done.err, done.err
        assert "Traceback" not in done.err


def test_an_api_of_another_kind_of_endpoint_is_refused(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "1", "--llm-api", "converse")
    assert done.code == 2
    assert "locustfiles/bedrock.py" in done.err


def test_no_endpoint_is_refused(locust: Locust) -> None:
    done = locust.run("--llm-sweep", "1")
    assert done.code == 2
    assert "--host" in done.err


def test_several_models_are_refused_with_the_list(locust: Locust) -> None:
    done = locust.run("--host", "http://127.0.0.1:9/v1", "--llm-sweep", "1")
    assert done.code == 2
    assert "--llm-model" in done.err
    assert "Traceback" not in done.err


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(
    locust: Locust, simulator: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = locust.run("--host", simulator.url, "--llm-sweep", "1", "--csv", str(tmp_path / "file" / "run"))
    assert done.code == 2
    assert str(tmp_path / "file") in done.err
    assert "Traceback" not in done.err


def test_a_run_with_zero_requests_fails(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    idle = tmp_path / "idle.py"
    idle.write_text(
        "import gevent\nfrom locust import task\nfrom llm_users import OpenAIUser\n"
        "class Idle(OpenAIUser):\n    @task\n    def nothing(self):\n        gevent.sleep(0.1)\n"
    )
    done = locust.run("--host", simulator.url, "-u", "1", "-t", "2s", locustfile=str(idle))
    assert done.code == 3
    assert "no request was started" in done.err


def test_credentials_in_the_host_never_show(locust: Locust, simulator: Simulator) -> None:
    url = simulator.url.replace("http://", "http://someone:hunter2secret@")
    done = locust.run("--host", url + "?token=tok-canary-1", "--llm-sweep", "1", "--llm-requests", "2")
    assert done.code == 0, done.err
    everything = done.out + done.err + "".join(p.read_text() for p in done.prefix.parent.rglob("*") if p.is_file())
    assert "hunter2secret" not in everything
    assert "tok-canary-1" not in everything
    assert done.manifest["host"] == simulator.url


def test_without_a_prefix_the_files_are_named_at_the_end(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "1", "--llm-requests", "2", csv=False)
    (rows,) = locust.folder.glob("out/*/run_llm_requests.csv")
    assert str(rows.relative_to(locust.folder)).removesuffix("requests.csv") in done.err


def test_an_existing_prefix_is_overwritten(locust: Locust, simulator: Simulator) -> None:
    arguments = ("--host", simulator.url, "--llm-sweep", "1", "--llm-warmup", "0")
    locust.run(*arguments, "--llm-requests", "5")
    done = locust.run(*arguments, "--llm-requests", "2")
    assert len(done.rows()) == 2


def test_raw_offsets_are_written_when_asked_for(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "1", "--llm-requests", "3", "--llm-chunk-times")
    offsets = {line["request_id"]: line["offsets_s"].split() for line in done.rows("offsets")}
    for row in done.rows():
        mine = [float(offset) for offset in offsets[row["request_id"]]]
        assert len(mine) == int(row["chunks"])
        assert mine[0] == pytest.approx(float(row["ttft_s"]), abs=2e-6)
        assert mine[-1] == pytest.approx(float(row["last_token_s"]), abs=2e-6)


def test_only_one_model_listed_needs_no_option(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "1", "--llm-requests", "2")
    assert {row["model"] for row in done.rows()} == {"simulated"}
