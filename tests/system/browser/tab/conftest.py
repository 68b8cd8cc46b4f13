"""Stock Locust with its web interface, as a process of its own, and pages of it in a real Chromium."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from llm_users.simulator.launch import Simulator, launch
from tests.ports import free_port
from tests.project import ROOT

SWEEP = str(ROOT / "locustfiles" / "sweep.py")
SHORT = ("--llm-input-tokens", "30,5", "--llm-output-tokens", "20,4", "--llm-ramp", "0.2s")

OpenUrl = Callable[..., Page]


class Web:
    """A `locust` process with its web interface."""

    def __init__(self, folder: Path, *arguments: str, port: int, locustfile: str = SWEEP, base: str = "") -> None:
        self.prefix = folder / "out" / "run"
        self.root = f"http://127.0.0.1:{port}{base}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "LOCUST_"))}
        based = ["--web-base-path", base] if base else []
        self.log = folder / "locust.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "locust", "-f", locustfile, "--web-host", "127.0.0.1", "--web-port", str(port),
                 *based, "--csv", str(self.prefix), *SHORT, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True,
            )  # fmt: skip
        self._await_answer()

    def _await_answer(self, timeout_s: float = 30) -> None:
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            assert self.process.poll() is None, self.log.read_text()
            try:
                urllib.request.urlopen(f"{self.root}/", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the web interface did not come up:\n{self.log.read_text()}")

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.root}/llm/state.json", timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def await_workers(self, count: int, timeout_s: float = 30) -> None:
        """Until so many workers are there; 0: none are needed."""
        limit = time.monotonic() + timeout_s
        while count:
            with urllib.request.urlopen(f"{self.root}/worker-count", timeout=10) as response:
                if json.load(response)["worker_count"] == count:
                    return
            assert time.monotonic() < limit, self.log.read_text()
            time.sleep(0.2)

    def await_start(self, timeout_s: float = 30) -> None:
        """Until the first stage runs: Locust's start form does not notice a start from elsewhere."""
        limit = time.monotonic() + timeout_s
        while " stage 1" not in self.log.read_text().replace(":", " "):
            assert time.monotonic() < limit, self.log.read_text()
            time.sleep(0.2)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with launch("ttft=80ms,itl=5ms,jitter=0.2,capacity=4", max_seconds=600) as running:
        yield running


@pytest.fixture
def start_web(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    started: list[Web] = []

    def start(*arguments: str, **more: Any) -> Web:
        web = Web(tmp_path, *arguments, port=more.pop("port", None) or free_port(), **more)
        started.append(web)
        return web

    yield start
    for web in started:
        web.end()


@pytest.fixture
def open_url(browser: Browser, watched: Any) -> Iterator[OpenUrl]:
    """Opens an address in a fresh window. At the end nothing may have been said or asked for elsewhere."""
    contexts: list[BrowserContext] = []

    def opened(url: str, *, width: int = 1440, height: int = 900, scheme: str = "light", **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        watched.watch(page)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not watched.said
    assert not [url for url in watched.asked if not url.startswith("http://127.0.0.1:")]
