"""One client's socket: stamped reads, writes that never block, a request reader, and the answer that is on its way.

This module must not know the event loop or any API's JSON.
"""

from __future__ import annotations

import platform
import socket
import struct
import sys
import time

from llm_users.simulator.answer import Answer
from llm_users.simulator.http_wire import RequestReader
from llm_users.simulator.log import Entry
from llm_users.simulator.pace import Pace
from llm_users.simulator.poller import READ, WRITE, Poller

_READ_BYTES = 64 * 1024
# asm-generic/socket.h; the socket module does not name it. Other architectures number it differently.
_SO_TIMESTAMPNS = 35
_HAS_STAMPS = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64", "riscv64", "ppc64le", "s390x")
_TIMESPEC = struct.Struct("qq")
_NO_LINGER = struct.pack("ii", 1, 0)
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
# A kernel stamp older than this says that the wall clock was set, not that the loop was busy.
_CREDIBLE_NS = 5_000_000_000


def ask_for_stamps(listener: socket.socket) -> None:
    """Let the kernel stamp what arrives. Accepted sockets inherit it; the listener keeps stamping on all the time."""
    if _HAS_STAMPS:
        try:
            listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        except OSError:
            return  # not offered here: reads are stamped by the clock instead


class Connection:
    """`stamp_ns` is the arrival of what was read last, on CLOCK_MONOTONIC; `stamped_by` is kernel or user."""

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
        self.closing = False  # close once everything was sent
        self.draining = False  # everything was sent; wait for the client to close
        poller.register(self.fd, READ)

    def read(self) -> bytes | None:
        """What arrived, empty when the client closed, None when there was nothing to read."""
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
        """Hand over to the kernel what it takes, keep the rest. OSError when the client is gone."""
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
        """Called when the socket can be written again."""
        if self._out:
            try:
                sent = self._sock.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]
        if not self._out:
            self._poller.modify(self.fd, READ)

    def stop_reading(self) -> None:
        """For a client that closed its side: its end of input would wake us again and again until all is sent."""
        self._poller.modify(self.fd, WRITE)

    def drain(self) -> None:
        """Say that nothing more comes, but let the client close first: closing with unread input resets the stream."""
        self.draining = True
        self._sock.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Let `close` break the connection instead of ending it."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)

    def close(self) -> None:
        self._poller.unregister(self.fd)
        self._sock.close()


class Job:
    """One answer on its way."""

    __slots__ = ("answer", "comment_ns", "connection", "due_ns", "entry", "pace", "sent_tokens")

    def __init__(self, connection: Connection, answer: Answer, pace: Pace, entry: Entry, due_ns: int) -> None:
        self.connection: Connection | None = connection
        self.answer = answer
        self.pace = pace
        self.entry = entry
        self.due_ns = due_ns
        self.comment_ns = 0
        self.sent_tokens = 0
