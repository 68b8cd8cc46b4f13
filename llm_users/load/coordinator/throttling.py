"""The throttled requests of a run: advice at its end, and quotas that do not recover within it."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from llm_users.outcome import Outcome
from llm_users.record import RequestRecord
from llm_users.secrets import redact

_MINUTE_S = 60.0
_MOST_CHARACTERS = 200

_LONG_QUOTA = re.compile(r"\b(?:per|a|each) (?:day|month)\b|\bdaily\b|\b[RT]PD\b|exceeded your current quota", re.I)
"""Words of quotas that refill after hours, or when they are paid: Bedrock's "Too many tokens per day", OpenAI's
"requests per day (RPD)" and "You exceeded your current quota"."""

_FOR_ALL = (
    "Lower the load (fewer users in --llm-sweep, or --llm-rate), or ask for a larger quota: the section "
    '"For a quota request" of the report has the numbers'
)
_ON_BEDROCK = (
    "On Bedrock, another region (--llm-region) and an inference profile (--llm-model us.MODEL or global.MODEL) have "
    "quotas of their own"
)


@dataclass(slots=True)
class _Served:
    """What the endpoint served in one stage, and the time from the first start to the last end."""

    requests: int = 0
    tokens: int = 0
    throttled: int = 0
    from_s: float = math.inf
    to_s: float = -math.inf

    def add(self, record: RequestRecord) -> None:
        self.requests += 1
        self.tokens += (record.input_tokens or 0) + (record.output_tokens or 0)
        if record.started_at is not None:
            self.from_s = min(self.from_s, record.started_at)
            self.to_s = max(self.to_s, record.started_at + (record.end_to_end_latency_s or 0.0))

    def per_minute(self, amount: int) -> float:
        return amount * _MINUTE_S / (self.to_s - self.from_s) if self.to_s > self.from_s else math.nan


class Throttling:
    """The throttled requests of one run. ``on_bedrock`` adds what helps there."""

    def __init__(self, *, on_bedrock: bool = False) -> None:
        self._on_bedrock = on_bedrock
        self._stages: defaultdict[int, _Served] = defaultdict(_Served)
        self._requests = self._throttled = 0
        self._message = ""
        self.long_quota: str | None = None
        """The message of an exceeded quota that does not recover within a run, such as a daily quota."""

    def add(self, record: RequestRecord) -> None:
        """Add the row of a request."""
        self._requests += 1
        if record.outcome is Outcome.THROTTLED:
            message = record.error_message or record.error_code or ""
            self._throttled += 1
            self._stages[record.stage].throttled += 1
            self._message = self._message or message
            if self.long_quota is None and _LONG_QUOTA.search(message):
                self.long_quota = redact(message[:_MOST_CHARACTERS])
        elif record.ok:
            self._stages[record.stage].add(record)

    def advice(self) -> str | None:
        """Return how much was throttled, the quota that shows in the served requests, and what to do; None if none was.

        The quota is that of the stage with the highest served rate among those with throttled requests.
        """
        if not self._throttled:
            return None
        parts = [
            f"{self._throttled} of {self._requests} requests were throttled, the first one with "
            f"{redact(self._message[:_MOST_CHARACTERS])!r}"
        ]
        rates = [
            (served.per_minute(served.tokens), served.per_minute(served.requests), stage)
            for stage, served in self._stages.items()
            if served.throttled and math.isfinite(served.per_minute(served.requests))
        ]
        if rates and self.long_quota is None:
            tokens, requests, stage = max(rates)
            parts.append(
                f"The quota found: in stage {stage} the endpoint served about {_rounded(requests)} requests and "
                f"{_rounded(tokens)} tokens (input and output) per minute"
            )
        parts.append(_FOR_ALL)
        if self._on_bedrock:
            parts.append(_ON_BEDROCK)
        return ". ".join(parts)


def _rounded(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"
