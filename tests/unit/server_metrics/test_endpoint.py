"""Answers of servers that are not what a metrics endpoint should be: each is one error, in bounded time and memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator

import pytest

from llm_users.server_metrics.endpoint import MOST_BYTES, TIMEOUT_S, MetricsEndpoint, NoMetrics
from tests.ports import free_port
from tests.wire_server import CLOSE, HOLD, RESET, Script, Wire, pause, send

TEXT = b"vllm:num_requests_running 3\n"


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as running:
        yield running


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = {"content-type": "text/plain; version=0.0.4", "content-length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def test_the_text_is_returned_over_one_connection_without_credentials(wire: Wire) -> None:
    port = wire.serve([send(answer(TEXT))])
    endpoint = MetricsEndpoint(f"{port.root}/metrics?x=1", None)
    assert [endpoint.get()[0] for _ in range(3)] == [TEXT] * 3
    requests = port.requests()
    assert {request.connection for request in requests} == {requests[0].connection}
    assert requests[0].target == "/metrics?x=1"
    assert not {"authorization", "cookie"} & requests[0].headers.keys()


def test_a_kept_connection_that_the_server_closed_is_opened_again(wire: Wire) -> None:
    port = wire.serve([send(answer(TEXT)), CLOSE])
    endpoint = MetricsEndpoint(f"{port.root}/metrics", None)
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
        ([send(answer(TEXT)[:-5]), CLOSE], "a body that ends too early"),
        ([send(answer(b"", **{"content-length": str(2**40)}) + bytes(MOST_BYTES + 2**17)), HOLD], "more than 4 MiB"),
        ([send(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n"), CLOSE], "does not answer in HTTP"),
    ],
)
def test_other_answers_are_errors(wire: Wire, script: Script, words: str) -> None:
    port = wire.serve(script)
    with pytest.raises(NoMetrics) as caught:
        MetricsEndpoint(f"{port.root}/metrics", None).get()
    assert words in str(caught.value)


SLOWLY = [step for byte in answer(TEXT) for step in (send(bytes([byte])), pause(0.2))]


@pytest.mark.parametrize("script", [[HOLD], [send(answer(TEXT)[:20]), HOLD], SLOWLY], ids=["silent", "stops", "slow"])
def test_a_slow_server_is_given_up_after_two_seconds(wire: Wire, script: Script) -> None:
    port = wire.serve(script)
    code = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, time
from llm_users.server_metrics.endpoint import MetricsEndpoint, NoMetrics
began_s = time.monotonic()
try:
    MetricsEndpoint(sys.argv[1], None).get()
except NoMetrics as error:
    print(time.monotonic() - began_s, error, sep=";")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, f"{port.root}/metrics"], capture_output=True, text=True, timeout=60, check=True
    )
    took_s, _, words = done.stdout.strip().partition(";")
    assert words == "did not answer within 2 s"
    assert TIMEOUT_S - 0.1 < float(took_s) < TIMEOUT_S + 1


def test_nothing_listens() -> None:
    with pytest.raises(NoMetrics, match=r"cannot be reached \(Connection refused\)"):
        MetricsEndpoint(f"http://127.0.0.1:{free_port()}/metrics", None).get()
