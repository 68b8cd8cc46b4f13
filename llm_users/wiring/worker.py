"""Connects a worker to Locust: its messages and its records. Used by workers and by the only process of a local run."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gevent
import locust
from gevent.event import Event
from gevent.lock import RLock
from locust.runners import STATE_INIT, WorkerRunner

from llm_users._version import __version__
from llm_users.collect.sender import RecordSender
from llm_users.load.protocol import messages
from llm_users.load.protocol.messages import PROTOCOL, Inbox, RunMessage, WorkerMessage
from llm_users.load.worker import open_files
from llm_users.load.worker.context import Tracing
from llm_users.load.worker.process import WorkerProcess
from llm_users.load.worker.stall_guard import MasterLink
from llm_users.options import command_line
from llm_users.options.table import Options
from llm_users.record import RequestRecord

logger = logging.getLogger(__name__)

REFUSED, CUT_OFF = 2, 3
"""Exit codes of a worker: the master has another version; the master is gone."""

HELLO_AGAIN_S = 0.5
_SETTLED_S = 2.0

Keep = Callable[[RequestRecord, list[float]], None]
Flush = Callable[[], int]
RunMessageT = TypeVar("RunMessageT", bound=RunMessage)


class WorkerRole:
    """Connects a ``WorkerProcess`` to Locust.

    The other arguments are for the only process of a run: ``keep`` and ``flush`` write rows directly to disk, and
    ``read_options`` returns the options that the coordinator has read. ``tracing`` records the spans of requests.
    """

    def __init__(
        self,
        environment: Any,
        keep: Keep = lambda _record, _offsets_s: None,  # on a worker, the record sender replaces it
        flush: Flush = lambda: 0,
        read_options: Callable[[], Options] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        open_files.raise_limit()
        if "GEVENT_TRACK_GREENLET_TREE" not in os.environ:
            # gevent records where each greenlet was started, which takes 0.7 kB for each user.
            gevent.config.track_greenlet_tree = False
        self._environment = environment
        self._runner = runner = environment.runner
        self._inbox = Inbox()
        self._master: _MasterConnection | None = None
        self._shares_interrupts = False
        if isinstance(runner, WorkerRunner):
            # A worker of --processes also receives the Ctrl-C for its master. During a run, the master decides what
            # happens to requests in flight.
            self._shares_interrupts = bool(getattr(environment.parsed_options, "processes", None))
            self._master = _MasterConnection(environment, self._inbox, watches_parent=self._shares_interrupts)
            keep, flush = self._master.sender.add, self._master.flush
            if environment.locustfile and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                gevent.signal_handler(signal.SIGHUP, self._on_interrupt)  # the terminal is gone
            if self._shares_interrupts and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                gevent.signal_handler(signal.SIGINT, self._on_interrupt)
        self.process = process = WorkerProcess(
            environment,
            self._send,
            keep,
            flush,
            # Workers receive the options with the first message that starts users.
            read_options or (lambda: command_line.read_options(environment.parsed_options)),
            self._master,
            tracing,
        )
        runner.register_message(messages.Run.kind, self._inbox.listener(messages.Run, self._on_run))
        self._register(messages.Go, process.on_go)
        self._register(messages.End, process.on_end)
        self._register(messages.ArrivalsChanged, process.on_arrivals)
        self._register(messages.Quota, process.on_quota)
        self._register(messages.Ack, process.on_ack)
        # These handlers can take long, and a worker must keep answering its master.
        self._register(messages.Stage, process.on_stage, concurrent=True)
        self._register(messages.Finish, self._on_finish, concurrent=True)
        if self._master is not None:
            self._master.begin(process)
        self._register(messages.Settled, self._on_settled)
        environment.events.spawning_complete.add_listener(self._on_spawning_complete)
        environment.events.user_error.add_listener(_on_user_error)

    def abort(self) -> None:
        """End the run because the process ends: cut off requests in flight and send all rows."""
        if self.process.running:
            self.process.finish(abort=True, grace_s=0.0)
            if self._master is not None:
                self._master.await_settled()

    def close(self) -> None:
        """Log where the rows are that the coordinator may not have."""
        if self._master is not None:
            self._master.close()

    def _send(self, message: WorkerMessage) -> None:
        self._runner.send_message(message.kind, message.encoded())

    def _register(
        self, message_type: type[RunMessageT], handler: Callable[[RunMessageT], None], *, concurrent: bool = False
    ) -> None:
        """Handle messages of this process's run. Ignore messages of other runs."""

        def on_message(message: RunMessageT) -> None:
            if message.run == self.process.run_id:
                handler(message)
            elif self._master is not None:
                self._master.greet_again()

        listener = self._inbox.listener(message_type, on_message)
        self._runner.register_message(message_type.kind, listener, concurrent=concurrent)

    def _on_interrupt(self) -> None:
        """End the process in an orderly way. With ``--processes`` the master also gets the signal, and during a run it
        decides about requests in flight.
        """
        if not (self._shares_interrupts and self.process.running):
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_run(self, message: messages.Run) -> None:
        again = self.process.running and message.run == self.process.run_id
        if self._master is not None and not again:
            self._master.on_run(message)
        self.process.on_run(message)

    def _on_spawning_complete(self, **_kwargs: Any) -> None:
        """Report that users have spawned.

        On a worker, the master sends this event, possibly while users are still starting.
        """
        spawning = self._runner.spawning_greenlet
        if spawning is None or spawning.ready() or spawning is gevent.getcurrent():
            self.process.on_users_spawned()
        else:
            spawning.link_value(lambda _greenlet: self.process.on_users_spawned())

    def _on_settled(self, _message: messages.Settled) -> None:
        if self._master is not None:
            self._master.settled()

    def _on_finish(self, message: messages.Finish) -> None:
        self.process.on_finish(message)


class _MasterConnection(MasterLink):
    """The parts of a worker process only: a spool, and a master that can be lost."""

    def __init__(self, environment: Any, inbox: Inbox, *, watches_parent: bool) -> None:
        self._environment = environment
        self._inbox = inbox
        self._runner = environment.runner
        self._process: WorkerProcess
        self.watches_parent = watches_parent
        self.sender = RecordSender(self._send, self._note)
        self._prefix = ""
        self._welcome = False
        self._between_runs = RLock()  # a run ends here before the next begins, in any order of the messages
        self._settled = Event()
        self._greeted_at = 0.0

    def begin(self, process: WorkerProcess) -> None:
        """Register the handlers and greet the coordinator."""
        self._process = process
        listener, register = self._inbox.listener, self._runner.register_message
        register(messages.Welcome.kind, listener(messages.Welcome, self._on_welcome))
        register(messages.Leave.kind, listener(messages.Leave, self._on_leave), concurrent=True)
        register(messages.Resend.kind, listener(messages.Resend, self._on_resend), concurrent=True)
        self._environment.events.report_to_master.add_listener(self._on_report_to_master)
        gevent.spawn(self._greet)

    def flush(self) -> int:
        self.sender.flush()
        return self.sender.sent

    def on_run(self, message: messages.Run) -> None:
        """Prepare for a run: keep the spool of an earlier run that was not confirmed, and stop users of another run."""
        with self._between_runs:
            self._process.cut_short()
            self._say_where_rows_are("the master has begun another run before it confirmed all rows of the last one")
            if self._runner.user_greenlets:
                self._stop_users()
            self._prefix = message.prefix
            self._settled.clear()
            self.sender.begin(message.run, message.worker, message.spool, message.rows_per_s)

    def _stop_users(self) -> None:
        self._runner.stop()
        self._runner.worker_state = STATE_INIT

    def settled(self) -> None:
        self.sender.settled(self._process.run_id)
        self._settled.set()

    def await_settled(self) -> None:
        self._settled.wait(timeout=_SETTLED_S)

    def close(self) -> None:
        self._say_where_rows_are("the master did not confirm that it has all rows of this worker")

    # Greeting. A master whose extension does not listen yet logs a warning for an unknown message, but not for an
    # unknown entry in Locust's own report.

    def _greet(self) -> None:
        while not self._welcome:
            self._greeted_at = time.monotonic()
            self._runner._send_stats()
            gevent.sleep(HELLO_AGAIN_S)

    def greet_again(self) -> None:
        """Greet the coordinator again, because it sent a message about a run that this process does not know."""
        if self._welcome and time.monotonic() - self._greeted_at > HELLO_AGAIN_S:
            self._welcome = False
            gevent.spawn(self._greet)

    def _on_report_to_master(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if not self._welcome:
            data[messages.Hello.kind] = messages.Hello(version=__version__, protocol=PROTOCOL).encoded()
        batch = self.sender.take()
        if batch.rows:
            data[batch.kind] = batch.encoded()

    def _on_welcome(self, message: messages.Welcome) -> None:
        self._welcome = True
        if message.refused is not None:
            logger.error("the master refuses this worker: %s", message.refused)
            self._quit(REFUSED)

    # A master that is gone or that has ended the run of this process.

    def spool_state(self) -> tuple[int, list[str], str]:
        return self.sender.held, self.sender.spool_paths, socket.gethostname()

    def on_look(self) -> None:
        """Keep Locust from declaring the master lost: during a run this package decides how long to wait for it."""
        if self._runner.last_heartbeat_timestamp:
            self._runner.last_heartbeat_timestamp = time.time()

    def on_alone(self, why: str) -> None:
        """End this worker because the master is gone."""
        logger.error("%s: this worker ends", why)
        at_once = self._process.stall_guard.parent_is_gone
        self._process.abandon(0.0 if at_once else self._environment.stop_timeout or 0.0)
        self._say_where_rows_are(why)
        self._quit(CUT_OFF)

    def _on_leave(self, message: messages.Leave) -> None:
        """End the run of this process, because the master does not know it."""
        with self._between_runs:
            if message.run != self._process.run_id or not self._process.running:
                return
            why = "the master has ended the run of this worker, or was restarted"
            logger.error("%s: this worker ends the run and is ready for the next", why)
            self._process.abandon()
            self._say_where_rows_are(why)
            self._stop_users()
            self._welcome = False
            self._runner.send_message("client_ready", locust.__version__)
            gevent.spawn(self._greet)

    def _on_resend(self, message: messages.Resend) -> None:
        if message.run == self._process.run_id:
            self.sender.resend()

    def _say_where_rows_are(self, why: str) -> None:
        """Log how to recover rows that the coordinator may not have."""
        paths = self.sender.leave()
        if paths:
            files = " ".join(str(path) for path in paths)
            logger.error(
                "%s. All rows of this worker are in its spool. To read them together with the other rows, run: "
                "llm-report %s %s", why, self._prefix, files,
            )  # fmt: skip

    def _quit(self, code: int) -> None:
        self._environment.process_exit_code = code
        self._runner.quit()

    def _send(self, message: WorkerMessage) -> None:
        self._process.send(message)

    def _note(self, text: str) -> None:
        self._process.send(messages.Note(*self._process.identity, text=text))


def _on_user_error(user_instance: Any, exception: BaseException, tb: Any, **_kwargs: Any) -> None:
    """Report a failed task. Locust calls this in the user's greenlet. ``user_instance`` is a TaskSet in most cases."""
    user = getattr(user_instance, "user", user_instance)
    if not hasattr(user, "task_failed"):
        return
    frames = traceback.extract_tb(tb)
    own = [frame for frame in frames if "/locust/user/" not in frame.filename] or frames
    location = f"{own[0].name} ({Path(own[0].filename).name}, line {own[0].lineno})" if own else "a task"
    user.task_failed(exception, f"{type(user).__name__}: {location}", starting=user is user_instance)
