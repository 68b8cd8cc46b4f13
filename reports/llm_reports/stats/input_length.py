"""The difference between the requested length of synthetic prompts and the input tokens that the server counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MOST_APART = 0.1
"""Largest difference of the means, as a share of the requested length, without a warning."""

_OTHER_PROMPTS = (
    "llm_prompt", "llm_prompts", "llm_length_mix", "llm_length_sweep", "llm_trace", "llm_conversations", "llm_images",
    "llm_shared_prefix",
)  # fmt: skip
"""Options with which the length of a prompt is not ``--llm-input-tokens``."""


def input_length_warning(name: str, manifest: Mapping[str, Any], mean: float) -> str:
    """Return a warning if the mean input length by the server's usage is not the requested one; "" otherwise.

    ``mean`` is that of the measured, successful requests, and NaN if the server counts no input tokens. A simulated
    endpoint that the run starts itself counts words, which is no reason for a warning.
    """
    options = manifest.get("options")
    if not isinstance(options, Mapping) or manifest.get("simulator"):
        return ""
    wanted = re.fullmatch(r"(\d+)(,.*)?", str(options.get("llm_input_tokens") or ""))
    if wanted is None or any(options.get(option) for option in _OTHER_PROMPTS):
        return ""
    if not abs(mean / int(wanted[1]) - 1) > MOST_APART:
        return ""
    return (
        f"{name}: the server counted {mean:.0f} input tokens per request on average, but --llm-input-tokens asked for "
        f"{wanted[1]}. Give the server's tokenizer (--llm-tokenizer)."
    )
