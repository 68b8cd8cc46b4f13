"""The throttled requests of a run: advice at its end, and quotas that do not recover within it."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable
from statistics import fmean

from llm_users.outcome import Outcome
from llm_users.quota import ServedBesideThrottled, recovers_after_hours, separate_quotas
from llm_users.record import RequestRecord
from llm_users.secrets import redact

_MOST_CHARACTERS = 200

_LOWER_THE_LOAD = "Lower the load (fewer users in --llm-sweep, or --llm-rate), or ask for a larger quota"
_SECTION = 'the section "For a quota request" of the report has the numbers'
_MOST_LENGTHS = 1000
"""The number of lengths that are drawn for a mean, which takes 20 ms."""
_FEWEST_LENGTHS, _LONGER = 20, 1.02
"""Throttled requests are called longer if there are this many of both kinds and their means differ by 2 %."""
_LATER = "The quota does not recover within a run: repeat the run when it is full again, or ask for a larger one"


class Throttling:
    """The throttled requests of one run.

    ``on_bedrock`` adds what helps there. ``input_length`` returns the input tokens that the options define for the
    prompt with an index; without it, the lengths of served and throttled requests are not compared.
    """

    def __init__(self, *, on_bedrock: bool = False, input_length: Callable[[int], int] | None = None) -> None:
        self._input_length = input_length
        self._served_prompts, self._throttled_prompts = array("q"), array("q")  # from the first throttled request on
        self._on_bedrock = on_bedrock
        self._models: defaultdict[str, ServedBesideThrottled] = defaultdict(ServedBesideThrottled)
        self._throttled_models: set[str] = set()
        self._requests = self._throttled = self._ok = 0
        self._message = ""
        self.long_quota: str | None = None
        """The message of an exceeded quota that does not recover within a run, such as a daily quota."""

    def add(self, record: RequestRecord) -> None:
        """Add the row of a request."""
        self._requests += 1
        if record.outcome is Outcome.THROTTLED:
            message = (record.error_message or record.error_code or "").strip()
            self._throttled += 1
            self._throttled_models.add(record.model)
            self._models[record.model].add_throttled(record.stage, record.started_at)
            if record.prompt_index is not None:
                self._throttled_prompts.append(record.prompt_index)
            self._message = self._message or message
            if self.long_quota is None and recovers_after_hours(message):
                self.long_quota = redact(message[:_MOST_CHARACTERS])
        elif record.ok:
            self._ok += 1
            if self._throttled and record.prompt_index is not None:
                self._served_prompts.append(record.prompt_index)
            if record.started_at is not None:
                self._models[record.model].add_served(
                    record.stage,
                    record.started_at,
                    record.end_to_end_latency_s or 0.0,
                    record.input_tokens or 0,
                    record.output_tokens or 0,
                )

    def advice(self) -> str | None:
        """Return how much was throttled, the quota of each throttled model, and what to do; None if nothing was."""
        if not self._throttled:
            return None
        parts = [
            f"{self._throttled} of {self._requests} requests were throttled, the first one with "
            f"{redact(self._message[:_MOST_CHARACTERS])!r}"
        ]
        if longer := self._longer():
            parts.append(longer)
        if self.long_quota is not None:
            parts.append(_LATER)
        else:
            for model in sorted(self._throttled_models):
                if (rate := self._models[model].rate()) is not None:
                    parts.append(rate.text(model if len(self._models) > 1 else ""))
            parts.append(f"{_LOWER_THE_LOAD}: {_SECTION}" if self._ok else _LOWER_THE_LOAD)
        if self._on_bedrock:
            parts.append(separate_quotas(self._throttled_models))
        return ". ".join(parts)

    def _longer(self) -> str | None:
        """Return a sentence if the endpoint throttled long requests more often than short ones."""
        served, refused = self._served_prompts, self._throttled_prompts
        if self._input_length is None or min(len(served), len(refused)) < _FEWEST_LENGTHS:
            return None
        served_tokens, refused_tokens = (self._mean_length(prompts) for prompts in (served, refused))
        if refused_tokens < _LONGER * served_tokens:
            return None
        return (
            f"Long requests were throttled more often: they request {refused_tokens:,.0f} input tokens on average, and "
            f"those that were served beside them {served_tokens:,.0f}, so this run's mean lengths and costs are too low"
        )

    def _mean_length(self, prompts: array[int]) -> float:
        assert self._input_length is not None
        return fmean(self._input_length(index) for index in prompts[:: -(-len(prompts) // _MOST_LENGTHS)])
