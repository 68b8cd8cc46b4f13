"""Quotas of input and output tokens per minute and model, without a quota of requests.

They follow AWS's description of the bedrock-mantle endpoint: a request is admitted if its uncached input and its cap
on output tokens fit into the input quota, output tokens count against the output quota, and the unused part of the cap
returns at the end of the answer. AWS does not publish how a minute is measured. Here, each quota is a token bucket
that holds one minute's quota at the start and refills evenly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from llm_users.simulator.answer import Answer, WireAnswer
from llm_users.simulator.spec import Spec

INPUT, OUTPUT = "input tokens per minute", "output tokens per minute"


class _Bucket:
    """The tokens left of one quota. Without a quota (0 per minute), it is never empty."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._since_s = now_s

    def has(self, tokens: int, now_s: float) -> bool:
        if not self._per_minute:
            return True
        self._left = min(self._left + (now_s - self._since_s) * self._per_minute / 60, self._per_minute)
        self._since_s = now_s
        return self._left >= tokens

    def take(self, tokens: int) -> None:
        """Take tokens out, or put them back if the number is negative. The rest may become negative."""
        self._left -= tokens


@dataclass(slots=True)
class _Reservation:
    input: _Bucket
    output: _Bucket
    cap: int


class TokenQuotas:
    """The quotas of all models of an endpoint."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._models: dict[str, tuple[_Bucket, _Bucket]] = {}
        self._reservations: dict[int, _Reservation] = {}

    def exceeded(self, answer: WireAnswer, model: str) -> str:
        """Return the quota that rejects the request of this answer; empty: the request is admitted and counts."""
        spec = self._spec
        if not (spec.input_tpm or spec.output_tpm):
            return ""
        now_s = time.monotonic()
        if model not in self._models:
            self._models[model] = (_Bucket(spec.input_tpm, now_s), _Bucket(spec.output_tpm, now_s))
        input_bucket, output_bucket = self._models[model]
        wanted = answer.prompt_tokens - min(spec.cached, answer.prompt_tokens) + answer.cap
        if not input_bucket.has(wanted, now_s):
            return INPUT
        if not output_bucket.has(1, now_s):
            return OUTPUT
        input_bucket.take(wanted)
        self._reservations[answer.number] = _Reservation(input_bucket, output_bucket, answer.cap)
        return ""

    def settle(self, answer: Answer, sent_tokens: int) -> None:
        """Count the output of an answer that has ended, and give the unused part of its cap back."""
        reservation = self._reservations.pop(answer.number, None)
        if reservation is not None:
            reservation.input.take(sent_tokens - reservation.cap)
            reservation.output.take(sent_tokens)


def message(quota: str, model: str) -> str:
    """Return the text of the error: the sentence of bedrock-runtime, and the quota with its name in Service Quotas."""
    return f"Too many tokens, please wait before trying again. Quota exceeded: {quota} for {model}"
