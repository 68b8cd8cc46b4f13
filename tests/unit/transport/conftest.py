"""The scripted server and certificates of an authority that only these tests know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

import llm_users.extension  # noqa: F401 - Locust patches the interpreter before anything opens a socket
from llm_users.transport.pool import Pool
from llm_users.transport.tls import tls_context
from tests.wire_server import Wire


@pytest.fixture(scope="package")
def wire() -> Iterator[Wire]:
    with Wire() as running:
        yield running


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(connect_timeout_s=2.0)
    yield made
    made.close()


@dataclass
class Authority:
    """A certificate authority and a server certificate of it, as files."""

    root: Path
    server: Path


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    made = trustme.CA()
    made.cert_pem.write_to_path(str(folder / "root.pem"))
    made.issue_cert("127.0.0.1", "localhost", "::1").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "server.pem")
    )
    return Authority(folder / "root.pem", folder / "server.pem")


@pytest.fixture
def own_ca(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """The environment names the authority, as a user with a private CA would."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))
    tls_context.cache_clear()
    yield authority
    tls_context.cache_clear()


@pytest.fixture
def own_ca_for_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """An authority whose server may be a name that only a proxy knows."""
    made = trustme.CA()
    files = Authority(tmp_path / "root.pem", tmp_path / "server.pem")
    made.cert_pem.write_to_path(str(files.root))
    made.issue_cert("only-the-proxy-knows.test", "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(files.server)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(files.root))
    tls_context.cache_clear()
    yield files
    tls_context.cache_clear()
