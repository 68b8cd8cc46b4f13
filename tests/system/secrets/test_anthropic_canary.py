"""Anthropic's keys go in, in either header; nothing that comes out may hold one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import ROOT
from tests.stream_bytes import event, reply, stream
from tests.system.secrets.searching import (
    ANTHROPIC_KEY,
    ANTHROPIC_TOKEN,
    HEADER,
    HOSTILE,
    Search,
    Surroundings,
    checked,
)
from tests.wire_server import CLOSE, Script, Wire


def echoes(secret: str) -> list[Script]:
    """Answers, good and bad, that repeat what they were sent."""
    said = f"{secret} {HEADER}"
    ids = f"request-id: {said}\r\n"
    start = event({"type": "message_start", "message": {"id": said, "usage": {"input_tokens": 3}}})
    text = event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": said}})
    tool = event({"type": "content_block_start", "content_block": {"type": "tool_use", "id": said, "name": said}})
    end = event({"type": "message_delta", "delta": {"stop_reason": said}, "usage": {"output_tokens": 1}})
    stop = event({"type": "message_stop"})

    def failure(kind: str, message: str) -> dict[str, object]:
        return {"type": "error", "error": {"type": kind, "message": message}}

    return [
        stream([start, text, tool, end, stop], more=ids),
        reply("401 Unauthorized", failure("authentication_error", f"invalid x-api-key: {said}"), more=ids),
        reply("529 Overloaded", failure(said, said), more=ids),
        stream([start, text, event(failure(said, f"no more for {said}"), name="error")]),
        stream([start, event(failure(HOSTILE, HOSTILE))]),
        stream([start, event({"type": "content_block_delta", said: 1, "delta": said})]),
        stream([event(b'{"broken": ' + said.encode())]),
        reply("500 Internal Server Error", f"<html><body><h1>{said}</h1></body></html>", kind="text/html", more=ids),
        [CLOSE],
        stream([start, text]),
    ]


@pytest.mark.parametrize(
    ("variable", "secret", "transport", "processes"),
    [
        ("ANTHROPIC_API_KEY", ANTHROPIC_KEY, "fast", "1"),
        pytest.param("ANTHROPIC_API_KEY", ANTHROPIC_KEY, "sdk", "2", marks=pytest.mark.slow),
        ("ANTHROPIC_AUTH_TOKEN", ANTHROPIC_TOKEN, "fast", "2"),
    ],
)
def test_headless(
    search: Search, wire: Wire, surroundings: Surroundings, variable: str, secret: str, transport: str, processes: str
) -> None:
    server = wire.serve(*(echoes(secret) * 100))
    surroundings.locustfile = Path(__file__).with_name("leaky_anthropic_locustfile.py")
    root = str(ROOT)
    surroundings.environment |= {"PYTHONPATH": root, variable: secret}
    several = ["--processes", processes] if processes != "1" else []
    done = surroundings.run(
        "--headless", "--host", server.root, "--llm-sweep", "2", "--llm-requests", "24", "--llm-warmup", "0",
        "--llm-transport", transport, *several,
    )  # fmt: skip
    heads = "\n".join(request.head for request in server.requests())
    assert secret in heads  # all of it was really in use
    assert HEADER in heads
    rows = (surroundings.folder / "out" / "run_llm_requests.csv").read_text()
    assert rows.count("\n") == 25, done.stderr
    assert "[redacted]" in rows
    assert HOSTILE[1:20] in rows
    assert b"DEBUG/somebody.else" in done.stderr
    assert b"Anthropic refuses ['[redacted]'" in done.stderr + done.stdout
    checked(search, f"Anthropic, {variable}, {transport}, processes {processes}", surroundings, done)
