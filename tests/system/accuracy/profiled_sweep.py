"""A sweep that samples where its process spends CPU time, from the first row to the end of the load.

The kernel sends SIGPROF after each millisecond of CPU time. Python runs the handler before the next bytecode of the
main thread, so a sample that interrupts C code counts for the Python function that called the C code. A sample in the
event loop itself (``epoll_wait``, the dispatch of events) reaches the handler in the first bytecode of the next
callback; such samples are counted as the event loop. CPU time of other threads arrives there too, and is counted
separately, from the clocks of the threads. The result is written as JSON to the path in the environment variable
``PROFILED_SWEEP``.
"""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from locust import events, task

from llm_users import OpenAIUser

_INTERVAL_S = 0.001
_FIRST_BYTECODES = 4  # the offset in bytes of what a function's prologue ends with
_EVENT_LOOP = "event loop"


class _Sampler:
    def __init__(self) -> None:
        self._stacks: Counter[str] = Counter()
        self._began: tuple[float, float] | None = None

    def on_row(self, **_event: Any) -> None:
        if self._began is None:
            self._began = (time.process_time(), time.thread_time())
            signal.signal(signal.SIGPROF, self._sample)
            signal.setitimer(signal.ITIMER_PROF, _INTERVAL_S, _INTERVAL_S)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        names: list[str] = []
        if frame is not None and _is_callback_start(frame):
            names.append(_EVENT_LOOP)
        while frame is not None:
            code = frame.f_code
            names.append(f"{code.co_filename}:{code.co_qualname}")
            frame = frame.f_back
        self._stacks[";".join(names)] += 1

    def on_stop(self, **_event: Any) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self._began is None:
            return
        process_s, thread_s = self._began
        result = {
            "stacks": self._stacks,
            "process_s": time.process_time() - process_s,
            "main_thread_s": time.thread_time() - thread_s,
        }
        Path(os.environ["PROFILED_SWEEP"]).write_text(json.dumps(result))


def _is_callback_start(frame: FrameType) -> bool:
    return (
        frame.f_lasti <= _FIRST_BYTECODES and frame.f_back is not None and frame.f_back.f_code.co_qualname == "Hub.run"
    )


_sampler = _Sampler()
events.llm_request.add_listener(_sampler.on_row)
events.test_stopping.add_listener(_sampler.on_stop)


class SweepUser(OpenAIUser):
    """Sends one prompt after another."""

    @task
    def next_prompt(self) -> None:
        self.ask()
