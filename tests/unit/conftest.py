"""Lets two processes run the tests (`make test`), and the tests that are marked ``alone`` one at a time.

A test that judges milliseconds or its own share of the machine needs the machine for itself: while it runs, no other
process of this checkout runs a test of this folder.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent.monkey import get_original

# Locks on files that exist anyway, so that there is nothing to remove afterwards. flock() is not fair: without the
# queue, the other process would start its next test before a waiting process gets the exclusive lock.
_QUEUE = Path(__file__).open("rb")  # noqa: SIM115 - open as long as the process lives
_MACHINE = Path(__file__).with_name("__init__.py").open("rb")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold the machine during a test and its fixtures: alone or together with other processes."""
    fcntl.flock(_QUEUE, fcntl.LOCK_EX)
    fcntl.flock(_MACHINE, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
    fcntl.flock(_QUEUE, fcntl.LOCK_UN)
    try:
        return (yield)
    finally:
        fcntl.flock(_MACHINE, fcntl.LOCK_UN)


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
