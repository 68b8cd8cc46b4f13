"""The rates of a stage that a worker leaves or comes back to, against what the endpoint itself has sent."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from llm_users.simulator.launch import launch
from tests.system.crash.workers.nodes import Nodes
from tests.system.locust_runs import Finished

pytestmark = pytest.mark.slow


def sent_by(log: Path, done: Finished, stage: int) -> tuple[float, float]:
    """Tokens per second and requests in flight inside the stage's window, by the endpoint's log."""
    (row,) = [row for row in done.rows("stages") if row["stage"] == str(stage)]
    length_s = float(row["measure_s"])
    start_s = float(row["measure_started_at"]) - (time.time() - time.monotonic())
    tokens = in_flight_s = 0.0
    for entry in map(json.loads, log.read_text().splitlines()):
        tokens += sum(start_s < sent_ns / 1e9 <= start_s + length_s for sent_ns in entry["sent_ns"])
        if entry["last_ns"]:
            ends_s = min(entry["last_ns"] / 1e9, start_s + length_s)
            in_flight_s += max(0.0, ends_s - max(entry["received_ns"] / 1e9, start_s))
    return tokens / length_s, in_flight_s / length_s


@pytest.mark.parametrize("how", ["leaves", "joins", "is cut off"])
def test_rates_are_those_of_the_endpoint(tmp_path: Path, how: str) -> None:
    log = tmp_path / "endpoint.jsonl"
    with launch("ttft=50ms,itl=10ms", log=log, max_seconds=120) as simulator:
        nodes = Nodes(tmp_path, simulator)
        try:
            nodes.start(2, "--llm-sweep", "9,9", "--llm-requests", "500", "--llm-output-tokens", "15,0", expected=3)
            link = nodes.join_by_link()
            nodes.master.await_rows(60, timeout_s=60)
            if how == "leaves":
                nodes.send(0, signal.SIGTERM)
            elif how == "joins":
                nodes.join()
            else:
                link.cut(9)
            done = nodes.finish(120)
        finally:
            nodes.stop()
    assert done.code == 0, done.err
    for stage in done.rows("stages"):
        tokens_per_s, in_flight = sent_by(log, done, int(stage["stage"]))
        assert stage["requests_measured"] == "500"
        assert float(stage["output_throughput_token_per_s"]) == pytest.approx(tokens_per_s, rel=0.03)
        assert float(stage["concurrency_actual"]) == pytest.approx(in_flight, rel=0.03)
