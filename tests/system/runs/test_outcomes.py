"""One real run with every outcome: all parts of the program count its requests alike."""

from __future__ import annotations

from pathlib import Path

from llm_users.outcome import Outcome
from llm_users.simulator.launch import launch
from tests.system.runs.conftest import Locust
from tests.unit.reports.outcome_counts import counts_everywhere, counts_of, records_of


def test_all_parts_count_the_outcomes_of_a_run_alike(locust: Locust, tmp_path: Path) -> None:
    with launch("ttft=50ms,itl=20ms,error=429:0.2+500:0.2", max_seconds=60) as simulator:
        running = locust.start(
            "--host", simulator.url, "--llm-rate", "40", "--llm-arrivals", "constant", "--llm-stage-time", "60s",
            "--llm-max-in-flight", "12", "--llm-overflow", "drop", "--llm-cancel", "0.3:30ms",
            "--llm-output-tokens", "200,0", "--llm-warmup", "0", "--stop-timeout", "1",
        )  # fmt: skip
        running.await_rows(220)  # answers take 4 s: some have ended, and others go on for longer than the stop timeout
        running.interrupt()
        done = running.finish()
    expected = counts_of([record.outcome for record in records_of(Path(done.prefix))])
    assert all(expected[outcome] for outcome in Outcome), str(expected)
    expected["ended"] = expected["measured"] - expected["aborted"] - expected["cancelled"]
    expected["not ok"] = expected["measured"] - expected["ok"]
    for part, counts in counts_everywhere(Path(done.prefix), tmp_path / "out").items():
        assert counts == {name: expected[name] for name in counts}, part
