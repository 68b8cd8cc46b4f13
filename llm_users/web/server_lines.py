"""The server's own metrics in the tab: lines of the charts over all servers, and the last values of each server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from llm_users.secrets import redact

STALE_S = 5.0
"""A server without a sample for this long has no values: it is silent, or no longer read."""

MOST_SERVERS = 16


class ServerSample(Protocol):
    """What one server answered at one time: rates are per second, shares are from 0 to 1."""

    @property
    def time_s(self) -> float:
        """Return the Unix time of the answer."""

    @property
    def server(self) -> str:
        """Return the URL that was read."""

    @property
    def engine(self) -> str:
        """Return the engine: vllm, sglang, ..."""

    @property
    def values(self) -> Mapping[str, float]:
        """Return the values by the names of this project."""


class ServerSamples(Protocol):
    """Reads the metrics of the run's servers once per second."""

    def latest(self) -> Sequence[ServerSample]:
        """Return the last sample of each server."""


_LINES: dict[str, tuple[str, Callable[[Sequence[float]], float]]] = {
    "server_running": ("requests_running", sum),
    "server_waiting": ("requests_waiting", sum),
    "server_tokens_per_s": ("generation_tokens", sum),
    "server_kv_cache": ("kv_cache_usage", max),
    "server_gpu": ("gpu_utilization", max),
}
"""Column of the samples -> the metric, and how the values of several servers become one: the shares of the busiest."""

COLUMNS = tuple(_LINES)

_SHOWN = (
    "requests_running", "requests_waiting", "kv_cache_usage", "prompt_tokens", "generation_tokens", "gpu_utilization",
)  # fmt: skip


class ServerLines:
    """The present values of the servers. ``samples`` is None if no server is read."""

    def __init__(self, samples: ServerSamples | None) -> None:
        self._samples = samples

    def sample(self) -> dict[str, float | None]:
        """Return the columns of the servers for one sample of the charts."""
        present = self._present()
        values = {
            column: [each.values[metric] for each in present if metric in each.values]
            for column, (metric, _) in _LINES.items()
        }
        return {column: combine(values[column]) if values[column] else None for column, (_, combine) in _LINES.items()}

    def latest(self) -> list[dict[str, Any]]:
        """Return the last values of each server, in the order of their addresses."""
        return [
            {
                "server": redact(each.server),
                "engine": redact(each.engine),
                "metrics": {name: each.values[name] for name in _SHOWN if name in each.values},
            }
            for each in self._present()
        ]

    def _present(self) -> list[ServerSample]:
        if self._samples is None:
            return []
        limit_s = time.time() - STALE_S
        present = [sample for sample in self._samples.latest() if sample.time_s >= limit_s]
        return sorted(present, key=lambda sample: sample.server)[:MOST_SERVERS]
