"""Calculates when the next token is due: base times, jitter, and the slowdown of a server above its capacity.

It does not depend on the clock, on sockets or on the content of tokens.
"""

from __future__ import annotations

import math
import random

from llm_users.simulator.spec import Spec


class Pace:
    """Delays in nanoseconds for one answer.

    The answer's number seeds the jitter, so that it does not depend on concurrent answers.
    """

    __slots__ = ("_capacity", "_itl_ns", "_rng", "_sigma", "_ttft_ns")

    def __init__(self, spec: Spec, number: int) -> None:
        self._ttft_ns = round(spec.ttft_s * 1e9)
        self._itl_ns = round(spec.itl_s * 1e9)
        self._capacity = spec.capacity
        self._sigma = spec.jitter
        self._rng = random.Random(f"pace {spec.seed} {number}") if spec.jitter else None

    def first_ns(self) -> int:
        return self._ttft_ns if self._rng is None else round(self._ttft_ns * self._factor(self._rng))

    def gap_ns(self, tokens: int, active: int) -> int:
        """Return the delay from a chunk of ``tokens`` tokens to the next one, with ``active`` active answers."""
        gap_ns = self._itl_ns * tokens
        if self._capacity and active > self._capacity:
            gap_ns = round(gap_ns * active / self._capacity)
        return gap_ns if self._rng is None else round(gap_ns * self._factor(self._rng))

    def _factor(self, rng: random.Random) -> float:
        # exp(N(-s^2/2, s)) has mean 1: jitter must not change the average speed.
        return math.exp(rng.gauss(0.0, self._sigma) - self._sigma**2 / 2)
