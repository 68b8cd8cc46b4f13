"""Whatever a server answers, its request has exactly one row, in time, that can be written and sent to a master."""

from __future__ import annotations

import json
from typing import Any

import msgpack
from hypothesis import example, given
from hypothesis import strategies as st

from llm_users.load.protocol.messages import row_problem
from llm_users.record import cell
from tests.stream_bytes import CHUNKED, DONE, LAST_CHUNK, LENGTH, UNTIL_CLOSE, chunk, delta, event, head
from tests.unit.fuzz.budget import fuzzed
from tests.unit.users.rig import Rig
from tests.wire_server import CLOSE, Wire, send

NAMES = ["id", "choices", "delta", "content", "finish_reason", "usage", "completion_tokens", "prompt_tokens", "index",
         "error", "message", "code", "type", "detail", "object", "text", "role", "tool_calls", "function", "arguments",
         "name", "reasoning_content", "prompt_tokens_details", "cached_tokens", "refusal", "message", "msg", "errors",
         "error_code", "error_msg", "base_resp", "status", "success", "audio", "transcript", "data", "id",
         "function_call"]  # fmt: skip
TEXTS = st.text(max_size=6) | st.sampled_from(
    ["\ud800", "\ud83d", "\r", "\n", "\x00", "=1", "stop", "error", "x" * 20_000, "'", "[DONE]"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | TEXTS | st.integers() | st.sampled_from([2**63, -1, 10**30, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=10,
)


def chunk_of(parts: dict[str, Any]) -> Any:
    """What looks like a chunk, with odd values in it."""
    return {
        "id": parts.get("id"),
        "choices": [{"index": 0, "delta": parts, "finish_reason": parts.get("code")}],
        **parts,
    }


OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
EVENTS = (
    VALUES.map(json.dumps).map(str.encode)
    | OBJECTS.map(chunk_of).map(json.dumps).map(str.encode)
    | st.binary(max_size=30)
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b'{"choices": 1e999}', b"1" * 6000, b"null", b'"[DONE]"'])
)
LINES = EVENTS.map(lambda data: data + b"\n")  # JSON without a field name
FIELDS = EVENTS.map(lambda data: b"error: " + data + b"\n\n") | EVENTS.map(lambda data: event(data, name="heartbeat"))
KNOWN = st.sampled_from([delta(content="a"), delta("stop"), delta("error"), DONE, b"\n", b"<html>\n", b"{\n", b"}\n"])
STREAMS = st.lists(EVENTS.map(event) | LINES | FIELDS | KNOWN, max_size=4)
KINDS = st.sampled_from(["text/event-stream", "application/json", "text/html", "text/plain; charset=x", ""])
STATUSES = st.sampled_from(
    ["200 OK"] * 4 + ["201 Made", "204 None", "302 Found", "400 No", "422 \xe9", "500 Oops", "999 ?"]
)


def usage_of(count: str) -> bytes:
    return b'{"choices": [{"delta": {"content": 5, "x": 1}}], "usage": {"completion_tokens": %s}}' % count.encode()


@fuzzed(150)
@given(STREAMS, KINDS, STATUSES, st.sampled_from([CHUNKED, LENGTH, UNTIL_CLOSE]), st.booleans())
@example([b"[" * 100_000], "application/json", "500 Oops", LENGTH, False)
@example([b"[" * 100_000], "application/json", "200 OK", LENGTH, False)
@example([event(b"[" * 100_000)], "text/event-stream", "200 OK", CHUNKED, False)
@example([event(b'{"usage": ' * 2000)], "text/event-stream", "200 OK", CHUNKED, False)
@example([b'{"error": {"message": "\\ud800"}}'], "application/json", "400 No", LENGTH, False)
@example(
    [b'{"id": "\\ud800", "choices": [], "usage": {"completion_tokens": Infinity}}'],
    "application/json",
    "200 OK",
    LENGTH,
    False,
)
@example([event(usage_of("1e999"))], "text/event-stream", "200 OK", CHUNKED, False)
@example([event(usage_of("1" * 400)), DONE], "text/event-stream", "200 OK", CHUNKED, False)
@example(
    [event({"id": "x" * 20_000, "choices": [{"delta": {"content": "a"}, "finish_reason": "s\rp"}]}), DONE],
    "text/event-stream",
    "200 OK",
    CHUNKED,
    False,
)
@example([b'{"detail": [[1], {"loc": 5, "msg": [2]}, {"loc": null}]}'], "application/json", "422 \xe9", LENGTH, False)
@example([b'{"error": {"code": {"a": 1}, "message": {"b": 2}}}'], "application/json", "400 No", LENGTH, False)
def test_any_answer_has_one_row(
    rig: Rig, wire: Wire, parts: list[bytes], kind: str, status: str, framing: str, cut: bool
) -> None:
    body = b"".join(parts)
    framed = b"".join(map(chunk, filter(None, parts))) + LAST_CHUNK if framing == CHUNKED else body
    answer = head(framing, len(body) + 7 * cut, status=status, kind=kind).decode().encode("latin-1") + framed
    before = len(rig.seen.records)
    record = rig.ask(wire.serve([send(answer), CLOSE]).url).record
    assert [each.request_id for each in rig.seen.records[before:]] == [record.request_id]
    row = record.row()
    for value in row:
        str(cell(value)).encode()
    assert row_problem(msgpack.loads(msgpack.dumps([row, []]))) is None
    assert record.error_code or record.chunks
    assert len(record.error_message or "") <= 500
    assert "Error" not in (record.error_code or ""), record  # a class of Python's is no code of ours
    assert rig.call(lambda user: user.run_context.gate.in_flight) == 0


@fuzzed(100)
@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n", b"transfer-encoding: chunked\r\n"]),
        max_size=6,
    )
)
def test_any_bytes_have_one_row(rig: Rig, wire: Wire, parts: list[bytes]) -> None:
    record = rig.ask(wire.serve([send(part) for part in parts] + [CLOSE]).url).record
    assert record.error_code
    assert row_problem(msgpack.loads(msgpack.dumps([record.row(), []]))) is None
