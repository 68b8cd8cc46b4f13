"""The log of the endpoint: the send time of each token, one JSON line per request, and the totals.

It does not depend on sockets or wire formats.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

_STEPS = 16  # buckets per doubling: at most 6 % too high


class Entry(msgspec.Struct, kw_only=True):
    """One request. All timestamps are CLOCK_MONOTONIC nanoseconds, which all processes of the machine share.

    `received_ns` is the arrival of the last segment of the request: the kernel's timestamp where there is one
    (`received_by`), otherwise the clock at the return of the read. `sent_ns` are the times immediately before each
    content chunk was passed to the kernel, and before the finish event of a stop token without a chunk. `tokens` is
    the count of the first choice. `outcome` is completed, error (rejected, or an error inside the stream), cut (as the
    spec asked) or aborted (by the client). `held` counts the chunks that waited in the buffer because the client did
    not read. `answered` is right, wrong or vague when the prompt asked for a number; `fault` is the injected fault.
    `reason` says why a request was rejected: the quota that throttled it, or the error code of a refused signature or
    route. `traceparent` is the request's header of this name.
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
    reason: str = ""
    traceparent: str = ""


class Lateness:
    """A histogram of delays in microseconds with a bounded relative error."""

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
        """Return the upper edge of the bucket that holds the quantile `share` (0 to 1)."""
        remaining = share * sum(self._counts.values())
        for low, count in sorted(self._counts.items()):
            remaining -= count
            if remaining <= 0:
                width = 1 << max(low.bit_length() - 5, 0)
                return min(low + width, self.max_us)
        return 0


class Totals:
    """Counters since the endpoint began to listen."""

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
    """A file of JSON lines, which the loop flushes when it is idle."""

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
