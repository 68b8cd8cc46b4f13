"""What Ctrl-C (SIGINT), SIGTERM and SIGHUP do to the process that coordinates a run. All three do the same:

    a headless master waits for workers   the workers are told to quit, and the process ends with exit code 3
    a run goes on                         it ends as Locust ends it on Ctrl-C: requests in flight have a grace period
    requests in flight are waited for     they are cut
    the run is over, its report is made   the first time a line says so, the second time the process ends without it

A signal that is ignored at the start stays ignored, as SIGHUP under nohup.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import gevent

logger = logging.getLogger(__name__)

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

NOT_MEASURED = 3

_PAGE_S = 1.0
_CUT_S = 10.0
"""How long a second signal waits for the run to begin its end, which Locust begins after the first one."""


class Interrupts:
    """Installed by the locust command only: a program that uses Locust as a library has its own handlers."""

    def __init__(
        self,
        *,
        is_stopping: Callable[[], bool],
        cut: Callable[[], None],
        leave: Callable[[], bool],
        stays_open: Callable[[], bool],
    ) -> None:
        """``is_stopping``: requests in flight are waited for; ``cut`` ends them. ``leave``: end the process where
        no run has begun; False where Locust can do that. ``stays_open``: no run goes on, and Locust keeps its web
        interface open after a run that began by itself."""
        self._is_stopping = is_stopping
        self._stays_open = stays_open
        self._cut = cut
        self._leave = leave
        self._numbers = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
        self._thrown = False
        self._is_over = self._was_told = False
        self.installed = False

    def install(self) -> None:
        """Take the signals. Once more whenever Locust may have taken them since: it does so late in its start."""
        if gevent.get_hub().main_hub:  # Python takes signals in the main thread only
            self.installed = True
            for number in self._numbers:
                signal.signal(number, self._on_signal)

    def run_is_over(self, *, over: bool = True) -> None:
        """From here on the report is made."""
        self._is_over = over

    def _on_signal(self, number: int, _frame: Any) -> None:
        if self._is_over:
            self._on_signal_in_report()
        else:
            gevent.get_hub().loop.run_callback_threadsafe(self._act, signal.Signals(number).name)

    def _on_signal_in_report(self) -> None:
        """Without the event loop, which may be busy with the report."""
        if self._was_told:
            os.write(2, b"stopped without the rest of the report; llm-report makes it from the files\n")
            os._exit(NOT_MEASURED)
        self._was_told = True
        os.write(2, b"the run is over and its report is being made; the same signal again ends without it\n")

    def _act(self, name: str) -> None:
        """In the event loop, which must not wait."""
        if self._is_stopping():
            gevent.spawn(self._cut)
        elif self._thrown:
            gevent.spawn(self._cut_soon)
        else:
            self._thrown = True
            gevent.spawn(self._end, name)

    def _end(self, name: str) -> None:
        logger.info("%s: the run ends", name)
        hub: Any = gevent.get_hub()
        ending: BaseException = SystemExit(NOT_MEASURED) if self._leave() else KeyboardInterrupt()
        hub.loop.run_callback(hub.parent.throw, ending)  # the hub's parent is the main greenlet
        gevent.sleep(_PAGE_S)
        while not self._is_over:  # with --autostart Locust takes the end of the run for all that was wanted
            if self._stays_open():
                hub.loop.run_callback(hub.parent.throw, KeyboardInterrupt())
            gevent.sleep(_PAGE_S)

    def _cut_soon(self) -> None:
        try:
            with gevent.Timeout(_CUT_S):
                while not self._is_stopping():
                    gevent.sleep(0.02)
        except gevent.Timeout:
            return
        self._cut()
