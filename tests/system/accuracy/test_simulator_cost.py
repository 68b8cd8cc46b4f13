"""The simulated endpoints take little CPU time per token, so that the client beside them is the limit."""

from __future__ import annotations

from typing import Any

import pytest

from llm_users.simulator.launch import launch
from tests.unit.simulator.families import BLOCKS, CLAUDE_3, FAMILIES
from tests.unit.simulator.wire import CHAT, Client, body

TOKENS = 128
REQUESTS: dict[str, dict[str, Any]] = {
    CHAT: body(max_tokens=TOKENS),
    f"/model/{CLAUDE_3}/converse-stream": {**BLOCKS, "inferenceConfig": {"maxTokens": TOKENS}},
    f"/model/{CLAUDE_3}/invoke-with-response-stream": {
        **FAMILIES["anthropic-messages"].body,
        "max_tokens": TOKENS,
    },
}


@pytest.mark.parametrize("path", REQUESTS)
def test_cpu_per_token(path: str) -> None:
    with launch("ttft=50ms,itl=10ms") as sim:
        clients = [Client(sim.port) for _ in range(40)]
        for client in clients:
            client.send("POST", path, REQUESTS[path])
        for client in clients:
            client.read()
            client.sock.close()
        totals = sim.stop()
    print(path.rpartition("/")[2], totals)
    assert totals["cpu_us_per_token"] < 60
