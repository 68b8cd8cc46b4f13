"""Conversations whose answers are live: what a user says turn by turn, from a file or made of the sonnets.

Knows neither Locust nor gevent, nor how a turn is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from llm_users.distributions import Distribution
from llm_users.prompts.chat import Message, opened_with
from llm_users.prompts.files import json_entries
from llm_users.prompts.input_files import stamp_of
from llm_users.prompts.items import HUMANS, SYSTEM, cap_of, names_of, request_of, role_and_text, shown
from llm_users.prompts.lengths import draw_cap, length_at
from llm_users.prompts.openings import Openings
from llm_users.prompts.order import shuffled, stream
from llm_users.prompts.prompt import PromptError, count_characters
from llm_users.prompts.tokenizer import Tokenizer

SHAPE = (
    'a conversation has one of "turns" (a list of texts), "messages" or "conversation" (lists of objects with "role" '
    'and "content") and "conversations" (ShareGPT\'s, with "from" and "value"); optionally "id" and "max_tokens"'
)
_FIELDS = ("turns", "messages", "conversation", "conversations")
_LONGEST_ID = 200

MOST_TURNS = 1009
"""Of a made conversation. A prime, so that its turns begin with lines all over the sonnets."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is put behind the history, one message of the user as a rule, and the cap on the answer to it."""

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    answer: str | None = None  # the recorded one, whose length is the cap when there is no other


@dataclass(frozen=True, slots=True)
class Conversation:
    """Conversation ``index`` of a seeded sequence. ``id`` is different for every index."""

    index: int
    id: str
    turns: tuple[Turn, ...]

    def characters(self) -> int:
        """About how much text the messages of all turns are."""
        return sum(count_characters(turn.messages) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Script:
    """A conversation as a file has it."""

    id: str | None
    turns: tuple[Turn, ...]


class ConversationSource(Protocol):
    """A seeded sequence of conversations. ``prompt`` is a pure function of the seed and the index, as for prompts."""

    @property
    def different(self) -> int | None: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def mean_turns(self) -> float: ...

    def prompt(self, index: int) -> Conversation: ...


@dataclass
class GivenConversations:
    """Those of a file in turn, all used before any comes again: in a seeded order, or as they stand."""

    scripts: list[Script]
    tokenizer: Tokenizer | None
    output_lengths: Distribution | None
    seed: int
    openings: Openings
    in_order: bool = False
    notes: tuple[str, ...] = ()
    _order: list[int] = field(init=False)

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
        turns = [replace(turn, max_tokens=self._cap(index, place, turn)) for place, turn in enumerate(script.turns)]
        if not self.openings.are_empty:
            opening = self.openings.text(index)
            turns[0] = replace(turns[0], messages=tuple(opened_with(opening, turns[0].messages)))
        return Conversation(index, f"{index}:{script.id}" if script.id else str(index), tuple(turns))

    def _cap(self, index: int, place: int, turn: Turn) -> int | None:
        if turn.max_tokens is not None:
            return turn.max_tokens
        if turn.answer is not None and self.tokenizer is not None:
            return max(1, self.tokenizer.count(turn.answer))
        return draw_cap(self.output_lengths, self.seed, _place(index, place))


@dataclass(frozen=True)
class MadeConversations:
    """Conversations with ``turn_counts`` turns; each turn is a text of the sonnets with ``input_lengths`` tokens.

    ``first`` and ``further`` make texts: (index, tokens, cap) -> text. The first one has what opens a prompt.
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
        count = min(MOST_TURNS, length_at(self.turn_counts, self.seed, index, "turns"))
        return Conversation(index, str(index), tuple(self._turn(index, place) for place in range(count)))

    def _turn(self, index: int, place: int) -> Turn:
        number = _place(index, place)
        cap = draw_cap(self.output_lengths, self.seed, number)
        make = self.further if place else self.first
        text = make(number, length_at(self.input_lengths, self.seed, number, "input"), cap)
        return Turn(({"role": "user", "content": text},), cap)


def read_scripts(file: Path) -> tuple[list[Script], int]:
    """(conversations, entries left out because no user says anything in them). Raises ``PromptError``.

    The same one again, in a file that has not changed, is there at once; ``forget_scripts`` frees it.
    """
    return _read_scripts(file, stamp_of(file))


def forget_scripts() -> None:
    """Free what ``read_scripts`` keeps for its next caller."""
    _read_scripts.cache_clear()


@lru_cache(maxsize=1)  # the check before the run and the run itself, in one process, read a file once
def _read_scripts(file: Path, _stamp: tuple[int, int] | None) -> tuple[list[Script], int]:
    scripts, skipped, what = [], 0, f"conversations file {str(file)!r}"
    for where, entry in json_entries(what, file, SHAPE):
        script = script_of(where, entry)
        if script.turns:
            scripts.append(script)
        else:
            skipped += 1
    if not scripts:
        because = f": in none of its {skipped} a user says anything" if skipped else ""
        raise PromptError(f"{what} has no conversations{because}. Put one on each line; {SHAPE}")
    return scripts, skipped


def script_of(where: str, entry: object) -> Script:
    """The entry as a conversation; without turns where no user says anything. ``where`` begins errors."""
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
        wrong = next((each for each in value if not isinstance(each, str)), None)
        if wrong is not None:
            raise PromptError(f'{where}: in "turns" is {shown(wrong)}, which is not a text; {SHAPE}')
        said = [text for text in value if text.strip()]
        return Script(name, tuple(Turn(({"role": "user", "content": text},), cap) for text in said))
    return Script(name, tuple(_turns_of(where, given[0], value, cap)))


def _turns_of(where: str, field_name: str, recorded: list[Any], cap: int | None) -> list[Turn]:
    """The user's messages; system messages stay before them, recorded answers only say how long an answer is."""
    turns: list[Turn] = []
    waiting: list[Message] = []
    for message in recorded:
        found = role_and_text(message)
        if found is None:
            raise PromptError(f'{where}: in "{field_name}" is {shown(message)}, which is not a message; {SHAPE}')
        role, text = found
        content = message.get("content")
        said: Any = content if isinstance(content, list) and content else text
        if role in SYSTEM and said:
            waiting.append({"role": role, "content": said})
        elif role in HUMANS and said:
            turns.append(Turn((*waiting, {"role": "user", "content": said}), cap))
            waiting = []
        elif turns and text and role not in HUMANS and turns[-1].answer is None:
            turns[-1] = replace(turns[-1], answer=text)
    return turns


def _place(index: int, place: int) -> int:
    """A number of its own for every turn of every conversation, for what is drawn."""
    return index * MOST_TURNS + place
