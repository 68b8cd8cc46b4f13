"""Combine the usage in the events of one answer of OpenAI's chat or legacy completions.

The module handles usage fields; it does not depend on the transport or on Locust.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_users.users.chunks import Chunks
from llm_users.users.token_counts import MOST_TOKENS, count

_OUTPUT, _DETAILS, _REASONING = "completion_tokens", "completion_tokens_details", "reasoning_tokens"


class OpenAIUsage:
    """Accumulates the usage objects of one answer.

    Most servers send one usage object for the whole answer. With several choices (``n``) some send one per choice:
    llama.cpp as an event without choices right after the choice's finish reason, Moonshot inside the choice, and vLLM
    (if the request asks for usage in every chunk) in the events of one choice, with the whole answer's at the end.
    """

    def __init__(self) -> None:
        self._latest: dict[str, Any] | None = None
        self._whole = False  # an event without choices had the count of the whole answer
        self._with_choice: dict[int, dict[str, Any]] = {}
        self._after_finish: dict[int, dict[str, Any]] = {}

    def take(self, usage: dict[str, Any], *, choice: int | None = None, finished: int | None = None) -> None:
        """Add a usage object.

        ``choice``: the only choice of the event. ``finished``: the choice that ended with the previous event.
        """
        self._latest = merged(self._latest, usage)
        if choice is not None:
            self._with_choice[choice] = merged(self._with_choice.get(choice), usage)
        elif count(usage.get(_OUTPUT)):
            self._whole = True
            if finished is not None:
                self._after_finish[finished] = merged(self._after_finish.get(finished), usage)

    @property
    def counted(self) -> bool:
        """True if a usage object had the number of output tokens."""
        return self._latest is not None and bool(count(self._latest.get(_OUTPUT)))

    @property
    def of_choices(self) -> dict[int, dict[str, Any]]:
        """Usage that followed the finish reasons of several choices, by choice."""
        return self._after_finish if len(self._after_finish) > 1 else {}

    def of_answer(self, chunks: Chunks) -> dict[str, Any] | None:
        """Return the usage of the whole answer; None if the server sent none."""
        by_choice = self.of_choices or ({} if self._whole else self._with_choice)
        if len(by_choice) > 1 and _are_of_choices(by_choice, chunks):
            return _sum(by_choice.values())
        return self._latest


def merged(earlier: dict[str, Any] | None, later: dict[str, Any]) -> dict[str, Any]:
    """Return the later usage; where it has zero or no valid count, the earlier count is kept."""
    if earlier is None or _replaces(earlier, later):
        return later  # the usual case for servers that send usage with every chunk
    result = _without_zeros(earlier, later)
    for name, details in later.items():
        earlier_details = earlier.get(name)
        if isinstance(details, dict) and isinstance(earlier_details, dict):
            result[name] = _without_zeros(earlier_details, details)
    return result


def _replaces(earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Return True if the later usage has all counts, so that it replaces the earlier one. This check is fast."""
    if len(earlier) != len(later):
        return False
    for name, value in later.items():
        if type(value) is not int or not 0 < value < MOST_TOKENS or name not in earlier:
            return False
    return True


def _without_zeros(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    return {**earlier, **{name: value for name, value in later.items() if count(value) or not count(earlier.get(name))}}


def _are_of_choices(by_choice: Mapping[int, dict[str, Any]], chunks: Chunks) -> bool:
    """Return True if the counts are per choice, False if each one is the running count of the whole answer.

    A chunk has at least one token, so a count below the number of all chunks is not the whole answer's. A higher count
    can belong to a choice if it fits: one token per chunk of the choice, plus its stop token.
    """
    places = chunks.places
    counts = {choice: count(usage.get(_OUTPUT)) or 0 for choice, usage in by_choice.items()}
    return max(counts.values()) < len(chunks.texts) or all(
        tokens <= len(places.get(choice, ())) + 1 for choice, tokens in counts.items()
    )


def _sum(usages: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return one usage for all choices: they share the prompt, and their output tokens are added."""
    result: dict[str, Any] = {}
    output = reasoning = non_prompt = 0
    for usage in usages:
        result = merged(result, usage)
        prompt, total = count(usage.get("prompt_tokens")) or 0, count(usage.get("total_tokens")) or 0
        output += count(usage.get(_OUTPUT)) or 0
        non_prompt += max(0, total - prompt)
        details = usage.get(_DETAILS)
        reasoning += count(details.get(_REASONING)) or 0 if isinstance(details, dict) else 0
    result |= {_OUTPUT: output, "total_tokens": (count(result.get("prompt_tokens")) or 0) + non_prompt}
    if reasoning:
        result[_DETAILS] = {_REASONING: reasoning}
    return result
