"""The endpoint's own record: when each token really left, one JSON line per request, and the totals.

It must not know sockets or wire formats.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

_STEPS = 16  # buckets per doubling: at most 6 % too high


class Entry(msgspec.Struct, kw_only=True):
    """One request. All stamps are CLOCK_MONOTONIC nanoseconds, which other processes of the machine share.

    received_ns: arrival of the request's last segment, by the kernel's stamp where there is one (`received_by`), else
    the clock at return from the read. sent_ns: taken immediately before each content chunk was handed to the kernel,
    and before the finish event of a stop token without a chunk; `tokens` are those of the first choice;
    `outcome` is completed, error (refused, or an error inside the stream), cut (as the spec asked) or aborted (by the
    client). `held` counts the chunks that had to wait in our own buffer because the client did not read. `answered` is
    right, wrong or vague when a number was asked for; `fault` is the one of the spec's that the request met.
    """

    response_id: str
    outcome: str
    status: int
    received_ns: int
    received_by: str
    ideal_first_ns: int | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    sent_ns: list[int] = []
    tokens: int = 0
    prompt_tokens: int = 0
    late_max_ns: int = 0
    held: int = 0
    active: int = 0
    answered: str = ""
    fault: str = ""


class Lateness:
    """A histogram of microseconds with a bounded relative error."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.max_us = 0

    def add(self, late_ns: int) -> None:
        us = late_ns // 1000
        self.max_us = max(self.max_us, us)
        if us >= _STEPS * 2:
            shift = us.bit_length() - 5
            us = (us >> shift) << shift
        counts = self._counts
        counts[us] = counts.get(us, 0) + 1

    def quantile_us(self, share: float) -> int:
        """Upper edge of the bucket that holds the quantile."""
        left = share * sum(self._counts.values())
        for low, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                width = 1 << max(low.bit_length() - 5, 0)
                return min(low + width, self.max_us)
        return 0


class Totals:
    """What happened since the endpoint began to listen."""

    def __init__(self) -> None:
        self.requests = self.completed = self.aborted = self.errors = self.broken = 0
        self.tokens = self.peak_active = 0
        self.late = Lateness()
        self._cpu_start_s = time.process_time()

    def report(self) -> dict[str, float]:
        cpu_s = time.process_time() - self._cpu_start_s
        return {
            "requests": self.requests,
            "completed": self.completed,
            "aborted": self.aborted,
            "errors": self.errors,
            "broken": self.broken,
            "tokens": self.tokens,
            "peak_active": self.peak_active,
            "late_p50_us": self.late.quantile_us(0.5),
            "late_p99_us": self.late.quantile_us(0.99),
            "late_max_us": self.late.max_us,
            "cpu_s": round(cpu_s, 4),
            "cpu_us_per_token": round(cpu_s * 1e6 / self.tokens, 2) if self.tokens else 0.0,
        }


class RequestLog:
    """JSON lines in a file, written out when the loop has time."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("wb", buffering=1 << 20) if path is not None else None
        self._encoder = msgspec.json.Encoder()
        self.dirty = False

    def write(self, entry: Entry) -> None:
        if self._file is not None:
            self._file.write(self._encoder.encode(entry) + b"\n")
            self.dirty = True

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()
        self.dirty = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
