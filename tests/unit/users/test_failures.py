"""What goes wrong, and what the row says: a code, and a message with what, where and what to do."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from llm_users.users.failures import failure_of
from tests.stream_bytes import (
    CHUNKED,
    DONE,
    FRAMINGS,
    LENGTH,
    UNTIL_CLOSE,
    chat_events,
    chunk,
    delta,
    event,
    framed,
    head,
    reply,
    stream,
    usage,
)
from tests.unit.users.rig import Rig, at
from tests.wire_server import CLOSE, HOLD, RESET, Script, Wire, pause, send

MakeRig = Callable[..., Rig]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        ("401 Unauthorized", {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}},
         ["Incorrect API key", "OPENAI_API_KEY"]),
        ("404 Not Found", {"error": {"message": "The model `tiny` does not exist", "code": "model_not_found"}},
         ["does not exist", "--llm-model", "/models"]),
        ("404 Not Found", {"detail": "Not Found"}, ["Not Found", "/v1/chat/completions", "--llm-model"]),
        ("429 Too Many Requests", {"error": "slow down"}, ["slow down"]),
        ("400 Bad Request", {"detail": "no such field"}, ["no such field"]),
        ("422 Unprocessable Entity", {"detail": [{"loc": ["body", "model"], "msg": "field required"}]},
         ["body.model: field required"]),
        ("422 Unprocessable Entity", {"detail": ["odd"]}, ["odd"]),
        ("400 Bad Request", {"message": "wrong", "code": 3}, ["wrong"]),
        ("500 Internal Server Error", "it broke", ["it broke"]),
        ("500 Internal Server Error", "", ["Internal Server Error"]),
        ("503 Service Unavailable", {}, ["Service Unavailable"]),
        ("502 Bad Gateway", "<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>",
         ["502 Bad Gateway", "nginx"]),
        ("500 Internal Server Error", {"error": {"error": {"message": "deep inside"}}}, ["deep inside"]),
        ("500 Internal Server Error", {"error": {"detail": ["x"]}}, ["x"]),
        ("400 Bad Request", [1, 2], ["[1,2]"]),
        ("418 Odd", '"just text"', ["just text"]),
    ],
)  # fmt: skip
def test_an_error_of_any_shape_is_put_into_words(
    rig: Rig, wire: Wire, status: str, body: Any, words: list[str]
) -> None:
    record = rig.ask(wire.serve(reply(status, body, more="x-request-id: server-7\r\n")).url).record
    assert record.error_code == status[:3]
    assert record.http_status == int(status[:3])
    assert record.error_message is not None
    for word in words:
        assert word.replace(" ", "") in record.error_message.replace(" ", "")
    assert "<" not in record.error_message
    assert record.response_id == "server-7"
    assert (record.ttft_s, record.output_tokens) == (None, None)
    assert record.end_to_end_latency_s is not None


def test_a_long_error_page_is_cut(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(reply("500 Oops", "word " * 10_000)).url).record
    assert len(record.error_message or "") <= 500


def test_an_error_whose_text_is_cut_keeps_its_status(rig: Rig, wire: Wire) -> None:
    port = wire.serve([send(head(LENGTH, 500, status="503 Service Unavailable") + b"over"), CLOSE])
    record = rig.ask(port.url).record
    assert record.error_code == "503"


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_nobody_listening(rig_with: MakeRig, transport: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        rig = rig_with(llm_transport=transport)
        record = rig.ask(f"http://127.0.0.1:{port}/v1").record
    assert record.error_code == "connect"
    assert f"127.0.0.1:{port}" in (record.error_message or "")
    assert "refused" in (record.error_message or "")
    assert record.started_at is not None
    assert record.ttft_s is None
    if transport == "fast":
        assert record.connect_s is not None
        assert record.connect_s > 0
        assert record.queue_s is not None
        assert record.end_to_end_latency_s is None
        assert "Check that the server is running" in (record.error_message or "")


def test_an_unknown_name(rig: Rig) -> None:
    record = rig.ask("http://no-such-host.invalid/v1").record
    assert record.error_code == "connect"
    assert "no-such-host.invalid" in (record.error_message or "")


def in_stream(*parts: bytes) -> Script:
    return stream([delta(role="assistant", content=""), delta(content="a"), *parts], gap_s=0.005)


@pytest.mark.parametrize("ending", [[], [DONE], [delta("stop"), DONE]])
@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (event({"error": {"message": "out of memory", "code": "server_error"}}), "server_error", "out of memory"),
        (event({"error": {"message": "overloaded", "type": "overloaded_error"}}), "overloaded_error", "overloaded"),
        (event({"error": {"message": "busy", "code": 503}}), "503", "busy"),
        (event({"error": "plain"}), "error", "plain"),
        (event({"error": {"message": "named"}}, name="error"), "error", "named"),
        (event({"message": "bare", "code": 7}, name="error"), "7", "bare"),
        (event(b"no json", name="error"), "error", "no json"),
        (event({"object": "error", "message": "old style", "code": 400}), "400", "old style"),
        (event({"detail": "detailed"}), "error", "detailed"),
        (event({"id": "x", "choices": [], "error": {"message": "beside choices", "code": "c"}}), "c", "beside choices"),
    ],
)
def test_an_error_inside_the_stream_is_the_server_s(
    rig: Rig, wire: Wire, failure: bytes, code: str, words: str, ending: list[bytes]
) -> None:
    answer = rig.ask(wire.serve(in_stream(failure, *ending)).url)
    record = answer.record
    assert record.error_code == code
    assert words in (record.error_message or "")
    assert "inside the stream" in (record.error_message or "")
    assert (answer.text, record.chunks, record.http_status) == ("a", 1, 200)
    assert record.ttft_s is not None


@pytest.mark.parametrize(
    "bad",
    [b'{"choices": [', b"not json", b"[1, 2]", b'"text"', b"12", b'{"choices": [{"delta": {"content": "\xff\xfe"}}]}'],
)
def test_malformed_json_is_malformed(rig: Rig, wire: Wire, bad: bytes) -> None:
    answer = rig.ask(wire.serve(in_stream(event(bad), delta("stop"), DONE)).url)
    assert (answer.record.error_code, answer.text) == ("malformed", "a")
    assert "not valid JSON" in (answer.record.error_message or "")


def test_a_page_of_html_with_status_200_is_malformed(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(reply("200 OK", "<html>log in</html>", kind="text/html")).url).record
    assert record.error_code == "malformed"
    assert "base URL" in (record.error_message or "")


def test_a_compressed_stream_is_malformed(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(stream(chat_events("a"), more="Content-Encoding: gzip\r\n")).url).record
    assert record.error_code == "malformed"
    assert "gzip" in (record.error_message or "")


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\x03 what?\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/9 x\r\n\r\n"])
def test_garbage_instead_of_http_is_malformed(rig: Rig, wire: Wire, garbage: bytes) -> None:
    record = rig.ask(wire.serve([send(garbage), CLOSE]).url).record
    assert record.error_code == "malformed"
    assert "not HTTP" in (record.error_message or "")


def test_garbage_between_chunks_keeps_what_came_before(rig: Rig, wire: Wire) -> None:
    port = wire.serve([send(head(CHUNKED) + chunk(delta(content="a")) + b"zz\r\n"), CLOSE])
    answer = rig.ask(port.url)
    assert (answer.record.error_code, answer.text, answer.record.chunks) == ("malformed", "a", 1)


def test_endless_headers_are_refused(rig: Rig, wire: Wire) -> None:
    bomb = b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"x" * 400_000
    record = rig.ask(wire.serve([send(bomb), HOLD]).url).record
    assert record.error_code == "malformed"
    assert "headers" in (record.error_message or "")


def test_a_line_without_end_is_refused(rig: Rig, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_users.transport.sse.MAX_EVENT_BYTES", 1 << 20)
    port = wire.serve([send(head(UNTIL_CLOSE) + b"data: "), send(b"x" * (3 << 20)), CLOSE])
    record = rig.ask(port.url).record
    assert record.error_code == "malformed"
    assert "MiB" in (record.error_message or "")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_stream_without_its_terminator_is_truncated(rig: Rig, wire: Wire, framing: str) -> None:
    answer = rig.ask(wire.serve(stream([delta(content="a"), delta(content="b")], framing, gap_s=0.005)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks) == ("truncated", "ab", 2)
    assert record.ttft_s is not None
    assert record.end_to_end_latency_s is not None


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_stream_cut_at_any_byte_is_a_success_only_after_its_terminator(rig: Rig, wire: Wire, framing: str) -> None:
    events = chat_events("a", "é")
    writes = framed(events, framing)
    whole = b"".join(writes)
    body = b"".join(events)
    start = len(writes[0])
    # The finish chunk is complete with its last brace, where the framing lets it through.
    finished = whole.index(b'"stop"') + len(b'"stop"}]}')
    scripts = [[send(whole[:cut]), CLOSE] for cut in range(len(whole))]
    port = wire.serve(*scripts)
    codes = []
    for cut in range(len(whole)):
        answer = rig.ask(port.url)
        record = answer.record
        codes.append(record.error_code)
        if cut < finished:
            assert record.error_code in (("reset",) if cut == 0 else ("truncated", "reset")), (cut, record)
        elif record.error_code is not None:  # at once and unchunked: no first token was seen
            assert record.error_code in ("buffered", "truncated"), (cut, record)
        if cut >= start and record.error_code == "truncated":
            sent = body.decode("utf-8", "replace") if framing != CHUNKED else ""
            assert answer.text in ("", "a", "aé"), (cut, sent)
            assert record.http_status == 200
    assert len(port.requests()) == len(whole)
    assert "truncated" in codes
    assert codes[-1] in (None, "buffered")


@pytest.mark.alone
def test_a_reset_in_mid_stream_keeps_what_was_measured(rig: Rig, wire: Wire) -> None:
    script = [
        send(head(CHUNKED) + chunk(delta(content="a"))),
        pause(0.02),
        send(chunk(delta(content="b"))),
        pause(0.02),
    ]
    answer = rig.ask(wire.serve([*script, RESET]).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks) == ("reset", "ab", 2)
    assert record.ttft_s is not None
    assert record.gap_max_s == pytest.approx(0.02, abs=0.01)
    assert record.output_tokens_source == "tokenizer"


@pytest.mark.parametrize("ending", [CLOSE, RESET])
def test_an_answer_that_finished_before_the_connection_broke_has_succeeded(
    rig: Rig, wire: Wire, ending: list[str]
) -> None:
    parts = [delta(content="a"), delta(content="b"), delta("stop")]
    script = [send(head(CHUNKED))] + [step for part in parts for step in (pause(0.01), send(chunk(part)))]
    record = rig.ask(wire.serve([*script, pause(0.01), ending]).url).record
    assert (record.error_code, record.finish_reason, record.output_tokens_source) == (None, "stop", "tokenizer")
    assert record.end_to_end_latency_s is not None


@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize("stalled_after", ["request", "headers", "tokens"])
def test_a_stalled_server_is_a_timeout(rig_with: MakeRig, wire: Wire, transport: str, stalled_after: str) -> None:
    sent = {"request": b"", "headers": head(CHUNKED), "tokens": head(CHUNKED) + chunk(delta(content="a"))}
    port = wire.serve([send(sent[stalled_after]), HOLD])
    rig = rig_with(llm_timeout="0.3s", llm_transport=transport)
    answer = rig.ask(port.url)
    record = answer.record
    assert record.error_code == "timeout"
    assert "0.3 s (--llm-timeout)" in (record.error_message or "")
    assert record.end_to_end_latency_s == pytest.approx(0.3, abs=0.1)
    assert answer.text == ("a" if stalled_after == "tokens" else "")
    if transport == "fast":
        request = port.left_by_client()
        assert request.client_closed_ns - request.received_ns == pytest.approx(0.3e9, abs=0.15e9)


def test_a_server_that_closes_kept_connections_is_asked_again(rig: Rig, wire: Wire) -> None:
    answer = stream(chat_events("a"), gap_s=0.005)
    port = wire.serve([*answer, pause(0.05), CLOSE], answer)
    first = rig.ask(port.url).record
    while port.connections == 1:
        second = rig.ask(port.url).record
    assert (first.error_code, second.error_code) == (None, None)
    assert second.connect_s is not None


@pytest.mark.alone
def test_a_kept_connection_that_dies_under_the_request_is_replaced_once(rig: Rig, wire: Wire) -> None:
    answer = stream(chat_events("a"), gap_s=0.005)
    port = wire.serve(answer, [pause(0.02), RESET], answer)
    assert rig.ask(port.url).record.reconnects == 0
    record = rig.ask(port.url).record
    assert (record.error_code, record.reconnects, record.retries) == (None, 1, 0)
    assert record.ttft_s is not None
    assert record.ttft_s < 0.02  # t0 was taken again
    assert record.connect_s
    again = wire.serve(answer, [RESET])
    rig.ask(again.url)
    record = rig.ask(again.url).record
    assert (record.error_code, record.reconnects) == ("reset", 1)
    assert len(again.requests()) == 3


def test_a_request_that_dies_late_on_a_kept_connection_is_a_failure(rig: Rig, wire: Wire) -> None:
    answer = stream(chat_events("a"), gap_s=0.005)
    port = wire.serve(answer, [pause(0.5), CLOSE], answer)
    rig.ask(port.url)
    record = rig.ask(port.url).record
    assert (record.error_code, record.reconnects) == ("reset", 0)
    assert record.end_to_end_latency_s == pytest.approx(0.5, abs=0.2)
    assert len(port.requests()) == 2


def test_a_new_connection_that_dies_is_not_replaced(rig: Rig, wire: Wire) -> None:
    port = wire.serve([CLOSE], stream(chat_events("a")))
    record = rig.ask(port.url).record
    assert (record.error_code, record.reconnects) == ("reset", 0)
    assert "without a response" in (record.error_message or "")
    assert len(port.requests()) == 1


def test_a_request_that_cannot_be_made_has_a_row_all_the_same(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a")))
    rig = make_rig(host=port.url, attributes={"model": "x"}, llm_model=None)

    def without_model(user: Any) -> Any:
        type(user).model = None
        try:
            return user.chat("hi")
        finally:
            type(user).model = "x"

    record = rig.call(without_model).record
    assert record.error_code
    assert "--llm-model" in (record.error_message or "")
    assert record.request_id
    assert (record.stage, record.queue_s, record.name) == (1, None, "Puppet")
    assert rig.ask(port.url).record.error_code is None


def test_in_flight_is_zero_after_all_of_this(rig: Rig) -> None:
    (gate,) = {rig.call(lambda user: user.run_context.gate)}
    assert gate.in_flight == 0


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (reply("401 Unauthorized", {"error": {"message": "no"}}), "401"),
        (stream([delta(content="a")]), "truncated"),
        ([send(head(UNTIL_CLOSE) + delta(content="a")), pause(0.01), CLOSE], "truncated"),
        ([CLOSE], "reset"),
        ([send(b"what?\r\n\r\n"), CLOSE], "reset"),
        ([send(head(CHUNKED) + chunk(delta(content="a"))), CLOSE], "truncated"),
        (stream([delta("stop"), usage(0), DONE]), "empty"),
    ],
)
def test_the_sdk_s_transport_has_the_same_codes(rig_with: MakeRig, wire: Wire, script: Script, code: str) -> None:
    rig = rig_with(llm_transport="sdk")
    assert rig.ask(wire.serve(script).url).record.error_code == code


@pytest.mark.alone
def test_the_sdk_s_transport_gives_the_same_answer(rig_with: MakeRig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("Hel", "lo"), gap_s=0.02))
    rig = rig_with(llm_transport="sdk")
    for _ in range(2):
        answer = rig.call(at(port.url, lambda user: user.chat("hi")))
        record = answer.record
        assert (answer.text, answer.finish_reason, record.error_code) == ("Hello", "stop", None)
        assert (record.output_tokens, record.chunks, record.stamp_source) == (2, 2, "user")
        assert record.tpot_s == pytest.approx(0.02, abs=0.01)
    assert port.connections == 1


def test_the_sdks_own_connection_without_a_descriptor_is_this_machines_limit() -> None:
    try:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as error:
            raise httpx2.ConnectError(str(error))  # noqa: B904 - no cause, as the SDK's HTTP stack does
    except httpx2.ConnectError as error:
        code, message = failure_of(error, "http://host/v1")
    assert code == "client_limit"
    assert "Too many open files" in message
    assert "ulimit -n" in message
