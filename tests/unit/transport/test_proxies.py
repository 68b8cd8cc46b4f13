"""Proxies: which one a connection takes, and what goes through it, over real sockets."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from llm_users.transport.connection import Origin, TlsConnection
from llm_users.transport.errors import ConnectFailed
from llm_users.transport.exchange import Exchange, request_bytes
from llm_users.transport.pool import Pool, connect
from llm_users.transport.proxies import Proxies, is_loopback
from llm_users.transport.tls import tls_context
from tests.forward_proxy import ForwardProxy
from tests.stream_bytes import CHUNKED, chunk, head
from tests.unit.transport.conftest import Authority
from tests.wire_server import HOLD, Port, Wire, pause, send

HOST = "only-the-proxy-knows.test"


def chosen(origin: str, **environment: str) -> str | None:
    scheme, _, rest = origin.partition("://")
    host, _, port = rest.rpartition(":")
    proxy = Proxies(environment).of(Origin(scheme, host.strip("[]"), int(port)))
    return str(proxy) if proxy else None


@pytest.mark.parametrize(
    ("origin", "environment", "expected"),
    [
        ("https://a.test:443", {}, None),
        ("https://a.test:443", {"HTTPS_PROXY": "http://p:1"}, "http://p:1 (HTTPS_PROXY)"),
        ("http://a.test:80", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://a.test:80", {"http_proxy": "p:1", "HTTP_PROXY": "http://other:2"}, "http://p:1 (http_proxy)"),
        ("http://a.test:80", {"ALL_PROXY": "http://p"}, "http://p:80 (ALL_PROXY)"),
        ("https://a.test:80", {"all_proxy": "https://p", "HTTPS_PROXY": "http://q:3"}, "http://q:3 (HTTPS_PROXY)"),
        ("https://a.test:80", {"HTTPS_PROXY": ""}, None),
        ("https://localhost:1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://127.8.0.1:1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://[::1]:1", {"HTTPS_PROXY": "http://p:1"}, None),
    ],
)
def test_the_environment_names_the_proxy(origin: str, environment: dict[str, str], expected: str | None) -> None:
    assert chosen(origin, **environment) == expected


@pytest.mark.parametrize(
    ("entries", "origin", "direct"),
    [
        ("*", "https://a.test:443", True),
        ("a.test", "https://a.test:443", True),
        ("A.TEST", "https://a.test:443", True),
        ("a.test", "https://b.a.test:443", True),
        (".a.test", "https://a.test:443", True),
        ("*.a.test", "https://b.a.test:443", True),
        ("a.test", "https://ba.test:443", False),
        ("x, a.test ,y", "https://a.test:443", True),
        ("x a.test", "https://a.test:443", True),
        ("a.test:8443", "https://a.test:8443", True),
        ("a.test:8443", "https://a.test:443", False),
        ("10.0.0.0/8", "https://10.2.3.4:443", True),
        ("10.0.0.0/8", "https://11.2.3.4:443", False),
        ("10.2.3.4", "https://10.2.3.4:443", True),
        ("10.2.3.4:80", "https://10.2.3.4:443", False),
        ("10.0.0.0/8", "https://a.test:443", False),
        ("fd00::/8", "https://[fd00::1]:443", True),
        ("[fd00::1]:443", "https://[fd00::1]:443", True),
        ("[fd00::1]:80", "https://[fd00::1]:443", False),
        ("2.3.4", "https://1.2.3.4:443", False),
        (",", "https://a.test:443", False),
        (".", "https://a.test:443", False),
    ],
)
def test_no_proxy(entries: str, origin: str, direct: bool) -> None:
    assert (chosen(origin, HTTPS_PROXY="http://p:1", NO_PROXY=entries) is None) == direct


def test_loopback_is_proxied_only_when_asked() -> None:
    assert is_loopback("a.localhost")
    assert not is_loopback("localhost.test")
    environment = {"HTTP_PROXY": "http://p:1"}
    assert Proxies(environment, loopback=True).of(Origin("http", "127.0.0.1", 80)) is not None


@pytest.mark.parametrize(
    ("url", "words"),
    [("socks5://p:1", "socks5 proxy"), ("http://p:99999", "port"), ("http://u:geheim@:1", "has no host")],
)
def test_a_proxy_that_cannot_be_used_is_explained(url: str, words: str) -> None:
    with pytest.raises(ConnectFailed, match=words) as failed:
        chosen("https://a.test:443", HTTPS_PROXY=url)
    assert "HTTPS_PROXY" in str(failed.value)
    assert "geheim" not in str(failed.value)


def origin_behind(port: Port) -> Origin:
    return Origin(port.root.split(":")[0], HOST, port.port)


def sent(pool: Pool, port: Port, body: bytes = b"{}") -> tuple[Exchange, list[bytes], list[int]]:
    """One request through the pool; the exchange, the pieces of its answer and their stamps."""
    exchange = Exchange(pool)
    origin = origin_behind(port)
    exchange.reserve(origin)
    exchange.send(origin, request_bytes("POST", b"/v1/x?y=1", origin, [(b"X-A", b"1")], body))
    arrivals = list(exchange.arrivals())
    exchange.release()
    pieces = [bytes(piece) for part in arrivals for piece in part.pieces]
    return exchange, pieces, [stamp_ns for part in arrivals for stamp_ns in part.stamps_of_pieces()[0]]


ANSWER = [send(head(CHUNKED)), pause(0.02), send(chunk(b"one")), pause(0.02), send(chunk(b"two")), send(b"0\r\n\r\n")]


@pytest.fixture
def proxied() -> Callable[..., tuple[Pool, ForwardProxy]]:
    with ExitStack() as stack:

        def make(*, login: str = "", tls: bool = False, **more: object) -> tuple[Pool, ForwardProxy]:
            proxy = stack.enter_context(ForwardProxy(login=login.replace("%20", " ") or None, **more))  # type: ignore[arg-type]
            scheme = "https" if more.get("tls") else "http"
            url = f"{scheme}://{login + '@' if login else ''}localhost:{proxy.port}"
            pool = Pool(2.0, proxies=Proxies({"ALL_PROXY": url}))
            stack.callback(pool.close)
            return pool, proxy

        yield make  # type: ignore[misc]


def test_https_goes_through_a_tunnel_and_keeps_its_stamps(
    wire: Wire, own_ca_for_host: Authority, proxied: Callable[..., tuple[Pool, ForwardProxy]]
) -> None:
    port = wire.serve(ANSWER, tls=own_ca_for_host.server)
    pool, proxy = proxied(login="anna:pass%20word")
    exchange, pieces, stamps = sent(pool, port)
    assert pieces == [b"one", b"two"]
    assert all(stamps)
    errors_ns = [stamp - left for stamp, left in zip(stamps, port.requests()[0].sent_ns[1:], strict=False)]
    assert min(errors_ns) < 3_000_000  # the proxy's own delay is in it
    assert exchange.connect_ns > 0
    (request,) = port.requests()
    assert request.target == "/v1/x?y=1"
    assert "proxy-authorization" not in request.headers
    (tunnel,) = proxy.heads
    assert tunnel.startswith(f"CONNECT {HOST}:{port.port} HTTP/1.1\r\nHost: {HOST}:{port.port}\r\n")
    assert "Proxy-Authorization: Basic " + base64.b64encode(b"anna:pass word").decode() in tunnel
    sent(pool, port)
    assert len(proxy.heads) == port.connections == 1  # kept


def test_http_sends_the_whole_url_to_the_proxy(wire: Wire, proxied: Callable[..., tuple[Pool, ForwardProxy]]) -> None:
    port = wire.serve(ANSWER)
    pool, proxy = proxied(login="anna:word")
    _exchange, pieces, stamps = sent(pool, port, b"x" * 300_000)
    assert pieces == [b"one", b"two"]
    assert all(stamps)
    (plain,) = proxy.heads
    assert plain.startswith(f"POST http://{HOST}:{port.port}/v1/x?y=1 HTTP/1.1\r\n")
    assert f"Host: {HOST}:{port.port}" in plain
    (request,) = port.requests()
    assert (request.target, len(request.body), request.headers["x-a"]) == ("/v1/x?y=1", 300_000, "1")


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_proxy_may_speak_tls_itself(wire: Wire, own_ca_for_host: Authority, tls: bool) -> None:
    port = wire.serve(ANSWER, tls=own_ca_for_host.server if tls else None)
    with ForwardProxy(tls=own_ca_for_host.server) as proxy:
        pool = Pool(2.0, proxies=Proxies({"ALL_PROXY": f"https://localhost:{proxy.port}"}))
        _exchange, pieces, stamps = sent(pool, port)
        pool.close()
    assert pieces == [b"one", b"two"]
    assert all(stamps)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"login": "someone:else"}, r"requires authentication \(407.*ALL_PROXY=http://USER:PASSWORD"),
        ({"refuse": "403 Forbidden"}, r"did not open a tunnel \(403 Forbidden\)"),
    ],
)
def test_a_proxy_that_makes_no_tunnel_says_why(settings: dict[str, str], words: str) -> None:
    with ForwardProxy(**settings) as proxy:  # type: ignore[arg-type]
        pool = Pool(2.0, proxies=Proxies({"ALL_PROXY": f"http://anna:geheim@localhost:{proxy.port}"}))
        with pytest.raises(ConnectFailed, match=words) as failed:
            pool.acquire(Origin("https", HOST, 443))
    assert f"http://localhost:{proxy.port} (ALL_PROXY)" in str(failed.value)
    assert "geheim" not in str(failed.value)


def test_a_proxy_that_is_not_there_or_never_answers_is_named(wire: Wire) -> None:
    silent = wire.serve([HOLD])
    proxies = Proxies({"HTTPS_PROXY": f"http://localhost:{silent.port}"})
    origin = Origin("https", HOST, 443)
    with pytest.raises(ConnectFailed, match=r"no connection within 0.2 s.*which HTTPS_PROXY sets"):
        connect(origin, tls_context, 0.2, proxies.of(origin))
    closed = Proxies({"HTTPS_PROXY": "http://localhost:1"})
    with pytest.raises(
        ConnectFailed, match=r"through the proxy http://localhost:1 \(HTTPS_PROXY\): Connection refused"
    ):
        connect(origin, partial(tls_context), 2.0, closed.of(origin))


def test_the_certificate_behind_a_tunnel_is_verified(wire: Wire, own_ca: Authority) -> None:
    port = wire.serve([HOLD], tls=own_ca.server)  # a certificate for localhost, not for HOST
    with ForwardProxy() as proxy:
        pool = Pool(2.0, proxies=Proxies({"HTTPS_PROXY": f"http://localhost:{proxy.port}"}))
        with pytest.raises(ConnectFailed, match="cannot verify the certificate of https://only-the-proxy-knows"):
            pool.acquire(origin_behind(port))


def test_a_tunnelled_connection_that_died_is_found_out(
    wire: Wire, own_ca_for_host: Authority, proxied: Callable[..., tuple[Pool, ForwardProxy]]
) -> None:
    port = wire.serve([*ANSWER, ["close"]], tls=own_ca_for_host.server)
    pool, proxy = proxied()
    for _ in range(2):
        _exchange, pieces, _stamps = sent(pool, port)
        assert pieces == [b"one", b"two"]
    connection, _ = pool.acquire(origin_behind(port), fresh=True)
    assert isinstance(connection, TlsConnection)
    connection.close()
    assert len(proxy.heads) >= 2
