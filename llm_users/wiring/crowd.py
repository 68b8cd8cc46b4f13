"""Locust's workers as the coordinator may count on them: those that are connected and whose extension listens.

Locust calls a worker ready before the worker's locustfile is wired; what is sent to it until then is dropped.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import gevent

from llm_users.load import messages
from llm_users.load.coordinator import Coordinator
from llm_users.load.dispatch import StageDispatcher

logger = logging.getLogger(__name__)

HELLO_S = 10.0
"""How long a run waits at its start for workers that are connected but do not listen yet."""


class Crowd:
    """Wires a master's workers to its coordinator."""

    def __init__(self, runner: Any, coordinator: Coordinator) -> None:
        self._runner = runner
        self._coordinator = coordinator
        self._listening: set[str] = set()
        runner.environment.dispatcher_class = partial(
            StageDispatcher, holds=self._holds, on_target=coordinator.on_target
        )
        runner.register_message(messages.HELLO, self._on_hello)
        # Workers that were faster than this master's own locustfile have said it to nobody.
        for client_id in self._connected:
            runner.send_message(messages.WHO, None, client_id=client_id)
        coordinator.before_stage = self._admit

    @property
    def present(self) -> list[str]:
        """The workers that are connected, listen, and are not silent."""
        return sorted(self._connected & self._listening)

    def await_hellos(self) -> None:
        """Wait until all that are connected listen, or until it is clear that one never will."""
        limit = time.monotonic() + HELLO_S
        while not self._connected <= self._listening:
            if time.monotonic() > limit:
                deaf = ", ".join(sorted(self._connected - self._listening))
                logger.warning("%s: connected, but without locust-llm; does it run the same locustfile?", deaf)
                return
            gevent.sleep(0.05)

    @property
    def _connected(self) -> set[str]:
        clients = self._runner.clients
        return {node.id for node in clients.ready + clients.spawning + clients.running}

    def _on_hello(self, environment: Any, msg: Any, **_kwargs: Any) -> None:  # noqa: ARG002 - Locust's signature
        self._listening.add(msg.node_id)
        self._coordinator.on_join(msg.node_id)
        plan = self._coordinator.plan
        if plan is not None and plan.free:
            self._admit()
            gevent.spawn(self._runner.start, self._runner.target_user_count, self._runner.spawn_rate)

    def _holds(self, client_id: str) -> bool:
        """Whether a worker has to wait for the next stage, or until it listens."""
        coordinator = self._coordinator
        return coordinator.active and (coordinator.options.staged or not coordinator.roster.knows(client_id))

    def _admit(self) -> None:
        dispatcher = self._runner._users_dispatcher
        if isinstance(dispatcher, StageDispatcher):
            dispatcher.admit()
