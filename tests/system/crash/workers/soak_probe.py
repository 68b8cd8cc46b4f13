"""A locustfile beside the one under test: what a process of the soak really uses, without what its heap has free.

A leak may fill free space for an hour before the resident memory grows; this sees it at once. Writes a line every two
seconds to a file in the folder that SOAK_FOLDER names, called after the process's id.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events

EVERY_S = 2.0
SMALL_OBJECT_BYTES = 64
"""About what one of Python's small objects takes, whose arenas are not the C library's."""

_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def used_kb() -> float:
    """Kilobytes in use; without glibc 2.33 or newer only Python's small objects."""
    found = sys.getallocatedblocks() * SMALL_OBJECT_BYTES
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is not None:
        mallinfo.restype = _MallInfo
        info = mallinfo()
        found += info.uordblks + info.hblkhd
    return found / 1000


@events.init.add_listener
def watch(environment: Any, **_: Any) -> None:
    folder = os.environ.get("SOAK_FOLDER")
    if folder:
        gevent.spawn(_write, Path(folder) / f"used_{os.getpid()}")


def _write(file: Path) -> None:
    while True:
        with file.open("a") as out:
            out.write(f"{time.monotonic():.1f} {used_kb():.0f}\n")
        gevent.sleep(EVERY_S)
