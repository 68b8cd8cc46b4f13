"""Starts the endpoint as a separate process and makes sure that the process ends.

It works in a plain process and in one that gevent has patched: it only polls, so a patched `time.sleep` lets other
greenlets run. It must not import gevent.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_users.simulator.main import SPEC_VARIABLE
from llm_users.simulator.spec import Spec

_READY = re.compile(rb"llm-simulator listening on (http://\S+:(\d+)/v1)\n")
_POLL_S = 0.01
_STOP_TIMEOUT_S = 5.0


class SimulatorError(RuntimeError):
    """The endpoint did not start, or ended without its totals."""


class Simulator:
    """A running endpoint. `url` is the base URL for clients; `stop()` returns the totals. Also a context manager."""

    def __init__(self, spec: Spec, *, log: Path | None, options: Sequence[str], timeout_s: float) -> None:
        self.spec = spec
        self.log = log
        self._owner_pid = os.getpid()
        self._totals: dict[str, Any] | None = None
        self._output = b""
        # It stays open after this call; _release closes it.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._stdout, child_stdout = os.pipe()
        child_stdin, self._stdin = os.pipe()
        os.set_blocking(self._stdout, False)
        lifetime_options = ["--stdin-eof", "--parent-pid", str(os.getpid())]
        lifetime_options += ["--log", str(log)] if log is not None else []
        try:
            # A separate session: Ctrl-C reaches only the launcher, which stops the endpoint after its last request.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "llm_users.simulator.main", *lifetime_options, *options],
                stdin=child_stdin,
                stdout=child_stdout,
                stderr=self._stderr,
                env={**os.environ, **import_path(), SPEC_VARIABLE: str(spec)},
                start_new_session=True,
            )
        except BaseException:
            self._release()
            raise
        finally:
            os.close(child_stdin)
            os.close(child_stdout)
        atexit.register(self._stop_at_exit)
        try:
            self.url, self.port = self._await_ready(timeout_s)
        except BaseException:
            self._end(kill=True)
            raise

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def stop(self) -> dict[str, Any]:
        """End the endpoint and return its totals; a second call returns them again."""
        if self._totals is None:
            problem = self._end(kill=False)
            last = self._output.strip().rpartition(b"\n")[2]
            if not last.startswith(b"{"):
                raise SimulatorError(f"the simulator ended without its totals{problem}")
            self._totals = json.loads(last)
        return self._totals

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _await_ready(self, timeout_s: float) -> tuple[str, int]:
        end_s = time.monotonic() + timeout_s
        while True:
            ended = self._process.poll() is not None
            self._read_output()
            match = _READY.search(self._output)
            if match:
                return match[1].decode(), int(match[2])
            if ended:
                raise SimulatorError(
                    f"the simulator did not start (exit code {self._process.returncode}){self._error_text()}"
                )
            if time.monotonic() > end_s:
                raise SimulatorError(f"the simulator was not ready after {timeout_s:g} s{self._error_text()}")
            time.sleep(_POLL_S)

    def _read_output(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._stdout, 65536):
                self._output += data

    def _error_text(self) -> str:
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace").strip()
        return f": {text[-2000:]}" if text else ""

    def _end(self, *, kill: bool) -> str:
        """End the process and return its error output."""
        atexit.unregister(self._stop_at_exit)
        if self._process.poll() is None:
            (self._process.kill if kill else self._process.terminate)()
            if not self._ends_within(_STOP_TIMEOUT_S):
                self._process.kill()
                self._ends_within(_STOP_TIMEOUT_S)
        self._read_output()
        problem = self._error_text()
        self._release()
        return problem

    def _ends_within(self, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while self._process.poll() is None:
            if time.monotonic() > end_s:
                return False
            time.sleep(_POLL_S)
        return True

    def _release(self) -> None:
        os.close(self._stdin)
        os.close(self._stdout)
        self._stderr.close()

    def _stop_at_exit(self) -> None:
        # A forked child inherits this hook, but the endpoint belongs to the parent.
        if os.getpid() == self._owner_pid:
            self._end(kill=False)


def launch(
    spec: Spec | str = "",
    *,
    log: Path | None = None,
    port: int = 0,
    max_seconds: float = 0.0,
    timeout_s: float = 15.0,
    options: Sequence[str] = (),
) -> Simulator:
    """Start an endpoint and wait until it listens. It ends with this process at the latest.

    `options` are additional options of the command `llm-simulator`. Raises `SimulatorError` when the endpoint does not
    start, `ValueError` for an invalid spec.
    """
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    options = ["--port", str(port), "--max-seconds", str(max_seconds), *options]
    return Simulator(spec, log=log, options=options, timeout_s=timeout_s)


def import_path() -> dict[str, str]:
    """Return the environment variable with which another interpreter can import this package from its source folder.

    Returns {} when the package is installed: the interpreter finds it anyway, and site-packages must not come before
    the standard library.
    """
    root = Path(__file__).resolve().parents[2]
    if root.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))}
