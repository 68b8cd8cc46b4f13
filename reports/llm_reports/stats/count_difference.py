"""The difference between the two counts of output tokens: the server's usage, and the client's tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

NOTED_FROM = 0.05
"""The relative difference of the totals above which a note is shown."""

_SAME_FACTOR = 0.05
"""Answers have a constant factor if the middle 80 % of their factors are within this share of the median."""

_FEW_ANSWERS = 3
"""With fewer answers, their factors do not show a reason."""

_LONG_ANSWER = 10.0
"""In tokens. A factor of a shorter answer depends on single tokens."""


def count_difference(usage: Floats, counted: Floats, reasoning: Floats) -> str:
    """Return by how much usage and count differ, and the probable reason; "" up to 5 % or without both counts.

    The arrays have one value per answer, NaN if it is missing. ``reasoning`` are the reasoning tokens that the server
    reports.
    """
    both = ~(np.isnan(usage) | np.isnan(counted))
    usage, counted, reasoning = usage[both], counted[both], np.nan_to_num(reasoning[both])
    of_usage, of_count = float(usage.sum()), float(counted.sum())
    if max(of_usage, of_count) <= 0 or abs(of_usage - of_count) <= NOTED_FROM * of_count:
        return ""
    size = f"{of_usage / of_count - 1:+.0%} " if of_count else ""
    totals = f"usage {of_usage:,.0f}, counted {of_count:,.0f}, {size}in {len(usage)} answers"
    return f"{totals}: {_reason(usage, counted, reasoning)}"


def _reason(usage: Floats, counted: Floats, reasoning: Floats) -> str:
    more = usage - counted
    hidden = float(reasoning.sum())
    if hidden and abs(float(more.sum()) - hidden) <= NOTED_FROM * float(usage.sum()):
        return f"the server reports {hidden:,.0f} reasoning tokens, which it does not show"
    if np.mean(more == 1) >= 0.9:
        return "one token more per answer, such as the stop token"
    long = counted >= _LONG_ANSWER
    if long.sum() >= _FEW_ANSWERS:
        factors = usage[long] / counted[long]
        low, middle, high = np.quantile(factors, [0.1, 0.5, 0.9])
        if high - low <= _SAME_FACTOR * middle and len(np.unique(counted[long])) > 1:
            return (
                f"a constant factor of {middle:.2f}, as from another vocabulary; set --llm-tokenizer to the model's "
                "own tokenizer, and if the factor remains, the server counts differently"
            )
    if more.sum() < 0:
        return "usage is lower, as from another vocabulary, or from usage without a part of the output"
    return "the factor differs between answers, as with hidden reasoning that the server does not report separately"
