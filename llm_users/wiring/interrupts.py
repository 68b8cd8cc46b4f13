"""Handling of Ctrl-C (SIGINT), SIGTERM and SIGHUP in the coordinator's process. All three have the same effect:

    a headless master waits for workers   the workers are told to quit, and the process ends with exit code 3
    a run is active                       it ends as Locust ends it on Ctrl-C: requests in flight have a grace period
    requests in flight are draining       they are cut off
    the report is being written           the first signal prints a line, the second ends the process immediately

A signal that is ignored at the start stays ignored, for example SIGHUP under nohup.
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
"""How long a second signal waits until the run starts to end, which Locust does after the first signal."""


class Interrupts:
    """Signal handlers for the locust command only. A program that uses Locust as a library has its own handlers."""

    def __init__(
        self,
        *,
        is_stopping: Callable[[], bool],
        cut: Callable[[], None],
        leave: Callable[[], bool],
        stays_open: Callable[[], bool],
    ) -> None:
        """Create the handlers.

        ``is_stopping`` returns whether requests in flight are draining; ``cut`` ends them. ``leave`` ends the process
        if no run has started, and returns False if Locust can do that. ``stays_open`` returns whether no run is active
        and Locust keeps its web interface open after a run that started on its own.
        """
        self._is_stopping = is_stopping
        self._stays_open = stays_open
        self._cut = cut
        self._leave = leave
        self._numbers = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
        self._interrupted = False
        self._is_over = self._warned = False
        self.installed = False

    def install(self) -> None:
        """Install the handlers.

        Call this again when Locust may have installed its own, which it does late in its start.
        """
        if gevent.get_hub().main_hub:  # Python handles signals only in the main thread
            self.installed = True
            for number in self._numbers:
                signal.signal(number, self._on_signal)

    def run_is_over(self) -> None:
        """Note that the run is over and the report is being written."""
        self._is_over = True

    def _on_signal(self, number: int, _frame: Any) -> None:
        if not self._is_over:
            gevent.get_hub().loop.run_callback_threadsafe(self._act, signal.Signals(number).name)
            return
        # Handle the signal without the event loop, which the report may be blocking.
        if self._warned:
            os.write(2, b"stopped before the report was complete; llm-report can create it from the files\n")
            os._exit(NOT_MEASURED)
        self._warned = True
        os.write(2, b"the run is over and the report is being written; send the signal again to stop without it\n")

    def _act(self, name: str) -> None:
        """Handle the signal in the event loop, without blocking it."""
        if self._is_stopping():
            gevent.spawn(self._cut)
        elif self._interrupted:
            gevent.spawn(self._cut_soon)
        else:
            self._interrupted = True
            gevent.spawn(self._end, name)

    def _end(self, name: str) -> None:
        logger.info("%s: stopping the run", name)
        hub: Any = gevent.get_hub()
        ending: BaseException = SystemExit(NOT_MEASURED) if self._leave() else KeyboardInterrupt()
        hub.loop.run_callback(hub.parent.throw, ending)  # the hub's parent is the main greenlet
        gevent.sleep(_PAGE_S)
        while not self._is_over:  # with --autostart, the interrupt ends only the run and Locust keeps running
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
