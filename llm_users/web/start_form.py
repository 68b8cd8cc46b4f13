"""A start from the form is not taken back: Locust's page goes back to the form when it reads "ready" after a start.

Locust says so until its users are being spawned, and for some two seconds more, because it keeps the answer that it
gave before; on a busy machine the page sees that, and a person a form while the test runs. Knows nothing of runs.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from flask import Response, request

_LONGEST_S = 15.0
"""Of a start; after that "ready" is believed."""

_READY, _SPAWNING = "ready", "spawning"


class Starting:
    """Remembers when a start was accepted."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._accepted_s: float | None = None

    def corrected(self, response: Response) -> Response:
        """For ``after_request``: the figures of Locust's page with the state that holds."""
        if response.status_code != 200 or request.endpoint not in ("locust.swarm", "locust.request_stats"):
            return response
        if request.endpoint == "locust.swarm":
            said = response.get_json(silent=True) or {}
            self._accepted_s = time.monotonic() if said.get("success") else None
            return response
        if self._accepted_s is None or time.monotonic() > self._accepted_s + _LONGEST_S:
            return response
        said = response.get_json(silent=True) or {}
        if said.get("state") != _READY:
            return response
        now = str(self._runner.state)
        said["state"] = _SPAWNING if now == _READY else now
        # Another answer, not this one changed: Locust keeps it.
        return Response(msgspec.json.encode(said), mimetype="application/json")
