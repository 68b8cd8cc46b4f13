"""Client certificates, and the opt-out of verification, against a server that asks for them."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gevent
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from gevent.server import StreamServer

from llm_users.transport.connection import Origin
from llm_users.transport.errors import ConnectFailed, ConnectionLost
from llm_users.transport.exchange import Exchange, request_bytes
from llm_users.transport.pool import Pool, connect
from llm_users.transport.proxies import Proxies
from llm_users.transport.tls import TlsSettings, tls_context


class Files:
    """An authority, a server of it that wants client certificates, and a client's certificate in several forms."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.root = folder / "root.pem"
        ca.cert_pem.write_to_path(str(self.root))
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(self.server_context)
        ca.configure_trust(self.server_context)
        self.server_context.verify_mode = ssl.CERT_REQUIRED
        client = ca.issue_cert("client@somewhere.test")
        self.both, self.cert, self.key = (folder / name for name in ("both.pem", "cert.pem", "key.pem"))
        client.private_key_and_cert_chain_pem.write_to_path(str(self.both))
        self.cert.write_bytes(client.cert_chain_pems[0].bytes())
        self.key.write_bytes(client.private_key_pem.bytes())
        key = load_pem_private_key(client.private_key_pem.bytes(), None)
        self.locked = folder / "locked.pem"
        self.locked.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("client"))


@pytest.fixture
def origin(files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    def answer(sock: ssl.SSLSocket, _address: object) -> None:
        sock.recv(65536)
        name = dict(pair for pairs in sock.getpeercert()["subject"] for pair in pairs).get("commonName", "") or "known"  # type: ignore[index,union-attr,misc]
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), str(name).encode()))
        sock.close()

    def serve(sock: object, address: object) -> None:
        with contextlib.suppress(OSError):
            answer(files.server_context.wrap_socket(sock, server_side=True), address)  # type: ignore[arg-type]

    for variable in ("SSL_CLIENT_CERT", "SSL_CLIENT_KEY", "SSL_CLIENT_KEY_PASSWORD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.root))
    tls_context.cache_clear()
    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    yield Origin("https", "localhost", server.server_port)
    server.stop()
    tls_context.cache_clear()


def ask(origin: Origin, settings: TlsSettings) -> bytes:
    pool = Pool(2.0, tls=settings, proxies=Proxies({}))
    exchange = Exchange(pool)
    exchange.send(origin, request_bytes("GET", b"/", origin, [], b""))
    answer = b"".join(bytes(piece) for arrival in exchange.arrivals() for piece in arrival.pieces)
    pool.close()
    return answer


def test_the_option_names_the_certificate(files: Files, origin: Origin) -> None:
    assert ask(origin, TlsSettings.parse(str(files.both), insecure=False))
    assert ask(origin, TlsSettings.parse(f"{files.cert}, {files.key}", insecure=False))


def test_the_environment_names_it(files: Files, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CLIENT_CERT", str(files.cert))
    monkeypatch.setenv("SSL_CLIENT_KEY", str(files.locked))
    with pytest.raises(ConnectFailed, match="encrypted; set its password in SSL_CLIENT_KEY_PASSWORD"):
        ask(origin, TlsSettings())
    monkeypatch.setenv("SSL_CLIENT_KEY_PASSWORD", "open sesame")
    assert ask(origin, TlsSettings())


def test_without_one_the_advice_is_to_give_one(origin: Origin) -> None:
    with pytest.raises((ConnectFailed, ConnectionLost), match="--llm-client-cert or SSL_CLIENT_CERT"):
        ask(origin, TlsSettings())


@pytest.mark.parametrize(
    ("cert", "words"),
    [
        ("no/such.pem", "--llm-client-cert names no/such.pem"),
        ("{cert}", "cannot be used"),
        ("{root}", "cannot be used"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(files: Files, origin: Origin, cert: str, words: str) -> None:
    path = cert.format(**vars(files))
    with pytest.raises(ConnectFailed, match=words):
        ask(origin, TlsSettings.parse(path, insecure=False))


def test_verification_can_be_switched_off(
    files: Files, origin: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    by_address = Origin("https", "127.0.0.1", origin.port)  # neither the authority nor the name is right
    with pytest.raises(ConnectFailed, match="cannot verify"):
        connect(by_address, partial(tls_context, TlsSettings()), 2.0)
    assert ask(by_address, TlsSettings.parse(str(files.both), insecure=True))
    gevent.sleep(0)
