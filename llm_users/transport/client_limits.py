"""Limits of the load machine itself: file descriptors, local ports, memory. The endpoint has no part in them.

Knows the operating system's error numbers, no connections.
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

_DESCRIPTORS = "Raise the limit of open files before the start (ulimit -n 65536), or use more workers or fewer users."
_PORTS = (
    "Widen net.ipv4.ip_local_port_range, leave out --llm-new-connections so that connections are used again, or send "
    "the load from more machines or addresses."
)
_REMEDIES = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: "Raise the limit of open files of the whole machine (sysctl fs.file-max), or use more machines.",
    errno.ENOBUFS: "Free memory of the machine, raise net.core.wmem_max and net.ipv4.tcp_mem, or use fewer users.",
    errno.ENOMEM: "Free memory of the machine, or use fewer users.",
}


_RESERVED = 24
"""Descriptors that connections leave to the rest of the process: it writes rows and reads counters of the system."""


def is_reserved(descriptor: int) -> bool:
    """True for one of the last descriptors that this process may have. The system gives the lowest that is free."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else -1
    return 0 <= most - _RESERVED <= descriptor


class NoPortLeft(OSError):
    """Every local port that could connect to this address is in use."""


def is_reachable(family: int, address: Any) -> bool:
    """True when this machine has an address to send from; the system has one error for that and for no free port."""
    probe = get_original("socket", "socket")(family, socket.SOCK_DGRAM)  # sends nothing, and has ports apart from TCP's
    try:
        return bool(probe.connect_ex(address) == 0)
    finally:
        probe.close()


def remedy_for(error: BaseException | None) -> str:
    """What to do about an error that a limit of this machine caused; "" for any other error."""
    if isinstance(error, NoPortLeft):
        return _PORTS
    if isinstance(error, socket.gaierror):  # the resolver does not say that it could not open its files
        return _missing_descriptor()
    return _REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def _missing_descriptor() -> str:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return _REMEDIES.get(error.errno or 0, "")
    return ""
