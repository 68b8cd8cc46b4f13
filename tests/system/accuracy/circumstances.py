"""What a run has around it: TLS before the server, and programs that use all cores."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from llm_users.calibration.measured_run import Endpoint, Timing, Truth

Start = Callable[[Timing, Path], Endpoint]


class TlsEndpoint(Endpoint):
    """Another endpoint behind a TLS proxy. What the proxy delays is part of the client's error."""

    def __init__(self, start: Start, timing: Timing, folder: Path) -> None:
        pem = folder / "proxy.pem"
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        self._behind = start(timing, folder)
        self.kind = f"{self._behind.kind}, TLS"
        address = urlsplit(self._behind.url)
        command: list[str | Path] = [sys.executable, Path(__file__).with_name("tls_proxy.py"), str(address.port), pem]
        self._proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout is not None
        self.url = f"https://127.0.0.1:{int(self._proxy.stdout.readline())}{address.path}"

    def stop(self) -> None:
        self._proxy.kill()
        self._proxy.communicate()
        self._behind.stop()

    def truth(self) -> Truth:
        return self._behind.truth()


@contextlib.contextmanager
def busy_programs() -> Iterator[None]:
    """As many Python loops as the machine has cores, each on a core of its own where the system allows it."""
    loop = (
        "import os, sys\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile 1: 0"
    )
    # Sessions of their own, like programs that somebody else started: Linux may share the CPU among sessions.
    loops = [
        subprocess.Popen([sys.executable, "-c", loop, str(core)], start_new_session=True)
        for core in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()
