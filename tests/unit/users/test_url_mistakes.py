"""A wrong base URL is named, with the URL to write instead."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
import trustme

from llm_users.simulator.launch import Simulator, launch
from llm_users.transport import endpoint
from llm_users.users.url_advice import with_version
from tests.stream_bytes import LENGTH, head, reply
from tests.unit.users.rig import Rig
from tests.wire_server import CLOSE, Wire, send

PAGE = b"<!doctype html><html><head><title>My chat</title></head><body>Log in</body></html>"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with launch("ttft=1ms,itl=1ms,check_model=on", max_seconds=60) as running:
        yield running


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    return pem


def test_a_missing_v1(rig: Rig, simulator: Simulator) -> None:
    root = simulator.url.removesuffix("/v1")
    record = rig.ask(root).record
    assert record.error_code == "404"
    assert f"write --host {simulator.url})" in (record.error_message or "")


def test_an_existing_path_gets_no_other_url(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(reply("404 Not Found", {"detail": "Not Found"})).url).record
    assert "write --host" not in (record.error_message or "")


@pytest.mark.parametrize(
    ("base_url", "meant"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://h/v1", None),
        ("https://ark.example/api/v3", None),
        ("https://api.deepinfra.com/v1/openai", None),
        ("https://generativelanguage.googleapis.com/v1beta/openai", None),
    ],
)
def test_only_a_url_without_a_version_misses_one(base_url: str, meant: str | None) -> None:
    assert with_version(base_url) == meant


def test_a_web_server_that_refuses_post(rig: Rig, wire: Wire) -> None:
    port = wire.serve(reply("405 Not Allowed", "<html><h1>405 Not Allowed</h1></html>"))
    assert f"write --host {port.root}/v1" in (rig.ask(port.root).record.error_message or "")


def test_a_page_of_html(rig: Rig, wire: Wire) -> None:
    port = wire.serve([send(head(LENGTH, len(PAGE), kind="text/html") + PAGE)])
    record = rig.ask(port.root).record
    assert record.error_code == "malformed"
    message = record.error_message or ""
    assert "a page of HTML" in message
    assert "My chat Log in" in message
    assert f"write --host {port.root}/v1" in message


@pytest.mark.parametrize(
    "words",
    ["The plain HTTP request was sent to HTTPS port", "Client sent an HTTP request to an HTTPS server.",
     "Reason: You're speaking plain HTTP to an SSL-enabled server port."],
)  # fmt: skip
def test_http_on_a_port_with_tls_that_says_so(rig: Rig, wire: Wire, words: str) -> None:
    port = wire.serve(reply("400 Bad Request", words))
    message = rig.ask(port.url).record.error_message or ""
    assert words in message
    assert f"write --host https://127.0.0.1:{port.port}/v1" in message


def test_http_on_a_port_with_tls_that_sends_an_alert(rig: Rig, wire: Wire) -> None:
    port = wire.serve([send(b"\x15\x03\x01\x00\x02\x02\x46"), CLOSE])
    record = rig.ask(port.url).record
    assert record.error_code == "connect"
    assert "write https://" in (record.error_message or "")


def test_http_on_a_port_with_tls_that_closes(rig: Rig, wire: Wire, tls_server: Path) -> None:
    port = wire.serve(reply("200 OK", {}), tls=tls_server)
    record = rig.ask(f"http://127.0.0.1:{port.port}/v1").record
    assert record.error_code == "connect"
    assert "write https://" in (record.error_message or "")


def test_https_on_a_port_without_tls(rig: Rig, simulator: Simulator) -> None:
    record = rig.ask(simulator.url.replace("http://", "https://")).record
    assert record.error_code == "connect"
    origin = simulator.url.removesuffix("/v1")
    assert f"Without TLS, the URL begins with {origin}" in (record.error_message or "")


def test_https_on_a_port_that_answers_without_tls(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            sock, _ = plain.accept()
            sock.recv(1000)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            sock.close()

        server = gevent.spawn(answer)
        address = f"127.0.0.1:{plain.getsockname()[1]}"
        message = rig.ask(f"https://{address}/v1").record.error_message or ""
        server.join(timeout=2)
    assert f"Without TLS, the URL begins with http://{address}" in message


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("http://h:8000/v1/chat/completions", "http://h:8000/v1"),
        ("http://h:8000/v1/completions/", "http://h:8000/v1"),
        ("https://api.openai.com/v1/responses", "https://api.openai.com/v1"),
        ("https://api.anthropic.com/v1/messages", "https://api.anthropic.com/v1"),
        ("https://h/v1/models", "https://h/v1"),
        (
            "https://n.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "https://n.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
        ),
        ("localhost:8000/v1", "http://localhost:8000/v1"),
    ],
)
def test_a_url_that_is_not_a_base_url(url: str, meant: str) -> None:
    problem = endpoint.check_url(url)
    assert problem is not None
    assert problem.endswith(f"write {meant}")
    assert endpoint.check_url(meant) is None
