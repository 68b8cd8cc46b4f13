"""Quotas of a provider per model: what an endpoint served beside throttled requests, and AWS Bedrock's rules."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

MINUTE_S = 60.0
"""Quotas count requests and tokens per minute."""

STEADY_STAGE = "--llm-stage-time 180s"
"""The option for stages that are long enough for steady figures per minute."""

_PROFILE = re.compile(r"(?:global|us|us-gov|eu|apac|jp|au|ca|sa|me|af|il|in|uk)\.(?=[a-z0-9-]+\.)")
"""The beginning of the id of one of AWS's inference profiles. ``global.`` routes to all regions."""

_FIVEFOLD_OUTPUT = re.compile(r"anthropic\.claude-(?!v\d|instant|3-(?:opus|sonnet|haiku|5))")
"""Claude 3.7 and later: AWS documents a burndown rate of 5 for their output tokens (read in November 2026)."""


_LONG_QUOTA = re.compile(r"\b(?:per|a|each) (?:day|month)\b|\bdaily\b|\b[RT]PD\b|exceeded your current quota", re.I)
"""Words of quotas that refill after hours, or when they are paid: Bedrock's "Too many tokens per day", OpenAI's
"requests per day (RPD)" and "You exceeded your current quota"."""


def recovers_after_hours(message: str) -> bool:
    """Return whether the message of a throttled request is about a quota that does not recover within a run."""
    return _LONG_QUOTA.search(message) is not None


def output_burndown(model: str) -> int:
    """Return how many tokens of Bedrock's quota per minute each output token of a model uses."""
    return 5 if _FIVEFOLD_OUTPUT.search(model) else 1


def separate_quotas(models: Iterable[str]) -> str:
    """Return a sentence with what has separate quotas on Bedrock for all of these models."""
    profiles = [_PROFILE.match(model.rpartition("/")[2]) for model in models]
    prefixes = {profile.group() if profile is not None else "" for profile in profiles}
    if "global." in prefixes:
        return "On Bedrock, another region (--llm-region) has separate quotas"
    other = "global.MODEL" if prefixes - {""} else "us.MODEL or global.MODEL"
    return (
        f"On Bedrock, another region (--llm-region) and {'the' if prefixes - {''} else 'an'} inference profile "
        f"(--llm-model {other}) have quotas of their own"
    )


@dataclass(frozen=True, slots=True)
class ServedRate:
    """What an endpoint served per minute in one stage. Tokens are those of requests that succeeded.

    Without ``is_quota``, it includes the burst that a full quota allows at the start, and is higher than the quota.
    """

    stage: int
    requests: float
    input_tokens: float
    output_tokens: float
    is_quota: bool

    @property
    def tokens(self) -> float:
        return self.input_tokens + self.output_tokens

    def text(self, model: str = "") -> str:
        """Return the rate as a sentence without a full stop; ``model`` is named if it is given."""
        whose = f" of {model}" if model else ""
        amounts = (
            f"about {_rounded(self.requests)} requests and {_rounded(self.tokens)} tokens per minute "
            f"({_rounded(self.input_tokens)} input, {_rounded(self.output_tokens)} output)"
        )
        if self.is_quota:
            return (
                f"The quota found{whose}: between the first and the last throttled request of stage {self.stage}, the "
                f"endpoint served {amounts}"
            )
        return (
            f"Served{whose} in stage {self.stage}, including the burst at the start: {amounts}; not the quota. To find "
            f"the quota, measure at least 3 minutes ({STEADY_STAGE})"
        )


@dataclass(slots=True)
class _Stage:
    """The requests of one stage: those that were served by the second of their start, and when others were throttled.

    Times are seconds of the wall clock; ``throttled_*`` are starts of throttled requests.
    """

    served: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    from_s: float = math.inf
    to_s: float = -math.inf
    throttled_from_s: float = math.inf
    throttled_to_s: float = -math.inf
    throttled: int = 0

    def rate(self, stage: int) -> ServedRate | None:
        """Return what was served while the quota was used up, or else in the whole stage; None without a duration.

        The quota is used up at a throttled request, so what the endpoint admits from the first to the last of them is
        what refills the quota.
        """
        if not self.throttled or not self.served:
            return None
        is_quota = self.throttled_to_s - self.throttled_from_s >= MINUTE_S
        if is_quota:
            begin, end = math.ceil(self.throttled_from_s), math.floor(self.throttled_to_s)
            counted = [amounts for second, amounts in self.served.items() if begin <= second < end]
            length_s = float(end - begin)
        else:
            counted, length_s = list(self.served.values()), self.to_s - self.from_s
        if length_s <= 0:
            return None
        requests, given, answered = (
            MINUTE_S * sum(amounts[index] for amounts in counted) / length_s for index in range(3)
        )
        return ServedRate(stage, requests, given, answered, is_quota)


class ServedBesideThrottled:
    """What an endpoint served of one model while it throttled other requests of the same model."""

    def __init__(self) -> None:
        self._stages: defaultdict[int, _Stage] = defaultdict(_Stage)

    def add_served(self, stage: int, started_at: float, duration_s: float, given: int, answered: int) -> None:
        """Add a request that succeeded, with its input and output tokens. ``started_at`` is in Unix seconds."""
        own = self._stages[stage]
        amounts = own.served[math.floor(started_at)]
        amounts[0] += 1
        amounts[1] += given
        amounts[2] += answered
        own.from_s, own.to_s = min(own.from_s, started_at), max(own.to_s, started_at + duration_s)

    def add_throttled(self, stage: int, started_at: float | None) -> None:
        """Add a throttled request."""
        own = self._stages[stage]
        own.throttled += 1
        if started_at is not None:
            own.throttled_from_s = min(own.throttled_from_s, started_at)
            own.throttled_to_s = max(own.throttled_to_s, started_at)

    def rate(self) -> ServedRate | None:
        """Return the rate of the throttled stage with the most tokens, if possible of one that shows the quota."""
        rates = [rate for stage, own in self._stages.items() if (rate := own.rate(stage)) is not None]
        return max(rates, key=lambda rate: (rate.is_quota, rate.tokens, rate.requests), default=None)


def _rounded(number: float) -> str:
    return f"{float(f'{number:.3g}'):,.0f}"
