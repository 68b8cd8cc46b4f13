"""Removal of delays that Locust has at the start and at the end of a run.

- A headless master looks once per second whether its workers are connected.
- A worker builds the whole argument parser for every option in every message that starts users: 0.35 s per message.
- A runner that stops searches all modules for the source of its caller, for a debug message: 0.05 s to 0.3 s.
- A master sleeps for 0.5 s each of the three or four times that it is told to quit.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import gevent
from locust import argument_parser, runners

_LOOK_S = 0.01
_CONNECT_S = 5.0
"""Workers of ``--processes`` are connected after 0.1 s. Locust waits for the ones that need more time."""

_QUIT_S = 0.5
"""As long as Locust waits for the last reports of the workers."""


def avoid_repeated_work() -> None:
    """Build Locust's default arguments once per process, and do not search for the caller of ``Runner.stop``.

    Further calls have no effect.
    """
    defaults: Any = argument_parser.default_args_dict
    if not hasattr(defaults, "cache_info"):
        argument_parser.default_args_dict = functools.cache(defaults)
    # The only use of the module there. Without it, the message says that the caller is not known.
    locust_runners: Any = runners
    locust_runners.inspect = None


def await_forked_workers(runner: Any) -> None:
    """Wait until the workers of ``--processes`` are connected."""
    limit = time.monotonic() + _CONNECT_S
    while len(runner.clients.ready) < runner.environment.parsed_options.expect_workers and time.monotonic() < limit:
        gevent.sleep(_LOOK_S)


def quit_when_workers_have_left(runner: Any) -> None:
    """Make a master quit when all workers have sent their last reports and left, at the latest when Locust does."""

    def quit_master() -> None:
        runner.stop(send_stop_to_client=False)
        runner.send_message("quit")
        limit = time.monotonic() + _QUIT_S
        while runner.worker_count and time.monotonic() < limit:
            gevent.sleep(_LOOK_S)
        runner.greenlet.kill(block=True)

    runner.quit = quit_master
