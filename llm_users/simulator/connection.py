"""One client connection: timestamped reads, non-blocking writes, a request reader, and the answer in progress.

This module does not depend on the event loop or on the JSON of any API.
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
# From asm-generic/socket.h; the socket module has no constant for it. Other architectures use other numbers.
_SO_TIMESTAMPNS = 35
_HAS_STAMPS = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64", "riscv64", "ppc64le", "s390x")
_TIMESPEC = struct.Struct("qq")
_NO_LINGER = struct.pack("ii", 1, 0)
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
# An older kernel timestamp means that the wall clock was set, not that the loop was busy.
_CREDIBLE_NS = 5_000_000_000


def ask_for_stamps(listener: socket.socket) -> None:
    """Turn on kernel timestamps for received data.

    Accepted sockets inherit the option; the open listener keeps timestamping active in the kernel.
    """
    if _HAS_STAMPS:
        try:
            listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        except OSError:
            return  # not supported here: the clock at the return of the read is used instead


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


class Job:
    """One answer in progress."""

    __slots__ = ("answer", "comment_ns", "connection", "due_ns", "entry", "pace", "sent_tokens")

    def __init__(self, connection: Connection, answer: Answer, pace: Pace, entry: Entry, due_ns: int) -> None:
        self.connection: Connection | None = connection
        self.answer = answer
        self.pace = pace
        self.entry = entry
        self.due_ns = due_ns
        self.comment_ns = 0
        self.sent_tokens = 0
