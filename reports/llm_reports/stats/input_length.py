"""The difference between the requested length of synthetic prompts and the input tokens that the server counted."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llm_reports.metrics.outcomes import succeeded
from llm_reports.run import Run
from llm_users.record import COL

MOST_APART = 0.1
"""Largest difference of the means, as a share of the requested length, without a warning."""

_OTHER_PROMPTS = (
    "llm_prompt", "llm_prompts", "llm_length_mix", "llm_length_sweep", "llm_trace", "llm_conversations", "llm_images",
    "llm_shared_prefix",
)  # fmt: skip
"""Options with which the length of a prompt is not ``--llm-input-tokens``."""


def input_length_warning(run: Run) -> str:
    """Return a warning if the mean input length by the server's usage is not the requested one; "" otherwise."""
    options = run.manifest.get("options")
    if not isinstance(options, Mapping) or any(options.get(name) for name in _OTHER_PROMPTS):
        return ""
    wanted = re.fullmatch(r"(\d+)(,.*)?", str(options.get("llm_input_tokens") or ""))
    rows = run.requests
    counted = rows[COL.input_tokens][(rows[COL.input_tokens_source] == "usage") & succeeded(rows[COL.error_code])]
    mean = float(counted.dropna().mean()) if len(counted.dropna()) else 0.0
    if wanted is None or not mean or abs(mean / int(wanted[1]) - 1) <= MOST_APART:
        return ""
    remedy = (
        f"The simulator counts words; give --llm-input-tokens {round(int(wanted[1]) ** 2 / mean)} to send as many"
        if run.manifest.get("simulator")
        else "Give the server's tokenizer (--llm-tokenizer)"
    )
    return (
        f"{run.name}: the server counted {mean:.0f} input tokens per request on average, but --llm-input-tokens "
        f"asked for {wanted[1]}. {remedy}."
    )
