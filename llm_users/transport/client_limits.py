"""Recognize errors that a limit of the load machine causes: file descriptors, local ports, memory.

These errors do not depend on the endpoint. The module maps the operating system's error numbers to advice; it does
not handle connections.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from gevent.monkey import get_original

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

_DESCRIPTORS = "Raise the limit on open files before the start (ulimit -n 65536), or use more workers or fewer users."
_PORTS = (
    "Widen net.ipv4.ip_local_port_range, remove --llm-new-connections so that connections are reused, or send the load "
    "from more machines or addresses."
)
_REMEDIES = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: "Raise the limit on open files of the whole machine (sysctl fs.file-max), or use more machines.",
    errno.ENOBUFS: "Free memory on this machine, raise net.core.wmem_max and net.ipv4.tcp_mem, or use fewer users.",
    errno.ENOMEM: "Free memory on this machine, or use fewer users.",
}


_RESERVED = 24
"""File descriptors that connections must not use: the process needs them to write rows and read system counters."""


def is_reserved(descriptor: int) -> bool:
    """Return True for one of the last descriptors of this process. The system assigns the lowest free descriptor."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else -1
    return 0 <= limit - _RESERVED <= descriptor


class NoPortLeft(OSError):
    """Every local port that could connect to this address is in use."""


def is_reachable(family: int, address: Any) -> bool:
    """Return True if this machine has a source address for ``address``.

    The system reports a missing source address and a missing free port with the same error.
    """
    probe = get_original("socket", "socket")(family, socket.SOCK_DGRAM)  # sends nothing; UDP has its own ports
    try:
        return bool(probe.connect_ex(address) == 0)
    finally:
        probe.close()


def remedy_for(error: BaseException | None) -> str:
    """Return advice for an error that a limit of this machine caused; "" for any other error."""
    if isinstance(error, NoPortLeft):
        return _PORTS
    if isinstance(error, socket.gaierror):  # the resolver does not report that it could not open its files
        return _descriptor_remedy()
    return _REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def _descriptor_remedy() -> str:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return _REMEDIES.get(error.errno or 0, "")
    return ""
