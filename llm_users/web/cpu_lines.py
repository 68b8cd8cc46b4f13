"""The lines of the CPU chart: one for each worker, or for the busiest workers and one more for the rest.

This module assigns lines to workers and remembers since when. The values are ordinary columns of the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_LINES = 8
"""The maximum number of lines that a reader can distinguish: four colors, each solid and dashed."""

COLUMNS = tuple(f"cpu_{line}" for line in range(MOST_LINES))
REST = "cpu_rest"

_CLEARLY = 0.05
"""Share of a core by which a process must be busier than another one to take over its line. Without this margin,
equally busy processes would swap lines every second."""

_SMOOTHING = 0.1
"""Weight of the newest second in a process's usual CPU share: about the last ten seconds count."""


@dataclass(slots=True)
class _Line:
    worker: int
    since_s: float


@dataclass
class CpuLines:
    """Maps workers to columns of the samples."""

    _lines: list[_Line] = field(default_factory=list)
    _usual: dict[int, float] = field(default_factory=dict)  # usual share of a core, for the present processes
    _rest: bool = False

    def sample(self, shares: Mapping[int, float], now_s: float) -> dict[str, float | None]:
        """Return the CPU columns of this second's sample.

        ``shares`` maps ranks of present processes to shares of a core.
        """
        self._usual = {
            worker: share + (1 - _SMOOTHING) * (self._usual.get(worker, share) - share)
            for worker, share in shares.items()
        }
        for worker in sorted(shares):
            self._give_line(worker, now_s)
        shown = {line.worker for line in self._lines}
        rest = [share for worker, share in shares.items() if worker not in shown]
        self._rest = self._rest or bool(rest)
        columns = {column: shares.get(line.worker) for column, line in zip(COLUMNS, self._lines, strict=False)}
        return {**columns, REST: max(rest, default=None)}

    def _give_line(self, worker: int, now_s: float) -> None:
        if any(line.worker == worker for line in self._lines):
            return
        if len(self._lines) < MOST_LINES:
            self._lines.append(_Line(worker, now_s))
            return
        # A process that is gone counts as less than idle, so its line is reused first.
        least = min(self._lines, key=lambda line: self._usual.get(line.worker, -1.0))
        if self._usual[worker] > self._usual.get(least.worker, -1.0) + _CLEARLY:
            least.worker, least.since_s = worker, now_s

    @property
    def unused(self) -> set[str]:
        """Return the columns that have had no value yet."""
        return {*COLUMNS[len(self._lines) :], *(() if self._rest else (REST,))}

    def legend(self) -> list[dict[str, str | int | float]]:
        """Return the worker of each column. Samples before ``since_s`` belong to another process."""
        return [
            {"column": column, "worker": line.worker, "since_s": line.since_s}
            for column, line in zip(COLUMNS, self._lines, strict=False)
        ]
