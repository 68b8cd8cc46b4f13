"""What became of the requests that each worker started: come, fetched from its spool, or lost."""

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
    """``left``: it said good-bye before the end; ``missing``: it did not."""
    started: int = 0
    """By its last word, or by the counts that it left on this machine."""
    exact: bool = True
    """False when ``started`` is from its last message, so that it may have started some more."""
    received: int = 0
    recovered: int = 0
    """Rows that came from its spool."""
    sent: int | None = None
    shards: list[str] = field(default_factory=list)
    host: str | None = None

    @property
    def lost(self) -> int:
        """Requests without a row."""
        return max(0, self.started - self.received - self.recovered)

    def entry(self, *, shards: bool) -> dict[str, Any]:
        """For the manifest; ``shards`` are named when they are still there."""
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
