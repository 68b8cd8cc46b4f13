"""Accounts for the requests that each worker started: received, recovered from its spool, or lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HERE, LEFT, MISSING = "here", "left", "missing"


@dataclass
class WorkerAccount:
    """One worker in one run."""

    rank: int
    name: str
    state: str = HERE
    """``left``: the worker signed off before the end; ``missing``: it disappeared."""
    started: int = 0
    """Started requests according to the last message, or to the counts on this machine."""
    exact: bool = True
    """False when ``started`` comes from the last message, after which the worker may have started more."""
    received: int = 0
    recovered: int = 0
    """Number of rows from the spool."""
    sent: int | None = None
    shards: list[str] = field(default_factory=list)
    host: str | None = None

    @property
    def lost(self) -> int:
        """Number of requests without a row."""
        return max(0, self.started - self.received - self.recovered)

    def entry(self, *, shards: bool) -> dict[str, Any]:
        """Return the entry for the manifest; ``shards``: whether to include the paths of the shards."""
        entry: dict[str, Any] = {
            "worker": self.rank,
            "state": self.state,
            "started": self.started,
            "started_is_exact": self.exact,
            "received": self.received,
            "recovered": self.recovered,
            "lost": self.lost,
        }
        if shards and self.shards:
            entry |= {"spool": self.shards, "host": self.host}
        return entry
