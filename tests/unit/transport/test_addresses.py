"""Names with several addresses: the first that answers is taken, and a silent one costs a moment, not the timeout."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import httpx2
import pytest

from llm_users.transport import pool as connect_module
from llm_users.transport.connection import Connection, Origin, origin_of
from llm_users.transport.errors import ConnectFailed
from llm_users.transport.pool import STAGGER_S, connect
from llm_users.transport.tls import tls_context
from tests.wire_server import HOLD, Wire

Names = Callable[..., None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Call it with the addresses that every name has."""

    def have(*addresses: tuple[str, int]) -> None:
        found = [
            (socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host, port in addresses
        ]
        monkeypatch.setattr(connect_module, "getaddrinfo", lambda *_: found)

    return have


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address that takes part in no handshake: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        yield listener.getsockname()
        for filler in fillers:
            filler.close()


@pytest.fixture
def refusing() -> Iterator[tuple[str, int]]:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        yield unheard.getsockname()


def timed(origin: Origin) -> tuple[Connection, float]:
    started_s = time.monotonic()
    connection = connect(origin, tls_context, 5.0)
    return connection, time.monotonic() - started_s


ANY = Origin("http", "several.test", 80)


def test_a_silent_address_costs_a_quarter_second(names: Names, silent: Any, wire: Wire) -> None:
    port = wire.serve([HOLD])
    names(silent, ("127.0.0.1", port.port))
    connection, took_s = timed(ANY)
    assert took_s == pytest.approx(STAGGER_S, abs=0.1)
    connection.close()


def test_a_refused_address_costs_nothing(names: Names, refusing: Any, wire: Wire) -> None:
    port = wire.serve([HOLD])
    names(refusing, refusing, ("127.0.0.1", port.port))
    connection, took_s = timed(ANY)
    assert took_s < STAGGER_S / 2
    connection.close()


def test_the_slower_attempt_goes_on_and_may_win(names: Names, silent: Any, refusing: Any) -> None:
    names(refusing, silent)
    with pytest.raises(ConnectFailed, match=r"no connection within 0.6 s"):
        connect(ANY, tls_context, 0.6)


def test_when_all_refuse_the_first_reason_is_given(names: Names, refusing: Any) -> None:
    names(refusing, refusing)
    with pytest.raises(ConnectFailed, match="Connection refused"):
        connect(ANY, tls_context, 5.0)


def test_nothing_is_left_open(names: Names, silent: Any, wire: Wire) -> None:
    port = wire.serve([HOLD])
    names(silent, silent, ("127.0.0.1", port.port))
    started = [gevent.spawn(connect, ANY, tls_context, 5.0) for _ in range(3)]
    gevent.sleep(0.3)
    gevent.killall(started)
    gevent.sleep(0.05)
    assert port.connections == 0
    connection, _ = timed(ANY)
    connection.close()


def test_families_take_turns() -> None:
    four, six = socket.AF_INET, socket.AF_INET6
    addresses = [(family, 1, 6, number) for family, number in ((six, 1), (six, 2), (four, 3), (four, 4), (six, 5))]
    assert [address[3] for address in connect_module._alternating(addresses)] == [1, 3, 2, 4, 5]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.COM/v1?key=1", ("https", "example.com", 443)),  # RFC 3986: 443 is the port of https
        ("http://user:word@example.com/", ("http", "example.com", 80)),
        ("http://[::1]:8000/v1", ("http", "::1", 8000)),
        (str(httpx2.URL("https://bücher.example/v1")), ("https", "xn--bcher-kva.example", 443)),
    ],
)
def test_the_origin_of_a_url(url: str, origin: tuple[str, str, int]) -> None:
    assert origin_of(url) == origin
