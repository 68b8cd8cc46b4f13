"""Keeps Locust's page from returning to the start form: the page does so when it reads the state "ready" after a start.

Locust reports "ready" until it spawns users, and for about two seconds more, because it caches its answer. On a busy
machine the page reads that answer and shows the form although the test runs. This module does not depend on runs.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from flask import Response, request

_LONGEST_S = 15.0
"""Maximum duration of a start. After this time the module no longer corrects "ready"."""

_READY, _SPAWNING = "ready", "spawning"


class Starting:
    """Remembers when Locust accepted a start."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._accepted_s: float | None = None

    def corrected(self, response: Response) -> Response:
        """Correct the state in the figures for Locust's page (an ``after_request`` function)."""
        if response.status_code != 200 or request.endpoint not in ("locust.swarm", "locust.request_stats"):
            return response
        if request.endpoint == "locust.swarm":
            answer = response.get_json(silent=True) or {}
            self._accepted_s = time.monotonic() if answer.get("success") else None
            return response
        if self._accepted_s is None or time.monotonic() > self._accepted_s + _LONGEST_S:
            return response
        answer = response.get_json(silent=True) or {}
        if answer.get("state") != _READY:
            return response
        now = str(self._runner.state)
        answer["state"] = _SPAWNING if now == _READY else now
        # Return a new response and do not change this one, because Locust caches it.
        return Response(msgspec.json.encode(answer), mimetype="application/json")
