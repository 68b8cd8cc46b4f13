"""The event loop keeps what arrives and resumes the reader only when there is something for it to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from llm_users.transport.errors import ConnectionLost, ResponseCut
from llm_users.transport.exchange import LATE_BYTES, LATE_S, LINGER_S, Arrivals, Exchange
from llm_users.transport.pool import Pool
from tests.stream_bytes import CHUNKED, DONE, LENGTH, UNTIL_CLOSE, chunk, delta, head, stream
from tests.unit.transport.conftest import Authority
from tests.unit.transport.test_exchange import begun, fetch
from tests.wire_server import CLOSE, HOLD, RESET, Script, Wire, pause, send

TEN = [b"%d" % number for number in range(10)]


def parts_of(exchange: Exchange) -> Iterator[Arrivals]:
    """What each wait gave, without a resumption at each read."""
    while not exchange.is_over:
        assert exchange.wait(each_read=False)
        yield exchange.take()


def body_of(parts: list[Arrivals]) -> bytes:
    return b"".join(bytes(piece) for part in parts for piece in part.pieces)


@pytest.mark.parametrize("framing", [CHUNKED, LENGTH, UNTIL_CLOSE])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_short_body_resumes_the_reader_once_and_keeps_the_stamps(
    wire: Wire, pool: Pool, own_ca: Authority, framing: str, tls: bool
) -> None:
    port = wire.serve(stream(TEN, framing, gap_s=0.02), tls=own_ca.server if tls else None)
    exchange = begun(pool, port)
    parts = list(parts_of(exchange))
    reads = [read for part in parts for read in part.reads() if read[2]]
    assert (body_of(parts), len(parts)) == (b"".join(TEN), 1)
    sent_ns = port.requests()[0].sent_ns[1:11]
    errors_ns = [stamp_ns - moment for (stamp_ns, _clock_ns, _end), moment in zip(reads, sent_ns, strict=False)]
    assert -1_000_000 < min(errors_ns) <= max(errors_ns) < 20_000_000
    exchange.release()


def test_the_reader_is_resumed_a_second_after_the_first_read(wire: Wire, pool: Pool) -> None:
    exchange = begun(pool, wire.serve([*stream(TEN, gap_s=0.02)[:-1], HOLD]))
    start_s = time.monotonic()
    assert exchange.wait(each_read=False)
    assert LATE_S - 0.1 < time.monotonic() - start_s < LATE_S + 0.5
    assert body_of([exchange.take()]) == b"".join(TEN)
    exchange.discard()


def test_the_reader_is_resumed_soon_after_the_terminator(wire: Wire, pool: Pool) -> None:
    exchange = begun(pool, wire.serve([send(head(CHUNKED) + chunk(b"a")), pause(0.05), send(chunk(DONE)), HOLD]))
    exchange.terminator = b"[DONE]"
    exchange.take()
    start_s = time.monotonic()
    assert exchange.wait(each_read=False)
    assert LINGER_S < time.monotonic() - start_s < LINGER_S + 0.5
    assert body_of([exchange.take()]) == DONE
    exchange.discard()


def test_the_reader_is_resumed_when_many_bytes_wait(wire: Wire, pool: Pool) -> None:
    """128 KiB are decoded in about a millisecond; without the limit the reader would get 8 MiB at once."""
    size = 8 * 1024 * 1024
    exchange = begun(pool, wire.serve(stream([b"x" * 1000] * (size // 1000))))
    parts = list(parts_of(exchange))
    sizes = [sum(map(len, part.pieces)) for part in parts]
    assert sum(sizes) == size // 1000 * 1000
    assert max(sizes) < LATE_BYTES + 2 * 65536  # and one read of the socket, and 64 small reads
    exchange.release()


def test_a_busy_reader_makes_the_server_wait(wire: Wire, pool: Pool) -> None:
    """A client that cannot process a body does not fill its memory: it stops reading, so TCP stops the server."""
    size = 32 * 1024 * 1024
    port = wire.serve(stream([b"x" * 100_000] * (size // 100_000)))
    exchange = begun(pool, port)
    gevent.sleep(0.5)  # the reader is busy
    held = exchange.take()
    assert sum(map(len, held.pieces)) < 1024 * 1024
    rest = list(parts_of(exchange))
    assert len(body_of([held, *rest])) == size // 100_000 * 100_000
    exchange.release()


def test_an_impatient_caller_gets_what_has_arrived(wire: Wire, pool: Pool) -> None:
    exchange = begun(pool, wire.serve([send(head(CHUNKED)), pause(0.05), send(chunk(b"a")), HOLD]))
    done = gevent.spawn(exchange.wait, each_read=False)
    gevent.sleep(0.1)
    assert not done.ready()
    exchange.resume_reader()
    assert done.get(timeout=0.1)
    assert body_of([exchange.take()]) == b"a"
    exchange.resume_reader()  # nothing has arrived since
    assert not exchange.wait(each_read=False, timeout_s=0.05)
    exchange.discard()


@pytest.mark.parametrize(
    ("end", "error"), [(CLOSE, ResponseCut), (RESET, ConnectionLost)], ids=["closed early", "reset"]
)
def test_what_arrived_before_a_failure_is_given_first(
    wire: Wire, pool: Pool, end: list[object], error: type[Exception]
) -> None:
    exchange = begun(
        pool,
        wire.serve(
            [
                send(head(CHUNKED) + chunk(b"a")),
                pause(0.05),
                send(chunk(b"b")),
                pause(0.05),
                send(chunk(b"c")),
                pause(0.05),
                end,
            ]
        ),
    )
    parts = list(parts_of(exchange))
    assert body_of(parts) == b"abc"
    assert isinstance(exchange.failure, error)
    exchange.release()


SURPLUS: dict[str, Callable[[], Script]] = {
    "in the last read": lambda: [*stream([b"a"])[:-1], send(b"0\r\n\r\nHTTP/1.1 408 Timeout\r\n\r\n")],
    "alone": lambda: [*stream([b"a"]), send(b"HTTP/1.1 408 Timeout\r\n\r\n")],
}


@pytest.mark.parametrize("name", SURPLUS)
def test_bytes_after_the_response_are_not_the_next_response(wire: Wire, pool: Pool, name: str) -> None:
    port = wire.serve(SURPLUS[name](), stream([b"second"]))
    assert fetch(pool, port)[1] == b"a"
    gevent.sleep(0.05)
    assert fetch(pool, port)[1] == b"second"
    assert port.connections == 2


def test_trailers_end_a_body(wire: Wire, pool: Pool) -> None:
    port = wire.serve([*stream([b"a"])[:-1], pause(0.02), send(b"0\r\nX-Checksum: 1\r\n\r\n")])
    start_s = time.monotonic()
    exchange = begun(pool, port)
    assert body_of(list(parts_of(exchange))) == b"a"
    assert time.monotonic() - start_s < LATE_S / 2
    assert exchange.failure is None
    exchange.release()


def test_a_chat_answer_needs_few_resumptions(wire: Wire, pool: Pool) -> None:
    exchange = begun(pool, wire.serve(stream([delta(content="x")] * 100, gap_s=0.003)))
    assert len(list(parts_of(exchange))) == 1
    exchange.release()
