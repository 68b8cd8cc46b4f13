"""Endpoints that fail in every known way, users of both APIs, and the table at the end."""

from __future__ import annotations

import datetime
import functools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import llm_users.extension  # noqa: F401 - Locust patches the interpreter before anything opens a socket
from llm_users import BedrockUser, OpenAIUser
from llm_users.load.worker import admission_gate
from llm_users.simulator.launch import Simulator, launch
from llm_users.transport.tls import tls_context
from tests.system.crash.endpoints import table
from tests.system.crash.endpoints.cases import CHAT
from tests.system.crash.endpoints.rude_server import RudeServers
from tests.unit.users.rig import Rig
from tests.wire_server import Script, Wire

MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
HEALTHY = "ttft=20ms,itl=5ms,tokens=8"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in table.markdown():
        terminalreporter.write_line(line)


class Endpoints:
    """Servers of all kinds; they live until the end of the session."""

    def __init__(self, wire: Wire, rude: RudeServers, folder: Path) -> None:
        self._wire = wire
        self._rude = rude
        self._folder = folder
        self._simulators: dict[str, Simulator] = {}
        self._sockets: list[socket.socket] = []
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(folder / "root.pem"))

    @property
    def root(self) -> Path:
        return self._folder / "root.pem"

    def simulator(self, spec: str) -> str:
        """``HEALTHY``, changed by these keys."""
        if spec not in self._simulators:
            names = {part.split("=")[0] for part in spec.split(",")}
            kept = [part for part in HEALTHY.split(",") if part.split("=")[0] not in names]
            self._simulators[spec] = launch(",".join(filter(None, [*kept, spec])), max_seconds=300, timeout_s=30)
        return self._simulators[spec].url

    def script(self, *steps: Script, tls: Path | None = None) -> str:
        return self._wire.serve(*steps, tls=tls).url

    def rude(self, way: str) -> str:
        return self._rude.urls[way]

    def certificate(self, which: str) -> Path:
        path = self._folder / f"{which}.pem"
        authority = trustme.CA() if which == "unknown" else self._authority
        then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
        times = {"not_before": then, "not_after": then + datetime.timedelta(days=1)} if which == "expired" else {}
        name = "elsewhere.example" if which == "wrong host" else "127.0.0.1"
        authority.issue_cert(name, **times).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def nobody(self) -> str:
        return f"http://127.0.0.1:{self._bound().getsockname()[1]}/v1"

    def full(self) -> str:
        """A port whose queue of connections is full: whoever comes is not even refused."""
        listener = self._bound()
        listener.listen(0)
        for _ in range(4):
            waiting = socket.socket()
            self._sockets.append(waiting)
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    def _bound(self) -> socket.socket:
        sock = socket.socket()
        self._sockets.append(sock)
        sock.bind(("127.0.0.1", 0))
        return sock

    def close(self) -> None:
        for simulator in self._simulators.values():
            simulator.stop()
        for sock in self._sockets:
            sock.close()


@pytest.fixture(scope="session", autouse=True)
def own_environment() -> Iterator[pytest.MonkeyPatch]:
    """Nobody's credentials and settings; users that do not wait after a failure."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "OPENAI_", "LOCUST_"))]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nobody")
        patch.setattr(admission_gate, "BACKOFF_FIRST_S", 0.0)
        patch.setattr(admission_gate, "GIVE_UP_AFTER", 10**9)
        yield patch


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory, own_environment: pytest.MonkeyPatch) -> Iterator[Endpoints]:
    with Wire() as wire, RudeServers() as rude:
        made = Endpoints(wire, rude, tmp_path_factory.mktemp("certificates"))
        own_environment.setenv("SSL_CERT_FILE", str(made.root))
        tls_context.cache_clear()
        yield made
        made.close()
    tls_context.cache_clear()


@pytest.fixture(scope="session")
def rig_with(tmp_path_factory: pytest.TempPathFactory, endpoints: Endpoints) -> Iterator[Callable[..., Rig]]:
    """Eight users of an API with this deadline; equal ones share a run."""
    rigs: list[Rig] = []

    def make(api: str, timeout: str) -> Rig:
        user_class, model = (OpenAIUser, "tiny") if api == CHAT else (BedrockUser, MODEL)
        host = endpoints.simulator("")
        more = {} if api == CHAT else {"host": host.removesuffix("/v1")}
        folder = tmp_path_factory.mktemp("run")
        rigs.append(Rig(folder, users=8, user_class=user_class, llm_model=model, llm_timeout=timeout, **more))
        return rigs[-1]

    yield functools.cache(make)
    for rig in rigs:
        rig.stop()
