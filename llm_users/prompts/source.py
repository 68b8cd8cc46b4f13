"""The user's prompts (a fixed text or the items of a dataset) as a seeded sequence.

It does not depend on files or on how a prompt is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_users.distributions import Distribution
from llm_users.prompts.chat import count_messages, is_text_only, opened_with
from llm_users.prompts.draws import draw_cap, shuffled, stream
from llm_users.prompts.files import DataSet
from llm_users.prompts.items import Item, skipped_note
from llm_users.prompts.openings import Openings
from llm_users.prompts.prompt import Prompt, PromptError
from llm_users.prompts.tokenizer import Tokenizer


@dataclass(eq=False)
class GivenSource:
    """The items in a seeded order, or in their original order with ``in_order``. All are used before one is repeated.

    The output cap is the cap of the item, otherwise the length of its recorded answer, otherwise drawn. ``make``
    generates the text of an item that has only a length: (index, tokens, cap) -> text.
    """

    data: DataSet
    tokenizer: Tokenizer | None
    output_lengths: Distribution | None
    seed: int
    openings: Openings
    make: Callable[[int, int, int | None], str] | None = None
    in_order: bool = False
    different: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        data, numbers = self.data, range(len(self.data.items))
        self._order = list(numbers) if self.in_order else list(shuffled(stream(self.seed, "entries"), numbers))
        # Counted on demand: counting a complete large file would take minutes.
        self._tokens: dict[int, int | None] = {}
        self._answers: dict[int, int] = {}
        notes, total = [], len(data.items) + data.skipped
        if data.skipped:
            notes.append(skipped_note(data.name, data.skipped, total, "prompts"))
        if answered := sum(item.answer_is_left_out for item in data.items):
            notes.append(f"{data.name}: {answered} of {total} prompts end with a recorded answer, which is not sent")
        self.notes = tuple(notes)

    def prompt(self, index: int) -> Prompt:
        number = self._order[index % len(self._order)]
        item = self.data.items[number]
        cap = self._cap(index, number, item)
        if item.input_tokens is not None:
            if self.make is None:
                raise PromptError("entries with only a length need a tokenizer; set one, or use entries with prompts")
            text = self.make(index, item.input_tokens, cap)
            return Prompt(index, text, None, item.input_tokens + self.openings.tokens, cap)
        # Copied, so that a locustfile that changes its messages does not change the messages of the next round.
        messages = None if item.messages is None else [dict(message) for message in item.messages]
        if self.openings.are_empty:
            if number not in self._tokens:
                self._tokens[number] = self._count(item.text, messages)
            return Prompt(index, item.text, messages, self._tokens[number], cap)
        opening = self.openings.text(index)
        if messages is None:
            text = opening + (item.text or "")
            return Prompt(index, text, None, self._count(text, None), cap)
        messages = opened_with(opening, messages)
        return Prompt(index, None, messages, self._count(None, messages), cap)

    def _cap(self, index: int, number: int, item: Item) -> int | None:
        if item.max_tokens is not None or self.tokenizer is None or item.answer is None:
            return item.max_tokens or draw_cap(self.output_lengths, self.seed, index)
        if number not in self._answers:
            self._answers[number] = max(1, self.tokenizer.count(item.answer))
        return self._answers[number]

    def _count(self, text: str | None, messages: list[dict[str, Any]] | None) -> int | None:
        if self.tokenizer is None or not is_text_only(messages or ()):
            return None
        if messages is None:
            return self.tokenizer.count(text or "")
        return count_messages(self.tokenizer, messages)
