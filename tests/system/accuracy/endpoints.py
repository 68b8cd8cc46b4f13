"""A native server with known timing, given by its path.

Like the simulator, it logs when it read each request and when it sent the first and last token, in nanoseconds of
CLOCK_MONOTONIC. It does not depend on the client.
"""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from llm_users.calibration.measured_run import Endpoint, Sent, Timing, Truth
from tests.ports import free_port
from tests.system.accuracy.bounds import NATIVE

_READY_S = 10.0


class NativeEndpoint(Endpoint):
    """A binary with the options --port, --ttft-ms, --itl-ms, --tokens and --log that prints its totals on SIGTERM."""

    kind = NATIVE

    def __init__(self, binary: Path, timing: Timing, folder: Path) -> None:
        self._log = folder / "native.csv"
        self._output = ""
        port = free_port()
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
            self._output, _ = self._process.communicate(timeout=_READY_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._output, _ = self._process.communicate()

    def truth(self) -> Truth:
        self.stop()
        totals: dict[str, Any] = json.loads(self._output)
        with self._log.open(newline="") as file:
            sent = {}
            for row in csv.DictReader(file):
                moments = Sent(int(row["t_recv_ns"]), int(row["t_first_ns"]), int(row["t_last_ns"]))
                # The id of a chat completion, and the request id of Bedrock (x-amzn-RequestId).
                sent[f"chatcmpl-{row['req_id']}"] = moments
                sent[f"00000000-0000-0000-0000-{int(row['req_id']):012}"] = moments
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
    """Return the binary. A ``.c`` file is compiled into ``folder`` first."""
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
