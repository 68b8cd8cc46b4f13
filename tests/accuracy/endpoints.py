"""Servers whose timing is known: the project's simulator, and a native server given by path.

Both keep a log of when each request was read and when its tokens left, in CLOCK_MONOTONIC nanoseconds, which every
process of the machine shares. They know nothing of the client.
"""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bounds import NATIVE, SIMULATOR

from llm_users.simulator.launch import launch

_READY_S = 10.0


@dataclass(frozen=True, slots=True)
class Timing:
    """What the server was told to do."""

    ttft_s: float
    gap_s: float
    tokens: int

    @property
    def answer_s(self) -> float:
        """From the request's arrival to its last token, on schedule."""
        return self.ttft_s + (self.tokens - 1) * self.gap_s


@dataclass(frozen=True, slots=True)
class Sent:
    """When the server had read a request, and when its first and its last token left."""

    received_ns: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Truth:
    """The server's own record of a run: its send times by response id, and how late it was itself."""

    sent: dict[str, Sent]
    late_p99_s: float
    cpu_per_token_s: float


class Endpoint:
    """A server that runs. Its ``truth`` is complete once it has been stopped."""

    kind: str
    url: str

    def stop(self) -> None:
        raise NotImplementedError

    def truth(self) -> Truth:
        raise NotImplementedError


@contextlib.contextmanager
def running(native: Path | None, timing: Timing, folder: Path) -> Iterator[Endpoint]:
    """The native server when its binary is given, else the simulator. It ends with the block at the latest."""
    endpoint = SimulatorEndpoint(timing, folder) if native is None else NativeEndpoint(native, timing, folder)
    try:
        yield endpoint
    finally:
        endpoint.stop()


class SimulatorEndpoint(Endpoint):
    kind = SIMULATOR

    def __init__(self, timing: Timing, folder: Path) -> None:
        self._log = folder / "simulator.jsonl"
        spec = f"ttft={timing.ttft_s * 1e6:.0f}us,itl={timing.gap_s * 1e6:.0f}us,tokens={timing.tokens}"
        self._simulator = launch(spec, log=self._log)
        self.url = self._simulator.url

    def stop(self) -> None:
        self._simulator.stop()

    def truth(self) -> Truth:
        totals = self._simulator.stop()
        entries = [json.loads(line) for line in self._log.read_text().splitlines()]
        sent = {
            entry["response_id"]: Sent(entry["received_ns"], entry["first_ns"], entry["last_ns"])
            for entry in entries
            if entry["first_ns"] is not None
        }
        return Truth(sent, totals["late_p99_us"] / 1e6, totals["cpu_us_per_token"] / 1e6)


class NativeEndpoint(Endpoint):
    """A binary that takes --port, --ttft-ms, --itl-ms, --tokens and --log, and prints its totals on SIGTERM."""

    kind = NATIVE

    def __init__(self, binary: Path, timing: Timing, folder: Path) -> None:
        self._log = folder / "native.csv"
        self._said = ""
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        command: list[str | Path] = [binary.resolve(), "--port", str(port), "--log", self._log]
        command += ["--ttft-ms", str(timing.ttft_s * 1e3), "--itl-ms", str(timing.gap_s * 1e3)]
        command += ["--tokens", str(timing.tokens)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            self._await_ready(port)
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise

    def stop(self) -> None:
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            self._said, _ = self._process.communicate(timeout=_READY_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._said, _ = self._process.communicate()

    def truth(self) -> Truth:
        self.stop()
        totals: dict[str, Any] = json.loads(self._said)
        with self._log.open(newline="") as file:
            sent = {
                f"chatcmpl-{row['req_id']}": Sent(int(row["t_recv_ns"]), int(row["t_first_ns"]), int(row["t_last_ns"]))
                for row in csv.DictReader(file)
            }
        return Truth(sent, totals["late_us_p99_le"] / 1e6, totals["cpu_s"] / max(1, totals["tokens"]))

    def _await_ready(self, port: int) -> None:
        end_s = time.monotonic() + _READY_S
        while time.monotonic() < end_s:
            if self._process.poll() is not None:
                raise RuntimeError(f"the native server ended at once, with exit code {self._process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"the native server did not listen on port {port} within {_READY_S:g} s")


def native_binary(path: Path, folder: Path) -> Path:
    """The server itself; a ``.c`` file is compiled into ``folder`` first."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no native server at {path}; give its binary or its .c file")
    if path.suffix != ".c":
        return path
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError(f"no C compiler (cc) to build {path} with; give a binary instead")
    binary = folder / path.stem
    subprocess.run([compiler, "-O2", "-o", binary, path, "-lm"], check=True)
    return binary


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
