"""Containers as local processes: each command of deploy/ starts through the image's own entry script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.ports import free_port
from tests.system.deploy.built_packages import build_sdist, build_wheel
from tests.system.deploy.manifests import DEPLOY, SECRET, Process

ENTRYPOINT = str(DEPLOY / "entrypoint.sh")
SHORT = ["--llm-input-tokens", "20,5", "--llm-output-tokens", "8,2", "--llm-ramp", "0.1s"]


def environment(**more: str) -> dict[str, str]:
    """This one without what would change a run, the commands of this installation first in the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "OPENAI_", "AWS_", "SECRETS_DIR"))}
    return {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]]), **more}


class Containers:
    """The processes of one deployment. Paths of the image and its volumes lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = str(free_port())
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, process: Process, *more: str, number: int = 0) -> None:
        name = f"{process.role}{number}"
        home = self.folder / "home" / "locust" / name
        home.mkdir(parents=True)
        secrets = self.folder / "run" / name
        secrets.mkdir(parents=True)
        for secret in process.secret_files:
            (secrets / secret).write_text(SECRET + "\n")
        port = "--master-bind-port" if process.role == "master" else "--master-port"
        place = [port, self.port] + ([] if process.role == "master" else ["--master-host", "127.0.0.1"])
        words = [self._here(word) for word in process.arguments]
        self.running[name] = subprocess.Popen(
            ["sh", ENTRYPOINT, *words, *place, *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home,
            env=environment(SECRETS_DIR=str(secrets), **process.environment), start_new_session=True,
        )  # fmt: skip

    def _here(self, word: str) -> str:
        return f"{self.folder}{word}" if word.startswith(("/results/", "/tmp/", "/home/locust/")) else word

    def terminate(self) -> None:
        """What `docker compose stop` and `kubectl delete` do: SIGTERM to all of them."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)

    def finish(self, timeout_s: float = 60) -> dict[str, tuple[int, str, str]]:
        """Exit code, output and errors of each, once they have ended by themselves."""
        limit = time.monotonic() + timeout_s
        ended = {}
        for name, process in self.running.items():
            out, err = process.communicate(timeout=max(1.0, limit - time.monotonic()))
            ended[name] = process.returncode, out, err
        return ended

    def end(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    for folder in ("results", "tmp", "home/locust"):
        (tmp_path / folder).mkdir(parents=True)
    started = Containers(tmp_path)
    yield started
    started.end()


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """An endpoint that wants the key."""
    with launch(f"ttft=5ms,itl=1ms,api_key={SECRET}", max_seconds=150) as running:
        yield running


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sdist(tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(sdist, tmp_path_factory.mktemp("wheel"))
