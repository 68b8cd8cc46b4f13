"""The load process's place in Locust: its messages, and the way of its records. On workers, or in the only process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from locust.runners import WorkerRunner

from llm_users.collect.sender import REPORT_KEY, RecordSender
from llm_users.load import messages
from llm_users.load.process import LoadProcess
from llm_users.record import RequestRecord

Keep = Callable[[RequestRecord, list[float]], None]
Flush = Callable[[], int]


def _nowhere(record: RequestRecord, offsets_s: list[float]) -> None:
    """On a worker the sender takes the place of this."""


class ProcessRole:
    """Wires a ``LoadProcess`` to the environment. ``keep`` and ``flush`` are for the only process: straight to disk."""

    def __init__(self, environment: Any, keep: Keep = _nowhere, flush: Flush = lambda: 0) -> None:
        self._runner = runner = environment.runner
        self._sender: RecordSender | None = None
        self._shares_interrupts = False
        if isinstance(runner, WorkerRunner):
            self._sender = RecordSender(runner.send_message, self._note)
            keep, flush = self._sender.add, self._flush
            environment.events.report_to_master.add_listener(self._on_report_to_master)
            # A worker of --processes gets the Ctrl-C that is meant for its master too: during a run it is the
            # master's to decide what happens to requests in flight.
            self._shares_interrupts = bool(getattr(environment.parsed_options, "processes", None))
        self.process = process = LoadProcess(environment, runner.send_message, keep, flush)
        runner.register_message(messages.RUN, listener(self._on_run))
        runner.register_message(messages.GO, listener(process.on_go))
        runner.register_message(messages.END, listener(process.on_end))
        runner.register_message(messages.QUOTA, listener(process.on_quota))
        runner.register_message(messages.SETTLED, listener(self._on_settled))
        # These two may take long, and a worker must go on answering its master meanwhile.
        runner.register_message(messages.STAGE, listener(process.on_stage), concurrent=True)
        runner.register_message(messages.FINISH, listener(self._on_finish), concurrent=True)
        if self._sender is not None:
            runner.register_message(messages.WHO, lambda **_: runner.send_message(messages.HELLO, None))
            runner.send_message(messages.HELLO, None)

    def abort(self) -> None:
        """The process ends without having been told to: cut what is in flight and send what there is."""
        if self.process.running:
            self.process.on_finish({"abort": True, "grace_s": 0.0})

    def _on_run(self, data: dict[str, Any]) -> None:
        if self._sender is not None:
            self._sender.begin(data["run_id"], data["worker"], data["spool"], data["rows_per_s"])
            self.process.pulse.about = self._sender.about
        if self._shares_interrupts:
            signal.signal(signal.SIGINT, lambda *_: None)
        self.process.on_run(data)

    def _on_settled(self, data: dict[str, Any]) -> None:
        if self._sender is not None:
            self._sender.settled(data["run_id"])

    def _note(self, text: str) -> None:
        self._runner.send_message(messages.NOTE, {"text": text})

    def _on_finish(self, data: dict[str, Any]) -> None:
        self.process.on_finish(data)
        if self._shares_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _flush(self) -> int:
        assert self._sender is not None
        self._sender.flush()
        return self._sender.sent

    def _on_report_to_master(self, data: dict[str, Any], **_kwargs: Any) -> None:
        assert self._sender is not None
        rows = self._sender.take()
        if rows:
            data[REPORT_KEY] = rows


def listener(handler: Callable[[dict[str, Any]], None]) -> Any:
    """A handler of a message's data as Locust calls it."""

    def on_message(environment: Any, msg: Any, **_kwargs: Any) -> None:  # noqa: ARG001 - Locust's signature
        handler(msg.data)

    return on_message
