"""A response that nobody asked for, on a kept connection: no row gets what belongs to another request."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import pytest

from llm_users.simulator.openai_wire import words
from llm_users.transport.connection import Origin
from llm_users.transport.exchange import Exchange, request_bytes
from llm_users.transport.pool import Pool
from tests.stream_bytes import chat_events, reply, stream
from tests.system.crash.endpoints import table
from tests.system.crash.endpoints.cases import CHAT
from tests.system.crash.endpoints.conftest import Endpoints
from tests.unit.users.rig import Rig
from tests.wire_server import CLOSE, Script, Wire, pause, send

REQUESTS = 6
LATE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"
TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def right_text(response_id: str) -> str:
    """What the simulator answers under this identifier."""
    return words(int(response_id.rpartition("-")[2]), 0, 8).decode().strip()


def test_on_an_idle_connection_it_makes_the_connection_unusable(
    endpoints: Endpoints, rig_with: Callable[..., Rig]
) -> None:
    rig, url = rig_with(CHAT, "5s"), endpoints.simulator("fault=unasked,seed=2")
    answers = []
    for _ in range(REQUESTS):
        answers.append(rig.ask(url))
        time.sleep(0.1)  # one gap after its end comes what nobody asked for
    table.note("an unasked response on an idle connection", f"{REQUESTS} requests, one after the other", REQUESTS,
               len(answers), "")  # fmt: skip
    for answer in answers:
        record = answer.record
        assert (record.error_code, record.reconnects) == (None, 0)
        assert record.connect_s
        assert answer.text == right_text(record.response_id)


def test_under_a_request_it_costs_that_request_at_most(endpoints: Endpoints, rig_with: Callable[..., Rig]) -> None:
    """The next request is on its way when it comes: nothing tells the two apart but that the answer is none."""
    rig, url = rig_with(CHAT, "5s"), endpoints.simulator("fault=unasked:0.4,seed=3")
    answers = [rig.ask(url) for _ in range(5 * REQUESTS)]
    bad = [answer for answer in answers if answer.record.error_code]
    table.note("an unasked response under the next request", f"{len(answers)} requests without a pause", len(answers),
               len(answers), "; ".join({answer.record.error_message or "" for answer in bad}))  # fmt: skip
    assert 0 < len(bad) < len(answers) / 2
    assert {answer.record.error_code for answer in bad} == {"truncated"}
    sent = 0
    for answer in answers:
        sent += 1 + answer.record.reconnects
        if answer not in bad:  # the answer to this request, not to the one before it
            assert int((answer.record.response_id or "").rpartition("-")[2]) == sent
            assert answer.text == right_text(answer.record.response_id or "")


RIGHT = reply("200 OK", b"right")


@pytest.mark.parametrize(
    "scripts",
    [
        [[*RIGHT, pause(0.2), send(LATE)], [pause(1.0), CLOSE], RIGHT],
        [[*RIGHT, pause(0.2), send(TIMED_OUT), CLOSE], RIGHT],
    ],
    ids=["response", "408"],
)
def test_between_taking_the_connection_and_sending_it_is_no_answer(scripts: list[Script]) -> None:
    pool = Pool(connect_timeout_s=5.0)
    with Wire() as wire:
        port = wire.serve(*scripts)
        origin = Origin("http", "127.0.0.1", port.port)
        request = request_bytes("GET", b"/", origin, [], b"")
        first = Exchange(pool)
        assert body_of(first, origin, request) == b"right"
        second = Exchange(pool)
        second.reserve(origin)
        assert second.connect_ns == 0
        gevent.sleep(0.4)
        assert body_of(second, origin, request) == b"right"
        assert second.reconnects == 1
        third = Exchange(pool)
        assert body_of(third, origin, request) == b"right"
        assert third.reconnects == 0
    pool.close()


def body_of(exchange: Exchange, origin: Origin, request: bytes) -> bytes:
    exchange.send(origin, request)
    body = b"".join(bytes(piece) for arrival in exchange.arrivals() for piece in arrival.pieces)
    exchange.release()
    return body


def test_the_answers_after_it_are_not_off_by_one(endpoints: Endpoints, rig_with: Callable[..., Rig]) -> None:
    rig = rig_with(CHAT, "5s")
    stray = reply("200 OK", {"unasked": True})
    answers = [stream(chat_events(word), gap_s=0.005) for word in ("one", "two", "three")]
    # It leaves when the second request has been read: before that, closing the connection could take it back unread.
    url = endpoints.script(answers[0], [*stray, pause(0.2), *answers[1]], answers[2])
    first, second, third = (rig.ask(url) for _ in range(3))
    assert (first.text, first.record.error_code) == ("one", None)
    assert (second.text, second.record.error_code) == ("", "truncated")
    assert (third.text, third.record.error_code) == ("three", None)
