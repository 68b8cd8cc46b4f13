"""A real llama.cpp server in its own process, and its own figures about what it did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

_READY = re.compile(r"listening on (?:http://)?127\.0\.0\.1:(\d+)")
_READY_S = 60.0
_IDLE_S = 30.0
"""A request that was given up ends with the batch it is in; with the cores shared that is seconds."""
_COUNTER = re.compile(r"^llamacpp:(\w+) ([-+.\deE]+)$", re.MULTILINE)


class LlamaServer:
    """Runs from its making to ``stop``."""

    def __init__(self, packages: Path, model: Path, *, slots: int) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("llama_server.py")), str(model), str(slots)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(packages)},
            text=True,
        )
        alarm = threading.Timer(_READY_S, self._process.kill)
        alarm.start()
        try:
            self.port = self._await_ready()
        except BaseException:
            self.stop()
            raise
        finally:
            alarm.cancel()
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def counters(self) -> dict[str, float]:
        """The server's own totals since it started (its ``/metrics``)."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in _COUNTER.findall(text)}

    def settled(self) -> dict[str, float]:
        """The totals once nothing is being processed any more: what was given up is in them for good."""
        late = time.monotonic() + _IDLE_S
        while True:
            found = self.counters()
            if found["requests_processing"] == found["requests_deferred"] == 0:
                return found
            if time.monotonic() > late:
                raise AssertionError(f"llama.cpp is still at work {_IDLE_S:.0f} s after the last request: {found}")
            time.sleep(0.1)

    def _await_ready(self) -> int:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            match = _READY.search(line)
            if match:
                # Nothing else may fill the pipe.
                threading.Thread(target=self._process.stdout.read, daemon=True).start()
                return int(match[1])
        self._log.seek(0)
        raise RuntimeError(f"llama.cpp's server did not start:\n{self._log.read().decode(errors='replace')[-2000:]}")
