"""Proxies, private authorities and client certificates under both SDKs, on our transport and on their own paths."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from gevent.server import StreamServer

from llm_users import BedrockUser, OpenAIUser
from llm_users.record import RequestRecord
from llm_users.transport.tls import tls_context
from tests.forward_proxy import ForwardProxy
from tests.stream_bytes import chat_events, stream
from tests.unit.users.bedrock.frames import answer as bedrock_answer
from tests.unit.users.bedrock.frames import converse_events
from tests.unit.users.rig import Rig
from tests.wire_server import Script, Wire

MakeRig = Callable[..., Rig]
HOST = "only-the-proxy-knows.test"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT",
             "SSL_CLIENT_KEY", "SSL_CLIENT_KEY_PASSWORD", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One of the SDKs: its user class, what it asks, and an answer to that."""

    user_class: type
    path: str
    script: Script
    ask: Callable[[Any], Any]


SIDES = {
    "openai": Side(OpenAIUser, "/v1", stream([*chat_events("fine")]), lambda user: user.chat("hi", max_tokens=4)),
    "boto3": Side(BedrockUser, "", bedrock_answer(*converse_events("fine")), lambda user: user.converse("hi")),
}
both = pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
paths = pytest.mark.parametrize("transport", ["fast", "sdk"])


class Files:
    """An authority, a server's certificate of it, a client's in several forms."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.root, self.server, self.both, self.cert, self.key, self.locked = (
            folder / f"{name}.pem" for name in ("root", "server", "both", "cert", "key", "locked")
        )
        ca.cert_pem.write_to_path(str(self.root))
        ca.issue_cert("localhost", HOST).private_key_and_cert_chain_pem.write_to_path(str(self.server))
        client = ca.issue_cert("client@somewhere.test")
        client.private_key_and_cert_chain_pem.write_to_path(str(self.both))
        self.cert.write_bytes(client.cert_chain_pems[0].bytes())
        self.key.write_bytes(client.private_key_pem.bytes())
        key = load_pem_private_key(client.private_key_pem.bytes(), None)
        self.locked.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def own_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    tls_context.cache_clear()
    yield
    tls_context.cache_clear()


@pytest.fixture
def strict_url(files: Files) -> Iterator[str]:
    """A server that wants to see a client's certificate; what it says is a plain refusal with status 418."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server)
    context.load_verify_locations(files.root)
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(sock: Any, _address: object) -> None:
        with contextlib.suppress(OSError):
            tls = context.wrap_socket(sock, server_side=True)
            got = b""
            while not got.endswith(b"}"):  # the body, which some send by itself
                got += tls.recv(65536) or b"}"
            tls.sendall(b"HTTP/1.1 418 I know you\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            tls.close()

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    yield f"https://localhost:{server.server_port}"
    server.stop()


def asked(make_rig: MakeRig, side: Side, url: str, **options: Any) -> RequestRecord:
    rig = make_rig(user_class=side.user_class, host=url + side.path, **options)
    record: RequestRecord = rig.call(side.ask).record
    return record


@both
@paths
def test_a_proxy_with_a_login(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, side: Side, transport: str
) -> None:
    port = wire.serve(side.script)
    with ForwardProxy(login="anna:pass word/%") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://anna:pass%20word%2F%25@localhost:{proxy.port}")
        record = asked(make_rig, side, f"http://{HOST}:{port.port}", llm_transport=transport)
        assert (record.error_code, record.error_message) == (None, None)
        (head,) = proxy.heads
        assert head.startswith(f"POST http://{HOST}:{port.port}/")
        assert base64.b64encode(b"anna:pass word/%").decode() in head
    assert "proxy-authorization" not in port.requests()[0].headers


@both
@paths
def test_a_tunnel_to_an_endpoint_of_a_private_authority(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, files: Files, side: Side, transport: str
) -> None:
    port = wire.serve(side.script, tls=files.server)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.root))
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
        record = asked(make_rig, side, f"https://{HOST}:{port.port}", llm_transport=transport)
        assert (record.error_code, record.error_message) == (None, None)
        (head,) = proxy.heads
    assert head.startswith(f"CONNECT {HOST}:{port.port} ")


@both
@paths
@pytest.mark.parametrize("loopback", [False, True])
def test_this_machine_is_proxied_only_when_asked(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, side: Side, transport: str, loopback: bool
) -> None:
    port = wire.serve(side.script)
    with ForwardProxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://localhost:{proxy.port}")
        record = asked(make_rig, side, port.root, llm_transport=transport, llm_proxy_loopback=loopback)
        assert (record.error_code, len(proxy.heads)) == (None, int(loopback))


@both
def test_a_kind_of_proxy_that_cannot_be_used_refuses_the_run(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, side: Side
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://anna:geheim@localhost:1")
    rig = make_rig(user_class=side.user_class, host=f"http://{HOST}{side.path}", llm_transport="sdk")
    reason = rig.refused()
    assert "ALL_PROXY names a socks5 proxy" in reason
    assert "geheim" not in reason


@both
@paths
def test_verification_is_on_and_can_be_switched_off(
    make_rig: MakeRig, wire: Wire, files: Files, side: Side, transport: str
) -> None:
    port = wire.serve(side.script, tls=files.server)
    record = asked(make_rig, side, port.root, llm_transport=transport)
    assert record.error_code == "connect"
    assert "certificate" in (record.error_message or "").lower()
    record = asked(make_rig, side, port.root, llm_transport=transport, llm_insecure=True)
    assert (record.error_code, record.error_message) == (None, None)


@both
@paths
@pytest.mark.parametrize("form", ["{both}", "{cert},{key}", "environment"])
def test_a_client_certificate(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, files: Files, strict_url: str, side: Side, transport: str,
    form: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(files.root))
    given = {"llm_client_cert": form.format(**vars(files))}
    if form == "environment":
        given = {}
        monkeypatch.setenv("SSL_CLIENT_CERT", str(files.cert))
        monkeypatch.setenv("SSL_CLIENT_KEY", str(files.key))
    record = asked(make_rig, side, strict_url, llm_transport=transport, **given)
    assert record.http_status == 418, record.error_message


@both
@paths
def test_without_a_client_certificate_there_is_no_answer(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, files: Files, strict_url: str, side: Side, transport: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files.root))
    record = asked(make_rig, side, strict_url, llm_transport=transport)
    assert record.error_code in ("connect", "reset")
    assert record.http_status is None


def test_what_boto3s_own_path_cannot_do_refuses_the_run(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, files: Files, strict_url: str
) -> None:
    monkeypatch.setenv("SSL_CLIENT_KEY_PASSWORD", "open sesame")
    monkeypatch.setenv("SSL_CERT_FILE", str(files.root))
    options: dict[str, Any] = {"host": strict_url, "llm_transport": "sdk"}
    reason = make_rig(**options, llm_client_cert=f"{files.cert},{files.locked}").refused()
    assert "has a password" in reason
    assert "--llm-transport fast" in reason
    assert "cannot be used" in make_rig(**options, llm_client_cert=str(files.root)).refused()
    monkeypatch.setenv("SSL_CERT_FILE", str(files.root.parent))
    assert "SSL_CERT_FILE names a folder" in make_rig(**options).refused()
