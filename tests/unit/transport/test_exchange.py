"""One request on a pooled connection: keep-alive, the reconnect rule, deadlines, kills."""

from __future__ import annotations

import time

import gevent
import pytest

from llm_users.transport.connection import Origin
from llm_users.transport.errors import ConnectFailed, ConnectionLost, DeadlineExceeded, ResponseCut
from llm_users.transport.exchange import Exchange, request_bytes
from llm_users.transport.pool import Pool
from tests.stream_bytes import CHUNKED, DONE, LAST_CHUNK, UNTIL_CLOSE, at_once, chunk, head, stream
from tests.unit.transport.conftest import Authority
from tests.wire_server import CLOSE, HOLD, RESET, Port, Wire, pause, send

PARTS = [b"one", b"two", b"three"]


def origin_of(port: Port) -> Origin:
    return Origin(port.root.split(":")[0], "127.0.0.1", port.port)


def fetch(pool: Pool, port: Port) -> tuple[Exchange, bytes]:
    """A whole request."""
    exchange = Exchange(pool)
    try:
        exchange.send(origin_of(port), request_bytes("GET", b"/", origin_of(port), [], b""))
        return exchange, b"".join(bytes(piece) for arrival in exchange.arrivals() for piece in arrival.pieces)
    finally:
        exchange.release()


def begun(pool: Pool, port: Port) -> Exchange:
    """A request whose headers have come."""
    exchange = Exchange(pool)
    exchange.send(origin_of(port), request_bytes("GET", b"/", origin_of(port), [], b""))
    return exchange


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_connections_are_used_again(wire: Wire, pool: Pool, own_ca: Authority, tls: bool) -> None:
    port = wire.serve(stream(PARTS, gap_s=0.002), tls=own_ca.server if tls else None)
    costs = []
    for _ in range(3):
        exchange, body = fetch(pool, port)
        assert body == b"onetwothree"
        costs.append(exchange.connect_ns)
    assert costs[0] > 0
    assert costs[1:] == [0, 0]
    assert (port.connections, pool.opened) == (1, 1)


def test_requests_in_flight_together_have_connections_of_their_own(wire: Wire, pool: Pool) -> None:
    port = wire.serve(stream(PARTS, gap_s=0.02))
    for _ in range(2):
        jobs = [gevent.spawn(fetch, pool, port) for _ in range(20)]
        gevent.joinall(jobs, timeout=5, raise_error=True)
    assert port.connections == 20


def test_without_keep_alive_every_request_connects(wire: Wire) -> None:
    port = wire.serve(stream(PARTS))
    pool = Pool(keep_alive=False)
    assert all(fetch(pool, port)[0].connect_ns for _ in range(3))
    assert port.connections == 3


@pytest.mark.parametrize("more", ["Connection: close\r\n", ""])
def test_a_response_that_ends_the_connection_is_believed(wire: Wire, pool: Pool, more: str) -> None:
    port = wire.serve(stream(PARTS, CHUNKED if more else UNTIL_CLOSE, more=more))
    fetch(pool, port)
    fetch(pool, port)
    assert port.connections == 2


def test_idle_connections_that_the_server_closed_are_not_used(wire: Wire, pool: Pool) -> None:
    port = wire.serve([*stream(PARTS), pause(0.02), CLOSE])
    for _ in range(3):
        exchange, body = fetch(pool, port)
        assert body == b"onetwothree"
        assert (exchange.reconnects, exchange.reads > 0) == (0, True)
        gevent.sleep(0.1)
    assert port.connections == 3


@pytest.mark.parametrize("death", [CLOSE, RESET])
def test_a_reused_connection_that_dies_before_the_first_byte_is_replaced_once(
    wire: Wire, pool: Pool, death: list[str]
) -> None:
    port = wire.serve(stream(PARTS), [pause(0.02), death], stream(PARTS))
    fetch(pool, port)
    before_ns = time.monotonic_ns()
    exchange, body = fetch(pool, port)
    assert (body, exchange.reconnects) == (b"onetwothree", 1)
    assert exchange.connect_ns > 0
    assert exchange.sent_ns - before_ns > 18_000_000  # t0 was taken again
    assert port.requests()[-1].received_ns - exchange.sent_ns < 20_000_000


@pytest.mark.parametrize("death", [CLOSE, RESET])
@pytest.mark.parametrize("after_s", [0.2, 1.0])
def test_a_request_that_dies_late_on_a_reused_connection_is_not_sent_again(
    wire: Wire, pool: Pool, death: list[str], after_s: float
) -> None:
    port = wire.serve(stream(PARTS), [pause(after_s), death], stream(PARTS))
    fetch(pool, port)
    with pytest.raises(ConnectionLost):
        fetch(pool, port)
    assert len(port.requests()) == 2


def test_a_slow_connection_has_twice_its_connect_time(wire: Wire, pool: Pool) -> None:
    port = wire.serve(stream(PARTS), [pause(0.2), CLOSE], stream(PARTS))
    exchange, _ = fetch(pool, port)
    pool._idle[origin_of(port)][0].connect_ns = 150_000_000  # as over a long way
    exchange, body = fetch(pool, port)
    assert (body, exchange.reconnects) == (b"onetwothree", 1)


def test_the_replacement_is_not_replaced(wire: Wire, pool: Pool) -> None:
    port = wire.serve(stream(PARTS), [CLOSE])
    fetch(pool, port)
    with pytest.raises(ConnectionLost):
        fetch(pool, port)
    assert len(port.requests()) == 3


def test_a_fresh_connection_is_not_replaced(wire: Wire, pool: Pool) -> None:
    port = wire.serve([CLOSE], stream(PARTS))
    with pytest.raises(ConnectionLost, match="without a response"):
        fetch(pool, port)
    assert len(port.requests()) == 1


def test_a_reused_connection_that_dies_after_the_first_byte_is_not_replaced(wire: Wire, pool: Pool) -> None:
    port = wire.serve(stream(PARTS), [send(b"HTTP/1.1 2"), CLOSE], stream(PARTS))
    fetch(pool, port)
    with pytest.raises(ConnectionLost):
        fetch(pool, port)
    assert len(port.requests()) == 2


def test_a_second_request_of_an_exchange_may_be_replaced_too(wire: Wire, pool: Pool) -> None:
    port = wire.serve(stream(PARTS), [CLOSE], stream(PARTS))
    exchange = begun(pool, port)
    assert list(exchange.arrivals())
    exchange.release()
    wire_bytes = request_bytes("GET", b"/", origin_of(port), [], b"")
    exchange.send(origin_of(port), wire_bytes)
    assert exchange.reconnects == 1
    assert b"".join(bytes(p) for a in exchange.arrivals() for p in a.pieces) == b"onetwothree"
    assert 0 < exchange.body_reads <= 4


def test_a_replacement_that_nobody_accepts_is_a_failure_to_connect(wire: Wire, pool: Pool) -> None:
    port = wire.serve(stream(PARTS), [CLOSE])
    fetch(pool, port)
    exchange = Exchange(pool)
    exchange.reserve(origin_of(port))
    assert exchange.connection is not None
    nowhere = Origin("http", "127.0.0.1", 9)
    exchange.connection.origin = nowhere  # the server is gone by the time of the replacement
    with pytest.raises(ConnectFailed):
        exchange.send(nowhere, b"GET / HTTP/1.1\r\n\r\n")
    assert exchange.sent_ns == 0
    assert exchange.connect_ns > 0


def test_a_connection_reserved_and_not_used_goes_back(wire: Wire, pool: Pool) -> None:
    port = wire.serve(stream(PARTS))
    exchange = Exchange(pool)
    exchange.reserve(origin_of(port))
    exchange.release()
    fetch(pool, port)
    assert port.connections == 1


@pytest.mark.parametrize("begin", [b"", head(CHUNKED), head(CHUNKED) + chunk(b"one")])
def test_a_deadline_closes_the_connection(wire: Wire, pool: Pool, begin: bytes) -> None:
    port = wire.serve([send(begin), HOLD])
    with pytest.raises(DeadlineExceeded), gevent.Timeout(0.15, DeadlineExceeded("late")):
        fetch(pool, port)
    request = port.left_by_client()
    assert 0.05e9 < request.client_closed_ns - request.received_ns < 0.4e9


def test_a_kill_in_mid_stream_closes_the_connection(wire: Wire, pool: Pool) -> None:
    port = wire.serve([send(head(CHUNKED) + chunk(b"one")), HOLD])
    reader = gevent.spawn(fetch, pool, port)
    gevent.sleep(0.1)
    reader.kill(block=True, timeout=2)
    assert port.left_by_client()


def test_a_body_cut_in_the_middle_is_cut(wire: Wire, pool: Pool) -> None:
    port = wire.serve([send(head(CHUNKED) + chunk(b"one")), CLOSE])
    exchange = begun(pool, port)
    got = []
    with pytest.raises(ResponseCut):
        got.extend(exchange.arrivals())
    exchange.release()


def drain_after_done(pool: Pool, port: Port) -> float:
    """Read until [DONE], then drain; how long that took."""
    exchange = begun(pool, port)
    for arrival in exchange.arrivals():
        if any(b"[DONE]" in piece for piece in arrival.pieces):
            break
    started_s = time.monotonic()
    exchange.drain()
    return time.monotonic() - started_s


def test_after_done_and_terminator_the_connection_is_kept(wire: Wire, pool: Pool) -> None:
    for script in (at_once([DONE]), stream([DONE], gap_s=0.02)):
        port = wire.serve(script)
        for _ in range(2):
            assert drain_after_done(pool, port) < 0.08
        assert port.connections == 1


def test_a_server_that_holds_the_connection_after_done_is_left_soon(wire: Wire, pool: Pool) -> None:
    port = wire.serve([send(head(CHUNKED) + chunk(DONE)), HOLD])
    assert drain_after_done(pool, port) == pytest.approx(0.1, abs=0.05)
    assert drain_after_done(pool, wire.serve([send(head(UNTIL_CLOSE) + DONE), HOLD])) < 0.02
    assert port.left_by_client()


def test_two_responses_to_one_request_do_not_reach_the_next(wire: Wire, pool: Pool) -> None:
    whole = head(CHUNKED) + chunk(b"one") + LAST_CHUNK
    port = wire.serve([send(whole + whole.replace(b"one", b"bad"))], [send(whole)])
    assert fetch(pool, port)[1] == b"one"
    assert fetch(pool, port)[1] == b"one"
    assert port.connections == 2


def test_a_closed_pool_keeps_nothing(wire: Wire) -> None:
    pool = Pool()
    port = wire.serve(stream(PARTS, gap_s=0.01))
    exchange = begun(pool, port)
    pool.close()
    assert list(exchange.arrivals())
    exchange.release()
    fetch(pool, port)
    assert port.connections == 2


@pytest.mark.alone
def test_stamps_follow_the_server_s_writes(wire: Wire, pool: Pool) -> None:
    port = wire.serve(stream(PARTS, gap_s=0.01))
    exchange = begun(pool, port)
    arrivals = [arrival for arrival in exchange.arrivals() if arrival.pieces]
    (request,) = port.requests()
    errors_ns = sorted(a.stamps_ns[0] - sent for a, sent in zip(arrivals, request.sent_ns[1:], strict=False))
    assert errors_ns[1] < 1_000_000
    assert all(clock_ns >= stamp_ns for arrival in arrivals for stamp_ns, clock_ns, _end in arrival.reads())
    assert 0 <= request.received_ns - exchange.sent_ns < 20_000_000
    assert abs(exchange.sent_wall_ns - time.time_ns()) < 5e9
