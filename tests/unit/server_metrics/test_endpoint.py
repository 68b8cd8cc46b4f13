"""Answers of servers that are not what a metrics endpoint should be: each is one error, in bounded time and memory."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator

import gevent
import pytest

import llm_users.extension  # noqa: F401 - Locust patches the interpreter before anything opens a socket
from llm_users.server_metrics.endpoint import MOST_BYTES, TIMEOUT_S, MetricsEndpoint, NoMetrics
from llm_users.transport.pool import Pool
from tests.ports import free_port
from tests.wire_server import CLOSE, HOLD, RESET, Script, Wire, pause, send

TEXT = b"vllm:num_requests_running 3\n"


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(2.0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as running:
        yield running


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = {"content-type": "text/plain; version=0.0.4", "content-length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def test_the_text_is_returned_over_one_connection_without_credentials(wire: Wire, pool: Pool) -> None:
    port = wire.serve([send(answer(TEXT))])
    endpoint = MetricsEndpoint(f"{port.root}/metrics?x=1", pool)
    assert [endpoint.get()[0] for _ in range(3)] == [TEXT] * 3
    requests = port.requests()
    assert {request.connection for request in requests} == {requests[0].connection}
    assert requests[0].target == "/metrics?x=1"
    assert not {"authorization", "cookie"} & requests[0].headers.keys()


def test_a_kept_connection_that_the_server_closed_is_opened_again(wire: Wire, pool: Pool) -> None:
    port = wire.serve([send(answer(TEXT)), CLOSE])
    endpoint = MetricsEndpoint(f"{port.root}/metrics", pool)
    assert [endpoint.get()[0] for _ in range(3)] == [TEXT] * 3


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([send(answer(b"", "302 Found", location="http://127.0.0.1/login"))], "status 302, a redirect to http://127.0"),
        ([send(answer(b"no", "404 Not Found"))], "answers with status 404"),
        ([send(answer(b"<html>log in</html>", **{"content-type": "text/html"}))], "the content type text/html"),
        ([send(answer(gzip.compress(TEXT), **{"content-encoding": "gzip"}))], "the content encoding gzip"),
        ([send(b"garbage\r\n\r\n"), CLOSE], "does not answer in HTTP"),
        ([send(answer(TEXT)[:60]), RESET], "cannot be reached"),
        ([send(answer(TEXT)[:-5]), CLOSE], "closed before the response was complete"),
        ([send(answer(b"", **{"content-length": str(2**40)}) + bytes(MOST_BYTES + 2**17)), HOLD], "more than 4 MiB"),
    ],
)
def test_other_answers_are_errors(wire: Wire, pool: Pool, script: Script, words: str) -> None:
    port = wire.serve(script)
    with pytest.raises(NoMetrics) as caught:
        MetricsEndpoint(f"{port.root}/metrics", pool).get()
    assert words in str(caught.value)


SLOWLY = [step for byte in answer(TEXT) for step in (send(bytes([byte])), pause(0.2))]


@pytest.mark.parametrize("script", [[HOLD], [send(answer(TEXT)[:20]), HOLD], SLOWLY], ids=["silent", "stops", "slow"])
def test_a_slow_server_is_given_up_after_two_seconds(wire: Wire, pool: Pool, script: Script) -> None:
    port = wire.serve(script)
    began_s = time.monotonic()
    with pytest.raises(NoMetrics, match="did not answer within 2 s"):
        MetricsEndpoint(f"{port.root}/metrics", pool).get()
    assert TIMEOUT_S - 0.1 < time.monotonic() - began_s < TIMEOUT_S + 1


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "flood",
    [CONTINUE * 200_000, CHUNKED + b"1\r\nx\r\n" * 1_000_000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1_000_000],
    ids=["continue", "chunks of a byte", "headers"],
)
def test_a_flood_ends_and_never_stops_the_event_loop(wire: Wire, pool: Pool, flood: bytes) -> None:
    port = wire.serve([send(flood), HOLD])
    pauses_s = []

    def tick() -> None:
        while True:
            began_s = time.monotonic()
            gevent.sleep(0.005)
            pauses_s.append(time.monotonic() - began_s)

    ticking = gevent.spawn(tick)
    began_s = time.monotonic()
    with pytest.raises(NoMetrics):
        MetricsEndpoint(f"{port.root}/metrics", pool).get()
    assert time.monotonic() - began_s < TIMEOUT_S + 2
    ticking.kill()
    assert max(pauses_s, default=0.0) < 0.5


def test_nothing_listens(pool: Pool) -> None:
    with pytest.raises(NoMetrics, match=r"cannot be reached .*Connection refused"):
        MetricsEndpoint(f"http://127.0.0.1:{free_port()}/metrics", pool).get()
