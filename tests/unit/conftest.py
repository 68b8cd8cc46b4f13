"""Lets two processes of pytest-xdist run the tests (`make test`)."""

from __future__ import annotations

import pytest
from gevent.monkey import get_original


class _PolledEvent:
    """The event on which a process of pytest-xdist waits for its next test, set by a thread.

    Locust patches the interpreter, and gevent's events do not connect a thread to the main thread: the wait would end
    with ``LoopExit``.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._sleep = get_original("time", "sleep")

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def wait(self) -> None:
        while not self._is_set:
            self._sleep(0.001)


def pytest_sessionstart(session: pytest.Session) -> None:
    for plugin in session.config.pluginmanager.get_plugins():
        # A process of pytest-xdist has a plugin with this attribute. The module of the plugin's class is
        # ``__channelexec__``, because xdist sends its source, so an import cannot find the class.
        if hasattr(plugin, "torun"):
            plugin.torun._lock = get_original("threading", "RLock")()
            plugin.torun._has_items_event = _PolledEvent()
