"""The connection to ``llm_reports.follow``: a child process that reads rows with pandas outside of this process."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from gevent.lock import BoundedSemaphore
from gevent.subprocess import DEVNULL, PIPE, Popen

logger = logging.getLogger(__name__)


class Follower:
    """Sends one question at a time and waits for the answer in its greenlet. The first question starts the child."""

    def __init__(self) -> None:
        self._child: Any = None
        self._turn = BoundedSemaphore(1)
        self._complained = False
        self._over = False

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Return the answer. A failed question returns a dictionary with ``error``."""
        with self._turn:
            try:
                return self._ask({"do": do, **more})
            except (OSError, ValueError) as error:
                self._end()
                answer = {"error": f"the process that reads the rows has ended ({error or type(error).__name__})"}
        if not self._complained and not self._over:
            self._complained = True
            logger.error("%s; figures of finished stages stay approximate", answer["error"])
        return answer

    def stop(self) -> None:
        """End the child. Further questions fail."""
        self._over = True
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.stdin.close()
            child.terminate()
            child.wait(timeout=5)
            child.stdout.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._over:
            raise OSError("this process is ending")
        if self._child is None:
            self._child = _start()
        child = self._child
        child.stdin.write(json.dumps(question).encode() + b"\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            raise OSError(f"exit code {child.wait(timeout=5)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _start() -> Any:
    # Use the package that this process finds, not a package of the same name in the current folder.
    spec = importlib.util.find_spec("llm_reports")
    if spec is None or spec.origin is None:
        raise OSError("the package llm_reports is not installed")
    home = str(Path(spec.origin).resolve().parents[1])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "llm_reports.follow"]
    # In its own process group: Ctrl-C does not reach the child, and the child ends when its input closes.
    return Popen(
        command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )
