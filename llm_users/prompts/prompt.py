"""What a prompt is, what gives prompts, and how a bad one is reported.

Knows nothing of where prompts come from, of tokenizers or of how a prompt is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class PromptError(ValueError):
    """Bad input for prompts. The message says what was wrong, where, and what to do."""


def count_characters(value: Any) -> int:
    """The characters of all texts in a structure of lists and tables, such as a list of messages."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(count_characters, value.values()))
    if isinstance(value, Sequence):
        return sum(map(count_characters, value))
    return 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt ``index`` of a seeded sequence: either ``text`` or ``messages`` is given, never both."""

    index: int
    text: str | None  # the user's text
    messages: list[dict[str, Any]] | None = None
    input_tokens: int | None = None  # of the text, without chat template and special tokens; None when unknown
    max_tokens: int | None = None  # the output cap to send; None: no cap

    def characters(self) -> int:
        """About how much text it is; images count with the text that encodes them."""
        return len(self.text) if self.text is not None else count_characters(self.messages or ())


class PromptSource(Protocol):
    """A seeded sequence of prompts. ``prompt`` is a pure function of the seed and the index, safe in any thread."""

    @property
    def different(self) -> int | None:
        """How many there are before they come again, where that is worth a note; else None."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about where they come from."""

    def prompt(self, index: int) -> Prompt: ...
