"""The single-threaded event loop, which serves sockets and the token schedule.

The loop handles due tokens and ready sockets in alternating small batches, so that a flood of requests cannot delay
tokens and a flood of tokens cannot delay requests. `Pace` calculates when a token is due, `Connection` is one client's
socket, `Job` is one answer in progress. The module does not depend on the JSON of any API.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import platform
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llm_users.simulator.answer import Answer, Application, Reply
from llm_users.simulator.http_wire import CONTINUE, BadRequest, RequestReader
from llm_users.simulator.log import Entry, RequestLog, Totals
from llm_users.simulator.poller import MAX_EVENTS, READ, WRITE, Poller
from llm_users.simulator.server_metrics import ServerMetrics
from llm_users.simulator.spec import Spec

# Sending a batch takes about as long as reading MAX_EVENTS requests.
_FIRE_BATCH = 32
_TICK_NS = 500_000_000
_IDLE_S = 0.005
# Limits for pipelined requests and for unread output; the connection of a client that exceeds one is closed.
_MAX_WAITING_BYTES = 1 << 20
_MAX_UNSENT_BYTES = 64 << 20

_READ_BYTES = 64 * 1024
# From asm-generic/socket.h; the socket module has no constant for it. Other architectures use other numbers.
_SO_TIMESTAMPNS = 35
_HAS_STAMPS = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64", "riscv64", "ppc64le", "s390x")
_TIMESPEC = struct.Struct("qq")
_NO_LINGER = struct.pack("ii", 1, 0)
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
# An older kernel timestamp means that the wall clock was set, not that the loop was busy.
_CREDIBLE_NS = 5_000_000_000

now_ns = time.monotonic_ns


class Engine:
    """Serves the application on `listener` until `stop` is called or the time limit of `run` ends."""

    def __init__(
        self,
        listener: socket.socket,
        spec: Spec,
        make_application: Callable[[Callable[[], dict[str, float]], Callable[[], bytes]], Application],
        log: RequestLog,
        poller: Poller,
    ) -> None:
        listener.setblocking(False)
        # Accepted sockets inherit the option for kernel timestamps; the open listener keeps timestamping active in the
        # kernel. Where it is not supported, the clock at the return of the read is used instead.
        with contextlib.suppress(OSError):
            if _HAS_STAMPS:
                listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._listener = listener
        self._spec = spec
        self._log = log
        self._poller = poller
        self._comments_ns = round(spec.comments * 1e9)
        self._heap: list[tuple[int, int, Job]] = []
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._connections: dict[int, Connection] = {}
        self._active = 0
        self._accepting = False
        self._stopping = False
        self.totals = Totals()
        self._metrics = ServerMetrics(spec)
        self._counts_metrics = spec.metrics != "off"
        self._application = make_application(self.stats, self.metrics)
        self._accept_again()

    def watch(self, fd: int, on_ready: Callable[[], object]) -> None:
        """Call `on_ready` when descriptor `fd` is readable."""
        self._handlers[fd] = lambda _events: on_ready()
        self._poller.register(fd, READ)

    def stop(self) -> None:
        self._stopping = True

    def stats(self) -> dict[str, float]:
        return {**self.totals.report(), "active": self._active, "connections": len(self._connections)}

    def metrics(self) -> bytes:
        """Return the endpoint's own metrics in Prometheus' text format."""
        return self._metrics.text(running=self._active, generation_tokens=self.totals.tokens)

    def run(self, *, limit_s: float = 0.0, stop_if: Callable[[], bool] | None = None) -> None:
        """Run the loop until `stop` is called, `limit_s` seconds have passed (0: no limit), or `stop_if` is true.

        The loop calls `stop_if` at every wake-up, at least twice a second when it is given.
        """
        end_ns = now_ns() + round(limit_s * 1e9) if limit_s else None
        tick_ns = None if end_ns is None and stop_if is None else _TICK_NS
        heap, handlers, fire, wait = self._heap, self._handlers, self._fire, self._poller.wait
        try:
            while not self._stopping:
                now = now_ns()
                for _ in range(_FIRE_BATCH):
                    if not heap or heap[0][0] > now:
                        break
                    fire()
                    now = now_ns()
                if end_ns is not None and now >= end_ns:
                    break
                if stop_if is not None and stop_if():
                    break
                sleep_ns = None if not heap else max(heap[0][0] - now, 0)
                if tick_ns is not None:
                    sleep_ns = tick_ns if sleep_ns is None else min(sleep_ns, tick_ns)
                    if end_ns is not None:
                        sleep_ns = min(sleep_ns, max(end_ns - now, 0))
                if self._log.dirty and (sleep_ns is None or sleep_ns > _IDLE_S * 1e9):
                    self._log.flush()
                    sleep_ns = 0  # the flush took time: poll the sockets, then compute the sleep again
                for fd, events in wait(None if sleep_ns is None else sleep_ns / 1e9):
                    handler = handlers.get(fd)
                    if handler is not None:
                        handler(events)
        finally:
            for connection in list(self._connections.values()):
                self._drop(connection)
            self._log.flush()
            self._poller.close()
            self._listener.close()

    # Sockets

    def _accept(self, _events: int) -> None:
        for _ in range(MAX_EVENTS):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError:
                # Out of descriptors. The listener stays readable, so stop polling it until a connection is closed.
                self._poller.unregister(self._listener.fileno())
                self._accepting = False
                return
            connection = Connection(sock, self._poller)
            self._connections[connection.fd] = connection
            self._handlers[connection.fd] = partial(self._ready, connection)

    def _accept_again(self) -> None:
        self._accepting = True
        self._handlers[self._listener.fileno()] = self._accept
        self._poller.register(self._listener.fileno(), READ)

    def _ready(self, connection: Connection, events: int) -> None:
        try:
            if events & WRITE:
                connection.flush()
                self._close_if_done(connection)
            if events & READ:
                data = connection.read()
                if data is None:
                    return
                if not data:
                    # During an answer, this means that the client gave up; otherwise send the buffered output.
                    if connection.job is None and connection.unsent_bytes:
                        connection.closing = True
                        connection.stop_reading()
                    else:
                        self._drop(connection)
                    return
                if connection.closing:
                    return
                connection.reader.feed(data)
                self._serve(connection)
        except OSError:
            self._drop(connection)

    def _serve(self, connection: Connection, since_ns: int = 0) -> None:
        """Serve buffered requests until one has to wait for its tokens."""
        reader = connection.reader
        while connection.job is None and not connection.closing:
            try:
                request = reader.next()
            except BadRequest as error:
                self._reply(connection, self._application.refuse(error.status, str(error)))
                return
            if request is None:
                if reader.wants_continue:
                    reader.wants_continue = False
                    connection.send(CONTINUE)
                return
            outcome = self._application.handle(request)
            if isinstance(outcome, Reply):
                self._reply(connection, outcome)
            else:
                self._start(connection, outcome, since_ns)
        if reader.waiting_bytes > _MAX_WAITING_BYTES and not connection.closing:
            self._drop(connection)

    def _reply(self, connection: Connection, reply: Reply) -> None:
        connection.send(reply.data)
        if reply.failed_id:
            self.totals.requests += 1
            self.totals.errors += 1
            entry = Entry(
                response_id=reply.failed_id,
                outcome="error",
                status=reply.status,
                received_ns=connection.stamp_ns,
                received_by=connection.stamped_by,
                active=self._active,
                reason=reply.reason,
            )
            self._log.write(entry)
        connection.closing = reply.close
        self._close_if_done(connection)

    def _close_if_done(self, connection: Connection) -> None:
        if connection.closing and not connection.draining and not connection.unsent_bytes:
            connection.drain()

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection.fd, None) is None:
            return
        del self._handlers[connection.fd]
        connection.close()
        if connection.job is not None:
            self.totals.aborted += 1
            self._finish(connection.job, "aborted")
        if not self._accepting and not self._stopping:
            self._accept_again()

    # The schedule

    def _start(self, connection: Connection, answer: Answer, since_ns: int) -> None:
        # A pipelined request can arrive long before its turn; its schedule starts with its turn.
        received_ns = connection.stamp_ns
        pace = Pace(self._spec, answer.number)
        base_ns = max(received_ns, since_ns)
        due_ns = base_ns + pace.first_ns()
        self._active += 1
        totals = self.totals
        totals.requests += 1
        totals.peak_active = max(totals.peak_active, self._active)
        self._metrics.started(answer.prompt_tokens)
        entry = Entry(
            response_id=answer.response_id,
            outcome="",
            status=200,
            received_ns=received_ns,
            received_by=connection.stamped_by,
            ideal_first_ns=due_ns,
            sent_ns=[],
            prompt_tokens=answer.prompt_tokens,
            active=self._active,
            answered=answer.answered,
            fault=answer.fault,
        )
        job = connection.job = Job(connection, answer, pace, entry, due_ns)
        heapq.heappush(self._heap, (due_ns, answer.number, job))
        if self._comments_ns and answer.streamed:
            job.comment_ns = base_ns + self._comments_ns
            if job.comment_ns < due_ns:
                heapq.heappush(self._heap, (job.comment_ns, -answer.number, job))
        opening = answer.opening()
        if opening:
            connection.send(opening)

    def _fire(self) -> None:
        """Send the earliest due chunk. Keep this method short: it runs once per token."""
        when_ns, order, job = self._heap[0]
        connection = job.connection
        if connection is None:
            heapq.heappop(self._heap)
            return
        if order < 0:
            heapq.heappop(self._heap)
            self._comment(job, connection)
            return
        answer, entry = job.answer, job.entry
        data, count = answer.piece(job.sent_tokens)
        job.sent_tokens += count
        last = job.sent_tokens >= answer.tokens
        if last:
            data += answer.closing()
            heapq.heappop(self._heap)
        else:
            job.due_ns = when_ns + job.pace.gap_ns(count, self._active)
            heapq.heapreplace(self._heap, (job.due_ns, order, job))
        self.totals.tokens += count
        if not data and not last:
            return
        stamp_ns = now_ns()
        try:
            connection.send(data)
        except OSError:
            self.totals.tokens -= count
            job.sent_tokens -= count
            self._drop(connection)
            return
        if count:  # an exception in place of the first token does not count as a token
            entry.sent_ns.append(stamp_ns)
        late_ns = stamp_ns - when_ns
        entry.late_max_ns = max(entry.late_max_ns, late_ns)
        self.totals.late.add(late_ns)
        if connection.unsent_bytes:
            entry.held += 1
            if connection.unsent_bytes > _MAX_UNSENT_BYTES:
                self._drop(connection)
                return
        if last:
            self._complete(job, connection)

    def _comment(self, job: Job, connection: Connection) -> None:
        job.comment_ns += self._comments_ns
        if job.comment_ns < job.due_ns and not job.sent_tokens:
            heapq.heappush(self._heap, (job.comment_ns, -job.answer.number, job))
        try:
            connection.send(job.answer.comment())
        except OSError:
            self._drop(connection)

    def _complete(self, job: Job, connection: Connection) -> None:
        outcome = job.answer.outcome
        if outcome == "completed":
            self.totals.completed += 1
        else:
            self.totals.broken += 1
        self._finish(job, outcome)
        if outcome == "reset":
            connection.reset_on_close()
            self._drop(connection)
            return
        connection.closing = job.answer.close
        with contextlib.suppress(OSError):  # the next read detects a client that is gone
            self._close_if_done(connection)
            self._serve(connection, since_ns=now_ns())

    def _finish(self, job: Job, outcome: str) -> None:
        """Detach the job from its connection and log it.

        Detaching also breaks the reference cycle, because the garbage collector is off.
        """
        self._active -= 1
        if job.connection is not None:
            job.connection.job = None
            job.connection = None
        self._application.ended(job.answer, job.sent_tokens)
        entry = job.entry
        entry.outcome = outcome
        if entry.sent_ns:
            entry.tokens = job.sent_tokens
            entry.first_ns, entry.last_ns = entry.sent_ns[0], entry.sent_ns[-1]
        if self._counts_metrics:
            self._metrics.ended(entry)
        self._log.write(entry)


class Connection:
    """A client's socket with its buffers.

    `stamp_ns` is the arrival time of the last data read, on CLOCK_MONOTONIC; `stamped_by` is kernel or user.
    """

    __slots__ = ("_out", "_poller", "_sock", "closing", "draining", "fd", "job", "reader", "stamp_ns", "stamped_by")

    def __init__(self, sock: socket.socket, poller: Poller) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._poller = poller
        self._out = bytearray()
        self.fd = sock.fileno()
        self.reader = RequestReader()
        self.job: Job | None = None
        self.stamp_ns = 0
        self.stamped_by = "user"
        self.closing = False  # close when all output is sent
        self.draining = False  # all output is sent; wait for the client to close
        poller.register(self.fd, READ)

    def read(self) -> bytes | None:
        """Return the received bytes, empty when the client closed its side, None when there is nothing to read."""
        parts: list[tuple[int, int, bytes]] = []
        try:
            if not _HAS_STAMPS:
                data = self._sock.recv(_READ_BYTES)
            else:
                data, parts, _, _ = self._sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        now_ns = time.monotonic_ns()
        self.stamp_ns, self.stamped_by = now_ns, "user"
        for level, kind, payload in parts:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(payload) == _TIMESPEC.size:
                seconds, rest_ns = _TIMESPEC.unpack(payload)
                age_ns = time.time_ns() - (seconds * 1_000_000_000 + rest_ns)
                if 0 <= age_ns < _CREDIBLE_NS:
                    self.stamp_ns, self.stamped_by = now_ns - age_ns, "kernel"
        return data

    @property
    def unsent_bytes(self) -> int:
        return len(self._out)

    def send(self, data: bytes) -> None:
        """Pass as much as possible to the kernel and buffer the rest. Raises OSError when the client is gone."""
        if not self._out:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            self._poller.modify(self.fd, READ | WRITE)
        self._out += data

    def flush(self) -> None:
        """Send buffered bytes; called when the socket is writable again."""
        if self._out:
            try:
                sent = self._sock.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]
        if not self._out:
            self._poller.modify(self.fd, READ)

    def stop_reading(self) -> None:
        """Stop polling for input from a client that closed its side.

        Its end of input would wake the loop repeatedly until all output is sent.
        """
        self._poller.modify(self.fd, WRITE)

    def drain(self) -> None:
        """Shut down the write side and let the client close first: closing with unread input resets the stream."""
        self.draining = True
        self._sock.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Make `close` reset the connection instead of closing it in order."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)

    def close(self) -> None:
        self._poller.unregister(self.fd)
        self._sock.close()


@dataclass(slots=True, eq=False)
class Job:
    """One answer in progress."""

    connection: Connection | None
    answer: Answer
    pace: Pace
    entry: Entry
    due_ns: int
    comment_ns: int = 0
    sent_tokens: int = 0


class Pace:
    """Delays in nanoseconds for one answer.

    The answer's number seeds the jitter, so that it does not depend on concurrent answers.
    """

    __slots__ = ("_capacity", "_itl_ns", "_rng", "_sigma", "_ttft_ns")

    def __init__(self, spec: Spec, number: int) -> None:
        self._ttft_ns = round(spec.ttft_s * 1e9)
        self._itl_ns = round(spec.itl_s * 1e9)
        self._capacity = spec.capacity
        self._sigma = spec.jitter
        self._rng = random.Random(f"pace {spec.seed} {number}") if spec.jitter else None

    def first_ns(self) -> int:
        return self._ttft_ns if self._rng is None else round(self._ttft_ns * self._factor(self._rng))

    def gap_ns(self, tokens: int, active: int) -> int:
        """Return the delay from a chunk of ``tokens`` tokens to the next one, with ``active`` active answers."""
        gap_ns = self._itl_ns * tokens
        if self._capacity and active > self._capacity:
            gap_ns = round(gap_ns * active / self._capacity)
        return gap_ns if self._rng is None else round(gap_ns * self._factor(self._rng))

    def _factor(self, rng: random.Random) -> float:
        # exp(N(-s^2/2, s)) has mean 1: jitter must not change the average speed.
        return math.exp(rng.gauss(0.0, self._sigma) - self._sigma**2 / 2)
