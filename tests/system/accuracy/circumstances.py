"""The conditions of a run besides its load: TLS in front of the server, and programs that use all cores."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from llm_users.calibration.measured_run import Endpoint, Sent, Timing, Truth

Start = Callable[[Timing, Path], Endpoint]


class TlsEndpoint(Endpoint):
    """A TLS proxy in front of another endpoint. It logs the send times, so its delay does not count as an error."""

    def __init__(self, start: Start, timing: Timing, folder: Path) -> None:
        pem = folder / "proxy.pem"
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        self._behind = start(timing, folder)
        self.kind = f"{self._behind.kind}, TLS"
        address = urlsplit(self._behind.url)
        self._log = folder / "proxy.jsonl"
        program = Path(__file__).with_name("tls_proxy.py")
        command: list[str | Path] = [sys.executable, program, str(address.port), pem, self._log]
        self._proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout is not None
        self.url = f"https://127.0.0.1:{int(self._proxy.stdout.readline())}{address.path}"

    def stop(self) -> None:
        if self._proxy.returncode is None:
            self._proxy.terminate()
            self._proxy.communicate()
        self._behind.stop()

    def truth(self) -> Truth:
        self.stop()
        truth = self._behind.truth()
        with self._log.open() as lines:
            entries = [json.loads(line) for line in lines]
        sent = {
            response_id: _sent_by_proxy(truth.sent[response_id], entry["received_ns"], entry["sent_ns"])
            for entry in entries
            for response_id in entry["ids"]
            if response_id in truth.sent
        }
        return replace(truth, sent=sent)


def _sent_by_proxy(sent: Sent, received_ns: int, sent_ns: list[int]) -> Sent:
    """Return when the proxy had read the request, and when it sent the first and the last token.

    The first token is in the first read that the proxy forwarded after the server had sent it.
    """
    return Sent(received_ns, sent_ns[bisect_left(sent_ns, sent.first_ns)], sent_ns[-1])


@contextlib.contextmanager
def busy_programs() -> Iterator[None]:
    """Run as many Python loops as the machine has cores, each on its own core if the system allows that."""
    loop = (
        "import os, sys\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile 1: 0"
    )
    # Each has its own session, like programs that another user started: Linux may share the CPU among sessions.
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
