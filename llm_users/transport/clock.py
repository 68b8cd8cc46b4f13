"""The clock: monotonic nanoseconds, and the kernel's receive stamps brought onto that clock.

The kernel stamps a segment when it arrives (SO_TIMESTAMPNS), so a busy event loop delays the processing of a token
but not its measurement. Those stamps are wall-clock; the distance to the monotonic clock is sampled per request.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

from gevent.monkey import get_original

now_ns = time.monotonic_ns

SO_TIMESTAMPNS = 35
"""Linux, <asm-generic/socket.h>; the control message carries the same number. Python's socket module lacks the name."""

ANCILLARY_BYTES = 64
"""Room for one stamp (CMSG_SPACE(16) is 32) with some to spare."""

OFFSET_TOLERANCE_NS = 1_000_000
"""A request during which the wall clock moved by more than this against the monotonic clock is stamped ``user``."""

_TIMESPEC = struct.Struct("@qq")  # struct timespec of a 64-bit kernel
_keeper: socket.socket | None = None


def wall_offset_ns() -> int:
    """Wall clock minus monotonic clock, now. The tightest of three samples: a preempted one would be wrong."""
    best_width, best_offset = 1 << 62, 0
    for _ in range(3):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if after - before < best_width:
            best_width = after - before
            best_offset = wall - (before + after) // 2
    return best_offset


def kernel_stamp_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The wall-clock receive stamp among ``recvmsg``'s ancillary data, in ns; 0 when there is none."""
    for _level, kind, data in ancillary:
        if kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0


def enable_stamps(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what this socket receives. False where the platform cannot."""
    if not sys.platform.startswith("linux"):
        return False
    _keep_stamping_on()
    return _switch_on(sock)


def _switch_on(sock: socket.socket) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def _keep_stamping_on() -> None:
    """Hold one idle stamped socket for the life of the process.

    The kernel stamps packets only while some socket of the machine asks for it, and switching on takes a moment:
    without this socket the first packets of a run came unstamped (10 of 10 seen).
    """
    global _keeper
    if _keeper is None:
        _keeper = get_original("socket", "socket")(socket.AF_INET, socket.SOCK_DGRAM)
        _switch_on(_keeper)
