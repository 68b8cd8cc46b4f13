"""Checks of Locust's own options before it starts anything: ports of this machine, and the master of ``--processes``.

Without these checks, Locust prints a traceback if a port is not free. The workers of ``--processes``, which it starts
before it opens the master's port, then stay alive and join the master that has the port.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import os
import signal
import socket
from functools import partial
from typing import Any

import psutil  # comes with Locust

from llm_users.options.parsers import OptionError

_PORTS = ("web_port", "master_port", "master_bind_port")
_ALL_ADDRESSES = ("", "*", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
_MOST_PORT = 65535


def check_port_numbers(parser: Any) -> None:
    """Make the parser reject numbers that are not ports."""
    for action in parser._actions:
        if action.dest in _PORTS:
            action.type = _port


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to {_MOST_PORT}")
    return int(text)


class StartChecks:
    """The checks of one process. Locust parses its options several times, and later its own servers use the ports."""

    def __init__(self) -> None:
        self._done = False
        self._end_workers = partial(end_forked_workers, os.getpid(), signal.SIGTERM)

    def run(self, parsed: Any) -> None:
        """Check the ports, and connect the workers of ``--processes`` with their master. Raises ``OptionError``."""
        forks = bool(getattr(parsed, "processes", None)) and not parsed.worker
        if forks:
            parsed.master_host = _local_address(parsed.master_bind_host)
            parsed.master_port = parsed.master_bind_port
        if self._done:
            return
        self._done = True
        if parsed.headful or not (parsed.headless or parsed.worker):
            host = "" if parsed.web_host == "*" else parsed.web_host or ""
            _check_free(host, parsed.web_port, _PAGE)
        if forks or parsed.master:
            _check_free(_master_address(parsed.master_bind_host), parsed.master_bind_port, _MASTER)
        if forks:
            atexit.register(self._end_workers)

    def ends_in_order(self) -> None:
        """Note that Locust ends the workers itself."""
        atexit.unregister(self._end_workers)


def end_forked_workers(master_pid: int, number: signal.Signals) -> None:
    """Send a signal to the workers of ``--processes``, if the calling process is their master.

    Locust does not end them: they would try for minutes to connect, block readers of their output, and join another
    master that uses the port later.
    """
    if os.getpid() != master_pid:
        return
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(number)


_PAGE = ("--web-port", "--web-host", "Close the other program, choose another port with --web-port, or use --headless")
_MASTER = (
    "--master-bind-port",
    "--master-bind-host",
    "Another distributed run may use it: wait until that run has ended, or choose another port with --master-bind-port",
)


def _local_address(bind_host: str) -> str:
    """Return the address at which processes of this machine reach a server that is bound to ``bind_host``."""
    return "127.0.0.1" if bind_host in _ALL_ADDRESSES else bind_host


def _master_address(bind_host: str) -> str:
    if bind_host != "*":
        return bind_host
    return "::" if socket.has_dualstack_ipv6() else ""


def _check_free(host: str, port: int, about: tuple[str, str, str]) -> None:
    """Raise ``OptionError`` if a server cannot listen on this address."""
    port_flag, host_flag, advice = about
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # like the servers, after an earlier run
            if host == "::":
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OptionError(f"{port_flag}: port {port} is in use. {advice}.") from None
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            raise OptionError(
                f"{host_flag}: {host!r} is not an address of this machine. Use 127.0.0.1 for this machine only, or the "
                "address of a network interface."
            ) from None
        raise OptionError(f"{port_flag}: cannot listen on port {port}: {error.strerror or error}. {advice}.") from None
