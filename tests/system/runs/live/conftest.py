"""A real `locust` with its web interface, and a person in front of it who only speaks HTTP."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.ports import free_port
from tests.system.locust_runs import Locust, Running
from tests.tracebacks import tracebacks


class Started:
    """One web interface."""

    def __init__(self, running: Running, base: str) -> None:
        self.running = running
        self.base = base

    def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body; redirects are not followed."""
        data = None if form is None else urllib.parse.urlencode(form).encode()
        opener = urllib.request.build_opener(_Stay)
        try:
            with opener.open(self.base + path, data=data, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def state(self, **query: object) -> dict[str, Any]:
        status, body = self.ask("/llm/state.json?" + urllib.parse.urlencode(query))
        assert status == 200, body
        made: dict[str, Any] = json.loads(body, parse_constant=_no_constant)
        return made

    def swarm(self, **form: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.ask("/swarm", {"user_count": "1", "spawn_rate": "1", **form})[1])
        return made

    def until(self, done: Callable[[dict[str, Any]], bool], what: str, timeout_s: float = 40) -> dict[str, Any]:
        """The first state of which this holds."""
        limit = time.monotonic() + timeout_s
        state: dict[str, Any] = {}
        while time.monotonic() < limit:
            try:
                state = self.state()
            except OSError:
                state = {}
            if state and done(state):
                return state
            assert self.running.process.poll() is None, self.running.process.communicate()
            time.sleep(0.2)
        raise AssertionError(f"{what} did not come within {timeout_s} s; the last state was {json.dumps(state)[:3000]}")

    def end(self) -> str:
        """Ctrl-C; returns what was said on the way."""
        time.sleep(0.5)  # the last answer must be out: the signal would be raised in the middle of sending it
        self.running.interrupt()
        done = self.running.finish(40)
        assert tracebacks(done.err) == [], done.err
        return done.err


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


Starter = Callable[..., Started]


@pytest.fixture
def web(locust: Locust) -> Starter:
    def start(*arguments: str, workers: int = 0, base_path: str = "", **more: Any) -> Started:
        port, rpc = str(free_port()), str(free_port())
        given = ["--web-host", "127.0.0.1", "--web-port", port, *arguments]
        if workers:
            given += ["--processes", str(workers), "--master-bind-port", rpc, "--master-port", rpc]
        if base_path:
            given += ["--web-base-path", base_path]
        started = Started(locust.start(*given, headless=False, **more), f"http://127.0.0.1:{port}{base_path}")
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            try:
                if started.ask("/llm/state.json")[0] in (200, 302) and (
                    not workers or json.loads(started.ask("/worker-count")[1])["worker_count"] == workers
                ):
                    return started
            except OSError:
                pass
            assert started.running.process.poll() is None, started.running.process.communicate()
            time.sleep(0.2)
        raise AssertionError("the web interface did not come up")

    return start
