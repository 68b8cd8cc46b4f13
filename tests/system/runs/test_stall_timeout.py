"""--llm-stall-timeout: a request ends when the server has sent nothing for this time, by the server's own log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_users.simulator.launch import launch
from tests.system.locust_runs import Locust

STALL_S = 0.6


@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize(("fault", "sent_s"), [("stall:1", 0.0), ("stall@5:1", 0.1 + 4 * 0.05)])
def test_a_silent_server_ends_a_request_after_this_time(
    fault: str, sent_s: float, transport: str, locust: Locust, tmp_path: Path
) -> None:
    """``sent_s``: when the server sends the last bytes, after it has read the request."""
    log = tmp_path / "log.jsonl"
    with launch(f"ttft=100ms,itl=50ms,fault={fault}", max_seconds=60, log=log) as simulator:
        run = locust.run("--host", simulator.url, "--llm-sweep", "3", "--llm-requests", "9", "--llm-warmup", "0",
                         "--llm-output-tokens", "20,0", "--llm-stall-timeout", f"{STALL_S:g}s",
                         "--llm-transport", transport)  # fmt: skip
    rows = run.rows()
    assert len(rows) == 9
    assert {row["error_code"] for row in rows} == {"stalled"}
    assert {row["error_message"] for row in rows} == {"the server sent nothing for 0.6 s (--llm-stall-timeout)"}
    for row in rows:
        latency_s = float(row["end_to_end_latency_s"])
        assert sent_s + STALL_S - 0.01 <= latency_s <= sent_s + 1.1 * STALL_S
    # The server's own log: a stalled answer has sent what the row has.
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert {entry["outcome"] for entry in entries} == {"stalled"}
    chunks = {row["chunks"] for row in rows}
    assert chunks == ({"5"} if sent_s else {"0"})
    assert run.code == 1


def test_a_slow_answer_is_not_stalled(locust: Locust) -> None:
    # Each token comes 0.3 s after the one before, and the answer takes 1.7 s; heartbeats keep the other one alive.
    with launch("ttft=200ms,itl=300ms", max_seconds=60) as simulator:
        slow = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "4", "--llm-warmup", "0",
                          "--llm-output-tokens", "6,0", "--llm-stall-timeout", f"{STALL_S:g}s")  # fmt: skip
    assert slow.code == 0, slow.err
    assert {row["error_code"] for row in slow.rows()} == {""}
    with launch("ttft=1500ms,itl=5ms,comments=200ms", max_seconds=60) as simulator:
        alive = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "4", "--llm-warmup", "0",
                           "--llm-output-tokens", "6,0", "--llm-stall-timeout", f"{STALL_S:g}s",
                           prefix="alive")  # fmt: skip
    assert alive.code == 0, alive.err
    assert {row["error_code"] for row in alive.rows()} == {""}
