"""A sweep that measures the longest pause of its event loop and the memory that its answers take.

A greenlet sleeps for 1 ms at a time, from the first token of the run to 20 ms after the last row. A pause is the delay
of its wake-up. Its own part excludes the time for which the process waited for a CPU. The results are written as JSON
to the path in the environment variable ``WATCHED_SWEEP``.
"""

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events, task

from llm_users import OpenAIUser
from llm_users.load.worker.machine_cpu import CpuWait

_TICK_NS, _AFTER_NS = 1_000_000, 20_000_000


class _Watch:
    def __init__(self) -> None:
        self._pauses: list[tuple[int, int, int]] = []  # when it ended, its length, its own part, all in ns
        self._peak_before_kb = 0
        self._last_row_ns = 0
        self._greenlet: Any = None

    def on_first_token(self, **_event: Any) -> None:
        if self._greenlet is None:
            self._peak_before_kb = _peak_kb()
            self._greenlet = gevent.spawn(self._tick)

    def on_row(self, **_event: Any) -> None:
        self._last_row_ns = time.monotonic_ns()

    def _tick(self) -> None:
        wait = CpuWait()
        while True:
            due_ns, waited_s = time.monotonic_ns() + _TICK_NS, wait.seconds() or 0.0
            gevent.sleep(_TICK_NS / 1e9)
            now_ns = time.monotonic_ns()
            own_ns = now_ns - due_ns - round(((wait.seconds() or 0.0) - waited_s) * 1e9)
            self._pauses.append((now_ns, now_ns - due_ns, own_ns))

    def on_quit(self, **_event: Any) -> None:
        pauses = [pause for pause in self._pauses if pause[0] < self._last_row_ns + _AFTER_NS]
        result = {
            "pause_s": max(pause_ns for _, pause_ns, _ in pauses) / 1e9,
            "own_pause_s": max(own_ns for _, _, own_ns in pauses) / 1e9,
            "memory_mb": (_peak_kb() - self._peak_before_kb) / 1024,
        }
        Path(os.environ["WATCHED_SWEEP"]).write_text(json.dumps(result))


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_watch = _Watch()
events.llm_first_token.add_listener(_watch.on_first_token)
events.llm_request.add_listener(_watch.on_row)
events.quitting.add_listener(_watch.on_quit)


class SweepUser(OpenAIUser):
    """Sends one prompt after another."""

    @task
    def next_prompt(self) -> None:
        self.ask()
