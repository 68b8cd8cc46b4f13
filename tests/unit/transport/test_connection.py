"""Connections: where the stamps come from, TLS, and every way not to get one."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

import gevent
import pytest
from gevent.monkey import get_original

from llm_users.transport import clock
from llm_users.transport.connection import Connection, Origin, TlsConnection
from llm_users.transport.errors import ConnectFailed
from llm_users.transport.pool import Pool, connect
from llm_users.transport.tls import CA_VARIABLES, tls_context
from tests.unit.transport.conftest import Authority
from tests.wire_server import CLOSE, HOLD, RESET, Port, Wire, pause, send

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
blocking_sleep = get_original("time", "sleep")


def origin_of(port: Port, host: str = "127.0.0.1") -> Origin:
    return Origin(port.root.split(":")[0], host, port.port)


def opened(port: Port, host: str = "127.0.0.1") -> Connection:
    return connect(origin_of(port, host), tls_context, 2.0)


def read_until(connection: Connection, wanted: bytes) -> list[tuple[int, bytes]]:
    """(stamp on the monotonic clock, bytes) of each read until this text has come."""
    offset_ns = clock.wall_offset_ns()
    reads: list[tuple[int, bytes]] = []
    while wanted not in b"".join(data for _, data in reads):
        read = connection.read()
        assert read.data, "closed too early"
        assert read.kernel_ns, "the kernel gave no stamp"
        reads.append((read.kernel_ns - offset_ns, read.data))
    return reads


@pytest.mark.alone
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_client_that_reads_late_still_stamps_on_time(wire: Wire, own_ca: Authority, tls: bool) -> None:
    port = wire.serve([pause(0.02), send(b"token"), HOLD], tls=own_ca.server if tls else None)
    connection = opened(port)
    late_ns = []
    for _ in range(5):  # one of five may meet a busy machine
        connection.send(REQUEST)
        blocking_sleep(0.07)  # nothing in this process runs meanwhile
        reads = read_until(connection, b"token")
        now_ns = time.monotonic_ns()
        request = port.requests()[-1]
        late_ns.append(reads[-1][0] - request.sent_ns[0])
        assert now_ns - request.sent_ns[0] > 40_000_000
        connection.close()
        connection = opened(port)
    connection.close()
    assert min(late_ns) > -500_000
    assert sorted(late_ns)[1] < 1_000_000, late_ns


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_every_segment_has_its_own_stamp(wire: Wire, own_ca: Authority, tls: bool) -> None:
    script = [step for i in range(5) for step in (pause(0.01), send(b"<%d>" % i))]
    port = wire.serve([*script, HOLD], tls=own_ca.server if tls else None)
    connection = opened(port)
    connection.send(REQUEST)
    reads = read_until(connection, b"<4>")
    connection.close()
    (request,) = port.requests()
    assert b"".join(data for _, data in reads) == b"<0><1><2><3><4>"
    errors_ns = sorted(stamp - sent for (stamp, _), sent in zip(reads, request.sent_ns, strict=True))
    assert errors_ns[2] < 1_000_000


def test_the_end_of_a_stream_is_an_empty_read(wire: Wire, own_ca: Authority) -> None:
    for tls in (None, own_ca.server):
        connection = opened(wire.serve([send(b"bye"), CLOSE], tls=tls))
        connection.send(REQUEST)
        got = b""
        while data := connection.read().data:
            got += data
        assert got == b"bye"
        connection.close()
        connection.close()  # harmless


def test_a_reset_is_an_error(wire: Wire) -> None:
    connection = opened(wire.serve([pause(0.01), RESET]))
    connection.send(REQUEST)
    with pytest.raises(OSError, match="reset"):
        connection.read()
    connection.close()


def test_large_bodies_travel_both_ways(wire: Wire, own_ca: Authority) -> None:
    body = bytes(range(256)) * 20_000  # 5 MB: more than any socket buffer
    for tls in (None, own_ca.server):
        port = wire.serve([send(body), CLOSE], tls=tls)
        connection = opened(port)
        connection.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        got = bytearray()
        while data := connection.read().data:
            got += data
        connection.close()
        assert got == body
        assert port.requests()[0].body == body


def test_ipv6(wire: Wire) -> None:
    try:
        port = wire.serve([send(b"six"), HOLD], host="::1")
    except ValueError:
        pytest.skip("this machine has no IPv6")
    connection = opened(port, "::1")
    assert str(connection.origin) == f"http://[::1]:{port.port}"
    connection.send(REQUEST)
    assert read_until(connection, b"six")
    connection.close()


def test_other_greenlets_run_while_one_waits(wire: Wire) -> None:
    connection = opened(wire.serve([pause(0.1), send(b"x"), HOLD]))
    connection.send(REQUEST)
    turns = []
    other = gevent.spawn(lambda: [(gevent.sleep(0.01), turns.append(1)) for _ in range(5)])
    read_until(connection, b"x")
    assert len(turns) == 5
    other.join()
    connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_of_the_named_authority_is_accepted(wire: Wire, own_ca: Authority, host: str) -> None:
    connection = opened(wire.serve([send(b"secret"), HOLD], tls=own_ca.server), host)
    assert isinstance(connection, TlsConnection)
    connection.send(REQUEST)
    assert read_until(connection, b"secret")
    connection.close()


def test_a_certificate_of_an_unknown_authority_is_refused_with_advice(wire: Wire, authority: Authority) -> None:
    tls_context.cache_clear()
    with pytest.raises(ConnectFailed, match=r"cannot verify the certificate of https://127.*SSL_CERT_FILE"):
        opened(wire.serve([HOLD], tls=authority.server))


def test_a_certificate_for_another_name_is_refused(wire: Wire, own_ca: Authority) -> None:
    port = wire.serve([HOLD], tls=own_ca.server, host="127.0.0.2")
    with pytest.raises(ConnectFailed, match=r"cannot verify the certificate.*127\.0\.0\.2"):
        opened(port, "127.0.0.2")


def test_a_ca_file_that_does_not_exist_is_named(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "no/such/file.pem")
    tls_context.cache_clear()
    with pytest.raises(ConnectFailed, match=r"SSL_CERT_FILE names no/such/file.pem"):
        connect(Origin("https", "127.0.0.1", 9), tls_context, 2.0)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_other_usual_variables_name_the_authority_too(
    wire: Wire, authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for other in CA_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, str(authority.root))
    tls_context.cache_clear()
    opened(wire.serve([HOLD], tls=authority.server)).close()
    tls_context.cache_clear()


def test_tls_to_a_server_without_tls_is_explained(wire: Wire) -> None:
    port = wire.serve([HOLD])
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            sock, _ = plain.accept()
            sock.recv(1000)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            sock.close()

        server = gevent.spawn(answer)
        with pytest.raises(ConnectFailed, match="Check that the server uses TLS"):
            connect(Origin("https", "127.0.0.1", plain.getsockname()[1]), tls_context, 2.0)
        server.join(timeout=2)
    assert port.connections == 0


def test_a_refused_connection_names_the_address_and_the_advice() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        origin = Origin("http", "127.0.0.1", unheard.getsockname()[1])
        words = f"127.0.0.1:{origin.port}: Connection refused.*Check that the server is running"
        with pytest.raises(ConnectFailed, match=words):
            connect(origin, tls_context, 2.0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "bad..name", "x" * 70])
def test_a_name_that_cannot_be_resolved_is_named(host: str) -> None:
    with pytest.raises(ConnectFailed, match=host.replace(".", r"\.")):
        connect(Origin("http", host, 80), tls_context, 5.0)


def test_a_peer_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:  # accepts TCP, never shakes hands
        started_s = time.monotonic()
        with pytest.raises(ConnectFailed, match="the server did not answer the TLS handshake"):
            connect(Origin("https", "127.0.0.1", silent.getsockname()[1]), tls_context, 0.2)
        assert time.monotonic() - started_s < 1


def test_a_killed_connect_leaves_no_socket_behind() -> None:
    def sockets() -> int:
        return sum("socket" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())

    with socket.create_server(("127.0.0.1", 0)) as silent:
        origin = Origin("https", "127.0.0.1", silent.getsockname()[1])
        gevent.sleep(0)
        before = sockets()
        greenlets = [gevent.spawn(connect, origin, tls_context, 5.0) for _ in range(5)]
        gevent.sleep(0.1)
        assert sockets() == before + 5
        gevent.killall(greenlets)
        assert sockets() == before


def test_an_unsolicited_byte_or_a_close_makes_a_connection_unfit(wire: Wire, pool: Pool) -> None:
    for ending in ([send(b"x"), HOLD], [CLOSE], [RESET]):
        connection = opened(wire.serve(ending))
        assert connection.is_idle()
        connection.send(REQUEST)
        gevent.sleep(0.1)
        assert not connection.is_idle()
        connection.close()


def test_the_first_packet_of_a_process_is_stamped(wire: Wire) -> None:
    connection = opened(wire.serve([send(b"x"), HOLD]))
    assert connection.stamped
    connection.send(REQUEST)
    assert connection.read().kernel_ns
    connection.close()


def test_verification_is_on() -> None:
    tls_context.cache_clear()
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    tls_context.cache_clear()
