"""Events, Locust's table, users that are killed, errors that are raised, secrets that are kept."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gevent
import openai
import pytest
from gevent import GreenletExit

from llm_users.load.worker.context import run_context_of
from llm_users.load.worker.process import NoSingleModel, only_model
from llm_users.users.failures import RequestFailed
from tests.stream_bytes import CHUNKED, chat_events, chunk, delta, event, head, reply, stream
from tests.unit.users.rig import Rig, at, eventually
from tests.wire_server import HOLD, Wire, pause, send

MakeRig = Callable[..., Rig]
KEY = "not-shaped-like-any-key-0815"


def test_events_of_a_successful_call(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a", "b", "c"), gap_s=0.005))
    record = rig.ask(port.url).record
    assert rig.seen.records == [record]
    ((request_id, ttft_s),) = rig.seen.first_tokens
    assert request_id == record.request_id
    assert ttft_s == pytest.approx(record.ttft_s)
    (fired,) = rig.seen.locust_requests
    assert fired["context"]["record"] is record
    assert (fired["exception"], fired["name"], fired["response_length"]) == (None, "tiny", 3)
    assert fired["response_time"] == pytest.approx((record.end_to_end_latency_s or 0) * 1000)


def test_tokens_are_announced_only_to_who_listens(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream([delta(reasoning="hm"), *chat_events("a", "b")], gap_s=0.003))
    heard: list[dict[str, Any]] = []

    def listen(**what: Any) -> None:
        heard.append(what)

    hook = rig.environment.events.llm_token  # type: ignore[attr-defined]
    rig.ask(port.url)
    assert heard == []
    hook.add_listener(listen)
    try:
        record = rig.ask(port.url).record
    finally:
        hook.remove_listener(listen)
    assert [(token["index"], token["piece"]) for token in heard] == [(0, "hm"), (1, "a"), (2, "b")]
    assert {token["request_id"] for token in heard} == {record.request_id}
    stamps_ns = [token["stamp_ns"] for token in heard]
    assert (stamps_ns[-1] - stamps_ns[0]) / 1e9 == pytest.approx(record.last_token_s - record.ttft_s)  # type: ignore[operator]


def test_a_first_token_in_a_stream_without_its_last_blank_line_is_announced(rig: Rig, wire: Wire) -> None:
    rig.ask(wire.serve(stream([delta("stop", content="a").rstrip()], gap_s=0.005)).url)
    assert len(rig.seen.first_tokens) == 1


def test_failed_calls_fire_every_event_but_the_first_token(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig()  # a test with kinds of errors of its own: each has 50 at most
    record = rig.ask(wire.serve(reply("500 Oops", {"error": "no"})).url).record
    assert rig.seen.records == [record]
    assert rig.seen.first_tokens == []
    (fired,) = rig.seen.locust_requests
    assert isinstance(fired["exception"], RequestFailed)
    assert str(fired["exception"]) == "500: no"


def test_locust_s_table_has_a_row_per_measure_and_counts_each_call_once(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a", "b"), gap_s=0.005))
    rig = make_rig(attributes={"request_name": "ask"})
    for _ in range(3):
        rig.ask(port.url)
    entries = {
        method: entry.num_requests for (name, method), entry in rig.environment.stats.entries.items() if name == "ask"
    }
    assert entries == {"TTFT": 3, "TPOT": 3, "E2E": 3}
    assert rig.environment.stats.total.num_requests == 3
    entry = rig.environment.stats.get("ask", "TTFT")
    records = rig.seen.records
    assert entry.avg_response_time == pytest.approx(sum((r.ttft_s or 0) * 1000 for r in records) / 3)


def test_a_listener_that_fails_harms_nobody(rig: Rig, wire: Wire) -> None:
    def fail(**_: Any) -> None:
        raise ValueError("a listener's mistake")

    hook = rig.environment.events.llm_first_token  # type: ignore[attr-defined]
    hook.add_listener(fail)
    try:
        assert rig.ask(wire.serve(stream(chat_events("a"))).url).record.error_code is None
    finally:
        hook.remove_listener(fail)


def test_a_killed_user_leaves_an_aborted_row_and_no_locust_request(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig()
    port = wire.serve([send(head(CHUNKED) + chunk(delta(content="a"))), HOLD])
    greenlets: list[Any] = []

    def remember(user: Any) -> Any:
        greenlets.append(gevent.getcurrent())
        return user.chat("hi")

    waiting = rig.send(at(port.url, remember))
    eventually(lambda: rig.seen.first_tokens)
    greenlets[0].kill(block=True, timeout=5)
    with pytest.raises(GreenletExit):
        waiting.get(timeout=5)
    (record,) = rig.seen.records
    assert (record.error_code, record.chunks) == ("aborted", 1)
    assert record.ttft_s is not None
    assert record.end_to_end_latency_s is not None
    assert rig.seen.locust_requests == []
    assert port.left_by_client()


def test_stopping_the_test_aborts_what_is_in_flight(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig(users=2, stop_timeout=0.5)
    port = wire.serve([send(head(CHUNKED) + chunk(delta(content="a"))), HOLD])
    for _ in range(2):
        rig.send(at(port.url, lambda user: user.chat("hi")))
    eventually(lambda: len(rig.seen.first_tokens) == 2)
    rig.stop()
    assert [record.error_code for record in rig.seen.records] == ["aborted", "aborted"]
    assert rig.environment.stats.total.num_requests == 0


def test_a_user_killed_while_its_prompt_is_counted_asks_no_more(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig()
    port = wire.serve(stream(chat_events("a")))
    rig.ask(port.url)  # the stage has begun: nothing waits for it any more

    def ask(user: Any) -> Any:
        gevent.spawn(gevent.getcurrent().kill, block=False)  # strikes at the first wait: for the tokenizer's thread
        return user.chat("many words " * 1000)

    waiting = rig.send(at(port.url, ask))
    with pytest.raises(GreenletExit):
        waiting.get(timeout=5)
    assert [record.error_code for record in rig.seen.records] == [None, "aborted"]
    assert len(port.requests()) == 1


def test_an_answer_waits_for_a_quiet_loop_before_its_row_is_made_and_gets_one_whatever_happens(
    make_rig: MakeRig, wire: Wire
) -> None:
    rig = make_rig()
    port = wire.serve(stream(chat_events("a")))
    assert rig.ask(port.url).text == "a"
    endings = run_context_of(rig.environment).endings
    assert endings.passed == 1
    wait = endings.wait

    def killed_meanwhile() -> bool:
        gevent.spawn(gevent.getcurrent().kill, block=False)  # strikes while it waits
        return wait()

    endings.wait = killed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(GreenletExit):
        rig.ask(port.url)
    assert [(record.error_code, record.chunks) for record in rig.seen.records] == [(None, 1)] * 2


def test_the_wait_of_an_answer_for_its_row_is_in_the_queue_time_of_the_next_request(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a")))
    rig.ask(port.url)
    endings = run_context_of(rig.environment).endings
    wait = endings.wait
    endings.wait = lambda: (gevent.sleep(0.3), wait())[1]  # type: ignore[method-assign]
    rig.ask(port.url)
    endings.wait = wait  # type: ignore[method-assign]
    for _ in range(2):
        rig.ask(port.url)
    late = [record.queue_s is not None and record.queue_s >= 0.3 for record in rig.seen.records]
    assert late == [False, False, True, False]


def test_a_user_killed_after_its_answer_keeps_the_answer(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig()
    script = [send(head(CHUNKED) + b"".join(map(chunk, chat_events("a")))), pause(0.001), HOLD]
    port = wire.serve(script)  # after [DONE] the end of the body never comes: the user waits a moment for it
    greenlets: list[Any] = []

    def ask(user: Any) -> Any:
        greenlets.append(gevent.getcurrent())
        return user.chat("hi")

    waiting = rig.send(at(port.url, ask))
    eventually(lambda: rig.seen.first_tokens)
    gevent.sleep(0.02)
    greenlets[0].kill(block=True, timeout=5)
    with pytest.raises(GreenletExit):
        waiting.get(timeout=5)
    assert [record.error_code for record in rig.seen.records] == [None]
    assert len(rig.seen.locust_requests) == 1


def test_a_timeout_of_the_locustfile_s_own_has_its_row_and_goes_on(rig: Rig, wire: Wire) -> None:
    port = wire.serve([send(head(CHUNKED) + chunk(delta(content="a"))), HOLD])

    def impatient(user: Any) -> str:
        try:
            with gevent.Timeout(0.1):
                user.chat("hi")
        except gevent.Timeout:
            return "caught"
        return "not raised"

    assert rig.call(at(port.url, impatient)) == "caught"
    assert [record.error_code for record in rig.seen.records] == ["timeout"]


def test_raise_errors_raises_what_the_row_says(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig(attributes={"raise_errors": True})
    with pytest.raises(RequestFailed, match="429: slow down") as caught:
        rig.ask(wire.serve(reply("429 Too Many Requests", {"error": "slow down"})).url)
    assert caught.value.code == "429"
    assert isinstance(caught.value.__cause__, openai.RateLimitError)
    assert rig.ask(wire.serve(stream(chat_events("a"))).url).text == "a"


@pytest.mark.parametrize(
    ("status", "start"),
    [
        ("401 Unauthorized", "the server refused the key (401): wrong key"),
        ("500 Oops", "no --llm-model was given and http"),
    ],
)
def test_a_model_list_that_needs_a_key_is_named_as_such(make_rig: MakeRig, wire: Wire, status: str, start: str) -> None:
    rig, port = make_rig(), wire.serve(reply(status, {"error": {"message": "wrong key"}}))
    with pytest.raises(NoSingleModel) as caught:
        rig.call(lambda user: only_model(type(user), user.run_context, port.url))
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    "echo",
    [
        reply("401 Unauthorized", {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
        reply("500 Oops", f"headers: Authorization: Bearer {KEY}", more=f"x-request-id: {KEY}\r\n"),
        reply("400 Bad Request", {KEY: 1}),
        stream([event({"error": {"message": KEY, "code": KEY}})]),
        stream([event({"id": KEY, "choices": [{"delta": {"content": "a"}, "finish_reason": KEY}]})]),
        stream([event(f"not json {KEY}".encode())]),
    ],
)
def test_a_key_that_the_server_echoes_is_shown_nowhere(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, echo: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GATEWAY_TOKEN", KEY[::-1])
    port = wire.serve(echo)
    with caplog.at_level(logging.DEBUG):
        rig = make_rig(attributes={"raise_errors": True}, llm_header_env=["X-Gateway=GATEWAY_TOKEN"])
        printed = ""
        try:
            rig.ask(port.url)
        except RequestFailed as error:
            printed = "".join(traceback.format_exception(error))
    (record,) = rig.seen.records
    assert port.requests()[0].headers["authorization"] == f"Bearer {KEY}"
    shown = printed + repr(asdict(record)) + repr(rig.seen.locust_requests) + caplog.text
    assert KEY not in shown
    assert KEY[::-1] not in shown
