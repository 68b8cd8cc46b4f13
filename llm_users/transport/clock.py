"""Read the monotonic clock in nanoseconds, and enable and read the kernel's receive stamps.

The kernel stamps a segment when it arrives (SO_TIMESTAMPNS), so a busy event loop delays the processing of a token
but not its measurement. The kernel stamps use the wall clock; ``wall_offset_ns`` gives the offset to the monotonic
clock, which is sampled for each request.
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
"""Buffer size for one stamp (CMSG_SPACE(16) is 32) with a margin."""

OFFSET_TOLERANCE_NS = 1_000_000
"""If the offset between wall clock and monotonic clock changes by more than this during a request, its rows get
``user`` stamps."""

Ancillary = list[tuple[int, int, bytes]]
"""The control messages of one read, as ``recvmsg`` returns them."""

Stamp = bytes
"""The kernel's stamp of one read, a ``struct timespec`` of the wall clock; empty if there is none."""

_TIMESPEC = struct.Struct("@qq")  # struct timespec of a 64-bit kernel
_TIMESPEC_BYTES, _unpack = _TIMESPEC.size, _TIMESPEC.unpack_from
_idle_socket: socket.socket | None = None


_SHORT_NS = 1000


def wall_offset_ns() -> int:
    """Return the wall clock minus the monotonic clock, in ns.

    A sample is wrong if the process is preempted during it. The first sample that takes less than a microsecond is
    used, or the narrowest one of three.
    """
    best_width, best_offset = 1 << 62, 0
    for _ in range(3):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if after - before < best_width:
            best_width = after - before
            best_offset = wall - (before + after) // 2
            if best_width < _SHORT_NS:
                break
    return best_offset


def stamp_of(ancillary: Ancillary) -> Stamp:
    """Return the stamp in the control messages of a read."""
    # ``enable_stamps`` enables no other kind of control message.
    return ancillary[0][2] if ancillary else b""


def kernel_ns(stamp: Stamp) -> int:
    """Return the time of a stamp on the wall clock, in ns; 0 if there is none."""
    if len(stamp) < _TIMESPEC_BYTES:
        return 0
    seconds, nanoseconds = _unpack(stamp)
    return seconds * 1_000_000_000 + nanoseconds  # type: ignore[no-any-return]


def monotonic_ns(stamps: list[Stamp], offset_ns: int) -> list[int]:
    """Return the times of stamps on the monotonic clock, in ns; 0 for a stamp that is missing.

    ``offset_ns`` is the wall clock minus the monotonic clock.
    """
    together = b"".join(stamps)
    if len(together) == len(stamps) * _TIMESPEC_BYTES and b"" not in stamps:
        return [seconds * 1_000_000_000 + ns - offset_ns for seconds, ns in _TIMESPEC.iter_unpack(together)]
    return [time_ns - offset_ns if (time_ns := kernel_ns(stamp)) else 0 for stamp in stamps]


def enable_stamps(sock: socket.socket) -> bool:
    """Make the kernel stamp the segments that this socket receives. Return False if the platform cannot."""
    global _idle_socket
    if not sys.platform.startswith("linux"):
        return False
    try:
        # The kernel stamps packets only while at least one socket of the machine requests it, and it does not start
        # immediately: without an idle socket that stays open, the first packets of a run had no stamp (10 of 10
        # observed).
        if _idle_socket is None:
            _idle_socket = get_original("socket", "socket")(socket.AF_INET, socket.SOCK_DGRAM)
            _idle_socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True
