"""Free ports of this machine for servers that tests start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A TCP port of the loopback address on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def master_ports() -> tuple[str, ...]:
    """Options that give a master and its workers a free port, so that the runs of two tests never meet."""
    port = str(free_port())
    return "--master-bind-port", port, "--master-port", port
