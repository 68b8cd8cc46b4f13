"""The way to ``llm_reports.follow``: a child process that reads rows with pandas, so that this one need not."""

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
    """Asks one question at a time and waits in its greenlet; the child starts with the first one."""

    def __init__(self) -> None:
        self._child: Any = None
        self._turn = BoundedSemaphore(1)
        self._complained = False
        self._over = False

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """The answer; with ``error`` in it when there is none."""
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
        """Nothing more will be asked."""
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
            raise OSError("this process is ending, too")
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
    # Found where this process finds it, and never in the current folder, which may have one of the same name.
    spec = importlib.util.find_spec("llm_reports")
    if spec is None or spec.origin is None:
        raise OSError("the package llm_reports is not installed")
    home = str(Path(spec.origin).resolve().parents[1])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "llm_reports.follow"]
    # A group of its own: Ctrl-C is not for it, and it ends with its input.
    return Popen(
        command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )
