"""The types for prompts: a prompt, the interface of a prompt source, and the error for invalid input.

It does not depend on the source of prompts, on tokenizers or on how a prompt is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol


class PromptError(ValueError):
    """Invalid input for prompts. The message names the problem, its position and the solution."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message without the full stop at its end, for another message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def count_characters(value: Any) -> int:
    """Return the number of characters of all texts in nested lists and mappings, such as a list of messages."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(count_characters, value.values()))
    if isinstance(value, Sequence):
        return sum(map(count_characters, value))
    return 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt ``index`` of a seeded sequence, with either ``text`` or ``messages``, never both."""

    index: int
    text: str | None  # the user's text
    messages: list[dict[str, Any]] | None = None
    input_tokens: int | None = None  # tokens without chat template and special tokens; None when unknown
    max_tokens: int | None = None  # the output cap to send; None: no cap

    def capped(self, max_tokens: int | None) -> Prompt:
        """Return the prompt with this output cap."""
        return self if max_tokens == self.max_tokens else replace(self, max_tokens=max_tokens)

    def characters(self) -> int:
        """Return the approximate number of characters; images count with the characters of their encoding."""
        return len(self.text) if self.text is not None else count_characters(self.messages or ())


class PromptSource(Protocol):
    """A seeded sequence of prompts. ``prompt`` is a pure function of the seed and the index, and thread-safe."""

    @property
    def different(self) -> int | None:
        """The number of prompts before they repeat, if that requires a note; otherwise None."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about the source."""

    def prompt(self, index: int) -> Prompt: ...
