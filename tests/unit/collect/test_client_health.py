"""The verdict about the client: what speaks against it, what does not, and who is blamed."""

from __future__ import annotations

import pytest

from llm_users.collect.client_health import (
    DISTURBED,
    FEWEST_LAGS,
    OK,
    SATURATED,
    STRAINED,
    advice,
    complaint,
    fill_client,
    reasons,
    verdict,
)
from llm_users.load.protocol.stage import StageTotals
from llm_users.load.worker.lag_probe import report_sleep
from llm_users.quantile import DurationHistogram
from llm_users.record import StageRecord

QUIET = {"client_cpu_share_max": 0.4, "lag_p99_s": 0.001, "queue_p99_s": 0.005, "forced_start_share": 0.0}
BUSY = 0.85


def _stage(**figures: float) -> StageRecord:
    return StageRecord(stage=1, concurrency=8, **{**QUIET, **figures})  # type: ignore[arg-type]


def test_a_quiet_client_is_ok() -> None:
    assert verdict(_stage()) == OK
    assert reasons(_stage()) == []


@pytest.mark.parametrize(
    ("name", "late", "very_late"),
    [("lag_p99_s", 0.003, 0.05), ("queue_p99_s", 0.1, 0.5), ("forced_start_share", 0.3, 0.9)],
)
def test_lateness_saturates_only_a_client_that_uses_its_core(name: str, late: float, very_late: float) -> None:
    assert verdict(_stage(**{name: late})) == STRAINED
    assert verdict(_stage(**{name: very_late})) == STRAINED
    assert verdict(_stage(**{name: very_late, "client_cpu_share_max": 0.79})) == STRAINED
    assert verdict(_stage(**{name: late, "client_cpu_share_max": BUSY})) == STRAINED
    assert verdict(_stage(**{name: very_late, "client_cpu_share_max": BUSY})) == SATURATED
    assert len(reasons(_stage(**{name: very_late}))) == 1


def test_the_cpu_alone_strains_and_saturates() -> None:
    assert verdict(_stage(client_cpu_share_max=0.85)) == STRAINED
    assert verdict(_stage(client_cpu_share_max=0.97)) == SATURATED


def test_one_user_on_a_busy_machine_is_disturbed_and_told_about_the_machine() -> None:
    # 1.6 % of a core; the lag is all waiting for a CPU that other programs had.
    stage = _stage(
        client_cpu_share_max=0.016, lag_p99_s=0.024, lag_own_p99_s=0.0004, queue_p99_s=0.4, others_cpu_share=0.98
    )
    assert verdict(stage) == DISTURBED
    assert "other programs used 98% of the CPU" in reasons(stage)
    assert "the client waited 0.0236 s for a CPU (p99)" in reasons(stage)
    assert "--processes" not in complaint(stage, 1)
    assert "quieter machine" in advice(stage, 1)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"lag_own_p99_s": 0.029}, STRAINED),  # its own code kept it from waking up
        ({"lag_own_p99_s": 0.029, "others_cpu_share": 0.6}, STRAINED),  # although others were there
        ({"lag_own_p99_s": 0.001}, DISTURBED),  # others, or a CPU limit of the container
        ({"others_cpu_share": 0.6}, DISTURBED),  # a system that does not say how long a thread waits
        ({"others_cpu_share": 0.2}, STRAINED),
        ({"lag_own_p99_s": 0.029, "steal_share": 0.05}, DISTURBED),
        ({"lag_own_p99_s": 0.029, "steal_share": 0.001}, STRAINED),
        ({"lag_own_p99_s": 0.001, "client_cpu_share_max": BUSY}, SATURATED),  # it needs more than its core anyway
    ],
)
def test_who_is_blamed_for_a_late_client(figures: dict[str, float], expected: str) -> None:
    assert verdict(_stage(lag_p99_s=0.030, **figures)) == expected


def test_other_programs_do_no_harm_to_a_client_that_is_not_late() -> None:
    assert verdict(_stage(others_cpu_share=0.97, steal_share=0.05)) == OK


def test_chunks_that_the_server_sends_together_are_not_held_against_a_quiet_client() -> None:
    assert verdict(_stage(coalesced_share=0.9)) == OK
    assert verdict(_stage(coalesced_share=0.9, lag_p99_s=0.006, client_cpu_share_max=BUSY)) == SATURATED
    assert verdict(_stage(first_coalesced_share=0.9)) == OK


def test_first_chunks_that_a_late_client_read_with_later_ones_saturate_it_before_they_are_one_in_a_hundred() -> None:
    shares = {0.0: STRAINED, 0.003: STRAINED, 0.009: SATURATED}  # strained by the lag alone
    late = {"lag_p99_s": 0.006, "client_cpu_share_max": BUSY}
    assert {share: verdict(_stage(first_coalesced_share=share, **late)) for share in shares} == shares


def test_unknown_figures_are_no_verdict() -> None:
    assert verdict(StageRecord(stage=1)) is None


def test_a_handful_of_requests_and_a_burst_are_no_verdict() -> None:
    few = StageRecord(stage=1, requests_measured=40, queue_p99_s=0.9, lag_p99_s=0.001)
    assert verdict(few) == OK
    burst = StageRecord(stage=1, measure_s=0.2, client_cpu_share_max=1.0)
    assert verdict(burst) is None


def test_advice_names_a_number_of_processes() -> None:
    assert "--processes 4" in advice(_stage(client_cpu_share_max=0.99), 2)
    assert "--processes 2" in advice(_stage(queue_p99_s=0.9), 1)


# From the workers' totals.


def _totals(worker: int = 0, *, lag_s: float = 0.0, own_s: float | None = 0.0, **more: float) -> StageTotals:
    lag, own = DurationHistogram(), DurationHistogram()
    for _ in range(FEWEST_LAGS):
        lag.add(lag_s)
        if own_s is not None:
            own.add(own_s)
    given = {"users": 1, "window_s": 10.0, "cpu_s": 0.2, "machine": "a", "machine_cores": 2, **more}
    return StageTotals(1, worker, lag_counts=dict(lag.counts), lag_own_counts=dict(own.counts), **given)  # type: ignore[arg-type]


def _record(*totals: StageTotals) -> StageRecord:
    stage = StageRecord(stage=1, measure_s=10.0)
    fill_client(stage, totals)
    return stage


def test_the_cpu_of_others_is_that_of_the_machine_less_that_of_all_load_processes() -> None:
    parts = [_totals(n, cpu_s=6.0, machine_busy_share=0.9, machine_steal_share=0.03) for n in range(2)]
    stage = _record(*parts)
    assert stage.others_cpu_share == pytest.approx(0.9 - 2 * 6.0 / 10.0 / 2)
    assert (stage.steal_share, stage.client_cpu_s) == (0.03, 12.0)
    elsewhere = _totals(2, machine="b", machine_cores=8, machine_busy_share=0.5)
    assert _record(*parts, elsewhere).others_cpu_share == pytest.approx(0.5 - 0.2 / 10 / 8)


def test_load_processes_that_wait_for_each_other_are_not_disturbed() -> None:
    crowded = [_totals(n, lag_s=0.03, own_s=0.001, cpu_s=5.0, machine_busy_share=1.0) for n in range(4)]
    assert verdict(_record(*crowded)) == STRAINED
    alone = _totals(lag_s=0.03, own_s=0.001, cpu_s=5.0, machine_busy_share=1.0)
    assert verdict(_record(alone)) == DISTURBED


def test_the_own_part_of_the_lag_is_that_of_the_worst_process_and_may_be_unknown() -> None:
    worse, better = _totals(0, lag_s=0.03, own_s=0.002), _totals(1, lag_s=0.01, own_s=0.009)
    stage = _record(worse, better)
    assert (stage.lag_p99_s, stage.lag_own_p99_s) == pytest.approx((0.03, 0.002), rel=0.01)
    assert _record(_totals(lag_s=0.03, own_s=None)).lag_own_p99_s is None


def test_fewer_probes_than_a_percentile_needs_are_not_a_lag() -> None:
    few = StageTotals(1, 0, window_s=1.0, lag_counts={DurationHistogram.bucket(0.5): FEWEST_LAGS - 1})
    assert _record(few).lag_p99_s is None


def test_a_loop_that_stops_is_late_for_all_sleeps_that_would_have_begun_meanwhile() -> None:
    reported: list[tuple[float, float | None]] = []
    report_sleep(lambda lag_s, own_s: reported.append((lag_s, own_s)), 0.1, 0.05)
    assert [lag_s for lag_s, _ in reported] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])
    assert [own_s for _, own_s in reported] == pytest.approx([0.05, 0.04, 0.03, 0.02, 0.01])
    reported.clear()
    report_sleep(lambda lag_s, own_s: reported.append((lag_s, own_s)), 0.004, None)
    assert reported == [(0.004, None)]
