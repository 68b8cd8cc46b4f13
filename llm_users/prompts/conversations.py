"""Conversations with live answers: the user messages of every turn, from a file or generated from the sonnets.

It does not depend on Locust or gevent, or on how a turn is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from llm_users.distributions import Distribution
from llm_users.prompts.chat import Message, opened_with
from llm_users.prompts.draws import draw_cap, length_at, shuffled, stream
from llm_users.prompts.files import json_entries
from llm_users.prompts.input_files import stamp_of
from llm_users.prompts.items import HUMANS, SYSTEM, cap_of, names_of, request_of, role_and_text, shown
from llm_users.prompts.openings import Openings
from llm_users.prompts.prompt import PromptError, count_characters
from llm_users.prompts.tokenizer import Tokenizer

SHAPE = (
    'a conversation has one of "turns" (a list of texts), "messages" or "conversation" (lists of objects with "role" '
    'and "content") and "conversations" (ShareGPT\'s, with "from" and "value"); optionally "id" and "max_tokens"'
)
_FIELDS = ("turns", "messages", "conversation", "conversations")
_LONGEST_ID = 200

MOST_TURNS = 1009
"""Maximum number of turns of a generated conversation. It is prime, so that first lines spread over all sonnets."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The messages that a turn appends to the history, usually one user message, and the cap on the answer."""

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    answer: str | None = None  # the recorded answer; its length is the cap when there is no other cap


@dataclass(frozen=True, slots=True)
class Conversation:
    """Conversation ``index`` of a seeded sequence. ``id`` is unique."""

    index: int
    id: str
    turns: tuple[Turn, ...]

    def characters(self) -> int:
        """Return the approximate number of characters in the messages of all turns."""
        return sum(count_characters(turn.messages) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Script:
    """A conversation from a file."""

    id: str | None
    turns: tuple[Turn, ...]


@dataclass
class GivenConversations:
    """The conversations of a file, in a seeded order or in file order. All are used before one is repeated."""

    scripts: list[Script]
    tokenizer: Tokenizer | None
    output_lengths: Distribution | None
    seed: int
    openings: Openings
    in_order: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = range(len(self.scripts))
        self._order = list(numbers) if self.in_order else list(shuffled(stream(self.seed, "conversations"), numbers))

    @property
    def different(self) -> int | None:
        return len(self.scripts)

    @property
    def mean_turns(self) -> float:
        return sum(len(script.turns) for script in self.scripts) / len(self.scripts)

    def prompt(self, index: int) -> Conversation:
        script = self.scripts[self._order[index % len(self._order)]]
        turns = [replace(turn, max_tokens=self._cap(index, number, turn)) for number, turn in enumerate(script.turns)]
        if not self.openings.are_empty:
            opening = self.openings.text(index)
            turns[0] = replace(turns[0], messages=tuple(opened_with(opening, turns[0].messages)))
        return Conversation(index, f"{index}:{script.id}" if script.id else str(index), tuple(turns))

    def _cap(self, index: int, number: int, turn: Turn) -> int | None:
        if turn.max_tokens is not None:
            return turn.max_tokens
        if turn.answer is not None and self.tokenizer is not None:
            return max(1, self.tokenizer.count(turn.answer))
        return draw_cap(self.output_lengths, self.seed, _turn_index(index, number))


@dataclass(frozen=True)
class MadeConversations:
    """Conversations with ``turn_counts`` turns; every turn is a text of the sonnets with ``input_lengths`` tokens.

    ``first`` and ``further`` generate texts: (index, tokens, cap) -> text. ``first`` includes the opening of a prompt.
    """

    turn_counts: Distribution
    input_lengths: Distribution
    output_lengths: Distribution | None
    seed: int
    first: Callable[[int, int, int | None], str]
    further: Callable[[int, int, int | None], str]
    notes: tuple[str, ...] = ()
    different: int | None = None

    @property
    def mean_turns(self) -> float:
        return self.turn_counts.mean

    def prompt(self, index: int) -> Conversation:
        turns = []
        for number in range(min(MOST_TURNS, length_at(self.turn_counts, self.seed, index, "turns"))):
            turn_index = _turn_index(index, number)
            cap = draw_cap(self.output_lengths, self.seed, turn_index)
            make = self.further if number else self.first
            text = make(turn_index, length_at(self.input_lengths, self.seed, turn_index, "input"), cap)
            turns.append(Turn(({"role": "user", "content": text},), cap))
        return Conversation(index, str(index), tuple(turns))


def read_scripts(file: Path) -> tuple[list[Script], int]:
    """Return (conversations, number of skipped entries without a user message). Raises ``PromptError``.

    The result is cached while the file does not change; ``forget_scripts`` frees it.
    """
    return _read_scripts(file, stamp_of(file))


def forget_scripts() -> None:
    """Free the cached result of ``read_scripts``."""
    _read_scripts.cache_clear()


@lru_cache(maxsize=1)  # so that the check before the run and the run itself read a file only once
def _read_scripts(file: Path, _stamp: tuple[int, int] | None) -> tuple[list[Script], int]:
    what = f"conversations file {str(file)!r}"
    entries = [script_of(where, entry) for where, entry in json_entries(what, file, SHAPE)]
    scripts = [script for script in entries if script.turns]
    skipped = len(entries) - len(scripts)
    if not scripts:
        reason = f": none of its {skipped} entries has a user message" if skipped else ""
        raise PromptError(f"{what} has no conversations{reason}. Write one per line; {SHAPE}")
    return scripts, skipped


def script_of(where: str, entry: object) -> Script:
    """Return the entry as a conversation, without turns if it has no user message.

    ``where`` is the start of the error message. Raises ``PromptError``.
    """
    if not isinstance(entry, Mapping):
        raise PromptError(f"{where}: is {shown(entry)}; {SHAPE}")
    entry = request_of(where, entry)
    given = [name for name in _FIELDS if entry.get(name) is not None]
    if len(given) != 1:
        raise PromptError(f"{where}: has {' and '.join(given) or names_of(entry)}; {SHAPE}")
    cap = cap_of(where, entry)
    value = entry[given[0]]
    if not isinstance(value, list):
        raise PromptError(f'{where}: "{given[0]}" must be a list, not {shown(value)}; {SHAPE}')
    name = entry.get("id")
    name = None if name is None or name == "" else str(name)[:_LONGEST_ID]
    if given[0] == "turns":
        wrong = next((text for text in value if not isinstance(text, str)), None)
        if wrong is not None:
            raise PromptError(f'{where}: in "turns" is {shown(wrong)}, which is not a text; {SHAPE}')
        texts = [text for text in value if text.strip()]
        return Script(name, tuple(Turn(({"role": "user", "content": text},), cap) for text in texts))
    # The turns are the user messages, with preceding system messages; recorded answers only set the cap.
    turns: list[Turn] = []
    waiting: list[Message] = []
    for message in value:
        parsed = role_and_text(message)
        if parsed is None:
            raise PromptError(f'{where}: in "{given[0]}" is {shown(message)}, which is not a message; {SHAPE}')
        role, text = parsed
        content = message.get("content")
        kept: Any = content if isinstance(content, list) and content else text
        if role in SYSTEM and kept:
            waiting.append({"role": role, "content": kept})
        elif role in HUMANS and kept:
            turns.append(Turn((*waiting, {"role": "user", "content": kept}), cap))
            waiting = []
        elif turns and text and role not in HUMANS and turns[-1].answer is None:
            turns[-1] = replace(turns[-1], answer=text)
    return Script(name, tuple(turns))


def _turn_index(index: int, number: int) -> int:
    """Return a unique index for every turn of every conversation, for random draws."""
    return index * MOST_TURNS + number
