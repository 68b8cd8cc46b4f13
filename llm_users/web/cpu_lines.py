"""The lines of the CPU chart: one for each worker, the busiest few when there are many, one more for the rest.

Keeps which worker has which line and since when; the values are samples like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_LINES = 8
"""More lines than this nobody tells apart: four colours, each solid and dashed."""

COLUMNS = tuple(f"cpu_{line}" for line in range(MOST_LINES))
REST = "cpu_rest"

_CLEARLY = 0.05
"""Of a core: by so much a process is busier before it takes another one's line, or equals would swap every second."""

_SMOOTHING = 0.1
"""Of the newest second in what a process usually takes: about the last ten seconds count."""


@dataclass(slots=True)
class _Line:
    worker: int
    since_s: float


@dataclass
class CpuLines:
    """Which worker has which column of the samples."""

    _lines: list[_Line] = field(default_factory=list)
    _usual: dict[int, float] = field(default_factory=dict)  # share of a core, of the processes that are present
    _rest: bool = False

    def sample(self, shares: Mapping[int, float], now_s: float) -> dict[str, float | None]:
        """This second's part of a sample: ``shares`` of a core by rank, of the processes that are present."""
        self._usual = {
            worker: share + (1 - _SMOOTHING) * (self._usual.get(worker, share) - share)
            for worker, share in shares.items()
        }
        for worker in sorted(shares):
            self._give_line(worker, now_s)
        shown = {line.worker for line in self._lines}
        rest = [share for worker, share in shares.items() if worker not in shown]
        self._rest = self._rest or bool(rest)
        made = {column: shares.get(line.worker) for column, line in zip(COLUMNS, self._lines, strict=False)}
        return {**made, REST: max(rest, default=None)}

    def _give_line(self, worker: int, now_s: float) -> None:
        if any(line.worker == worker for line in self._lines):
            return
        if len(self._lines) < MOST_LINES:
            self._lines.append(_Line(worker, now_s))
            return
        # The line of a process that is gone goes first: it counts as less than idle.
        least = min(self._lines, key=lambda line: self._usual.get(line.worker, -1.0))
        if self._usual[worker] > self._usual.get(least.worker, -1.0) + _CLEARLY:
            least.worker, least.since_s = worker, now_s

    @property
    def unused(self) -> set[str]:
        """Columns that have had no value yet."""
        return {*COLUMNS[len(self._lines) :], *(() if self._rest else (REST,))}

    def legend(self) -> list[dict[str, str | int | float]]:
        """Whose a column is; its samples before ``since_s`` were another process's."""
        return [
            {"column": column, "worker": line.worker, "since_s": line.since_s}
            for column, line in zip(COLUMNS, self._lines, strict=False)
        ]
