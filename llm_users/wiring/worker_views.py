"""The workers of Locust that the coordinator can use: connected workers whose extension listens.

Locust reports a worker as ready before the worker's locustfile is loaded; messages before that moment are lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import msgspec
import zmq
from locust.runners import STATE_MISSING

from llm_users._version import __version__
from llm_users.load.coordinator.coordinator import Coordinator
from llm_users.load.coordinator.locust_users import StageDispatcher
from llm_users.load.protocol import messages
from llm_users.load.protocol.messages import PROTOCOL

logger = logging.getLogger(__name__)

HELLO_S = 10.0
"""How long the start of a run waits for workers that are connected but do not listen yet."""


class WorkerViews:
    """Connects a master's workers to its coordinator. ``give_up`` ends a headless start without enough workers."""

    def __init__(self, runner: Any, coordinator: Coordinator, give_up: Callable[[str], None]) -> None:
        self._runner = runner
        self._coordinator = coordinator
        self._give_up = give_up
        self._listening: set[str] = set()
        self._refused: dict[str, str] = {}
        # A worker that reconnects replaces its old connection, which may seem alive for a long time.
        runner.server.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        runner.environment.dispatcher_class = partial(
            StageDispatcher, holds=self._holds, on_target=coordinator.on_target
        )
        runner.environment.events.worker_report.add_listener(self._on_report)
        runner.environment.events.worker_connect.add_listener(self._on_connect)

    @property
    def present(self) -> list[str]:
        """Return the workers that are connected, listen, and are not silent."""
        return sorted(self._connected & self._listening)

    def await_hellos(self) -> None:
        """Wait until all connected workers listen, or until ``HELLO_S`` is over."""
        limit = time.monotonic() + HELLO_S
        while not_listening := self._connected - self._listening - set(self._refused):
            if time.monotonic() > limit:
                names = ", ".join(sorted(not_listening))
                logger.warning("%s: connected, but without locust-llm; check that it runs the same locustfile", names)
                return
            gevent.sleep(0.05)

    @property
    def _connected(self) -> set[str]:
        clients = self._runner.clients
        return {node.id for node in clients.ready + clients.spawning + clients.running}

    def _on_report(self, client_id: str, data: Any, **_kwargs: Any) -> None:
        """Answer the hello of a worker, which it sends in Locust's own report until it gets an answer."""
        hello = data.pop(messages.Hello.kind, None) if isinstance(data, dict) else None
        if hello is None:
            return
        refused = self._why_refused(hello)
        welcome = messages.Welcome(refused=refused)
        self._runner.send_message(welcome.kind, welcome.encoded(), client_id=client_id)
        if refused is None:
            self._listening.add(client_id)
            self._join(client_id)
        elif client_id not in self._refused:
            self._refused[client_id] = refused
            text = f"worker {client_id} is refused: {refused}"
            logger.error("%s", text)
            self._coordinator.note_for_next(text)
            if len(self._refused) == 1:
                gevent.spawn_later(HELLO_S, self._look_for_others)

    def _on_connect(self, client_id: str, **_kwargs: Any) -> None:
        """Let a listening worker join when Locust reports it as ready, possibly again after another run."""
        if client_id in self._listening:
            gevent.spawn(self._join, client_id)

    def _join(self, client_id: str) -> None:
        self._coordinator.on_join(client_id)
        plan = self._coordinator.plan
        if plan is not None and plan.free:
            self.admit()
            gevent.spawn(self._runner.start, self._runner.target_user_count, self._runner.spawn_rate)

    def _why_refused(self, hello: Any) -> str | None:
        try:
            theirs = msgspec.convert(hello, messages.Hello)
        except msgspec.ValidationError:
            theirs = messages.Hello(version="of an unknown version", protocol="")
        if (theirs.version, theirs.protocol) == (__version__, PROTOCOL):
            return None
        has, master_has = theirs.version[:40], __version__
        if has == master_has:
            has, master_has = f"{has} with protocol {theirs.protocol[:40]}", f"{master_has} with protocol {PROTOCOL}"
        return (
            f"it has locust-llm {has} and the master has {master_has}, whose rows and messages differ. Install the "
            "same version on all machines"
        )

    def _look_for_others(self) -> None:
        """End a headless start that would wait forever for a rejected worker."""
        options = self._runner.environment.parsed_options
        expected = getattr(options, "expect_workers", 0) or 0
        here = len(self.present)
        if getattr(options, "headless", False) and self._coordinator.writer is None and here < expected:
            refused = "; ".join(f"worker {name}: {why}" for name, why in self._refused.items())
            self._give_up(f"only {here} of the {expected} expected workers can take part. {refused}")

    def on_silence(self, silent: set[str | None], others: bool) -> None:
        """Mark the workers as missing in Locust that the coordinator treats as missing, unless no worker is left.

        When all workers are silent, nothing stops, because some may come back.
        """
        for node in self._runner.clients.all:
            if node.state == STATE_MISSING:
                continue
            if others and node.id in silent:
                node.heartbeat = -1
            else:
                node.heartbeat = max(node.heartbeat, 1)
        dispatcher = self._runner._users_dispatcher
        if others and isinstance(dispatcher, StageDispatcher):
            for node in self._runner.clients.all:
                if node.id in silent and node.state != STATE_MISSING:
                    dispatcher.remove_worker(node)

    def _holds(self, client_id: str) -> bool:
        """Return whether a worker has to wait for the next stage, or until it listens."""
        coordinator = self._coordinator
        return coordinator.active and (coordinator.options.staged or coordinator.workers.find(client_id) is None)

    def admit(self) -> None:
        """Assign users to workers that had to wait for the next stage."""
        dispatcher = self._runner._users_dispatcher
        if isinstance(dispatcher, StageDispatcher):
            dispatcher.admit()
