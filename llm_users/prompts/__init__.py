"""Prompt sources (the sonnets task, a fixed text, a dataset or a trace) and the counting of their tokens.

It does not depend on Locust, gevent or requests. The import is fast: ``load_tokenizer`` imports tokenizer libraries.
"""

from __future__ import annotations

from functools import cached_property
from os import PathLike, fspath
from pathlib import Path

from llm_users.distributions import Distribution
from llm_users.prompts.chat import count_messages, is_text_only
from llm_users.prompts.conversations import (
    Conversation,
    ConversationSource,
    GivenConversations,
    MadeConversations,
    forget_scripts,
    read_scripts,
)
from llm_users.prompts.exact import ExactText
from llm_users.prompts.files import file_digest, forget_items, read_items, split_name, texts_digest
from llm_users.prompts.hub import HUB, parse_hub_name
from llm_users.prompts.items import Item, skipped_note
from llm_users.prompts.lengths import parse_mix
from llm_users.prompts.openings import Openings, Prefixes
from llm_users.prompts.order import text_seed_of
from llm_users.prompts.pictures import PicturedSource, Pictures
from llm_users.prompts.prompt import Prompt, PromptError, PromptSource
from llm_users.prompts.sonnets import SonnetSource, sonnet_texts
from llm_users.prompts.source import GivenSource, data_set_notes
from llm_users.prompts.tokenizer import Tokenizer, load_tokenizer
from llm_users.prompts.trace import BLOCK_TOKENS, UNITS, Trace, TraceEntry, parse_window, read_trace
from llm_users.prompts.trace_source import TraceSource

__all__ = [
    "BLOCK_TOKENS",
    "HUB",
    "UNITS",
    "Conversation",
    "ConversationSource",
    "Pictures",
    "Prefixes",
    "Prompt",
    "PromptError",
    "PromptSource",
    "Tokenizer",
    "Trace",
    "TraceEntry",
    "count_messages",
    "file_digest",
    "forget_items",
    "forget_scripts",
    "is_text_only",
    "load_tokenizer",
    "make_conversations",
    "make_source",
    "parse_hub_name",
    "parse_mix",
    "parse_window",
    "read_items",
    "read_scripts",
    "read_trace",
    "split_name",
    "texts_digest",
]


def make_source(
    *,
    tokenizer: Tokenizer | None,
    input_lengths: Distribution,
    output_lengths: Distribution | None,
    seed: int,
    run_key: str = "",
    text: str | None = None,
    file: str | PathLike[str] | None = None,
    trace: Trace | None = None,
    in_order: bool = False,
    prefixes: Prefixes | None = None,
    cache_bust: str | None = None,
    pictures: Pictures | None = None,
) -> PromptSource:
    """Return the source of the fixed ``text``, the prompts of ``file`` or the entries of ``trace``.

    Without all three, the source is the sonnets task with lengths of ``input_lengths``. Lengths, caps and order depend
    on ``seed``. Generated texts also depend on ``run_key``: runs with different keys have no text in common. The output
    cap is drawn from ``output_lengths`` (None: no cap) unless an entry of ``file`` has a cap. Without a tokenizer, the
    tokens of a text or file are unknown; the sonnets need a tokenizer. ``file`` is a name for ``read_items``; its
    prompts come in a seeded order unless ``in_order``. With ``cache_bust``, the id of the run, all prompts start with
    different texts, including prompts that would share a text. The function reads files and may use the network: do not
    call it in an event loop. Raises ``PromptError``.
    """
    if sum(option is not None for option in (text, file, trace)) > 1:
        raise PromptError("set only one of a fixed prompt, a prompts file and a trace")
    text_seed = text_seed_of(seed, run_key)
    parts = _SourceParts(tokenizer, input_lengths, output_lengths, seed, text_seed, prefixes, cache_bust)
    if text is not None:
        source: PromptSource = parts.fixed(text)
    elif file is not None:
        source = parts.data_set(fspath(file), in_order)
    elif tokenizer is None:
        raise PromptError("prompts of a given length need a tokenizer; set one, or a fixed prompt or a prompts file")
    elif trace is not None:
        source = parts.replay(trace)
    else:
        source = parts.sonnets
    return source if pictures is None else PicturedSource(source, pictures, seed, text_seed)


def make_conversations(
    *,
    tokenizer: Tokenizer,
    turn_counts: Distribution,
    input_lengths: Distribution,
    output_lengths: Distribution | None,
    seed: int,
    run_key: str = "",
    file: Path | None = None,
    in_order: bool = False,
    prefixes: Prefixes | None = None,
    cache_bust: str | None = None,
) -> ConversationSource:
    """Return the conversations of ``file``, or generated ones: ``turn_counts`` turns of ``input_lengths`` tokens each.

    A shared text and a cache-busting head are at the start of a conversation and are not repeated in its later turns.
    Raises ``PromptError``.
    """
    text_seed = text_seed_of(seed, run_key, "conversations")
    parts = _SourceParts(tokenizer, input_lengths, output_lengths, seed, text_seed, prefixes, cache_bust)
    if file is not None:
        scripts, skipped = read_scripts(file)
        total = len(scripts) + skipped
        notes = (skipped_note(str(file), skipped, total, "conversations"),) if skipped else ()
        openings = parts.openings
        return GivenConversations(scripts, tokenizer, output_lengths, seed, openings, in_order=in_order, notes=notes)
    later = _SourceParts(tokenizer, input_lengths, output_lengths, seed, text_seed, None, None)
    return MadeConversations(turn_counts, input_lengths, output_lengths, seed, parts.sonnets.text, later.sonnets.text)


class _SourceParts:
    """The objects that sources share, created once and on demand."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        input_lengths: Distribution,
        output_lengths: Distribution | None,
        seed: int,
        text_seed: str,
        prefixes: Prefixes | None,
        salt: str | None,
    ) -> None:
        self._tokenizer, self._seed = tokenizer, seed
        self._input_lengths, self._output_lengths = input_lengths, output_lengths
        self._text_seed, self._salt = text_seed, salt
        self.openings = Openings(text_seed, self._texts if prefixes is not None and tokenizer else None, prefixes, salt)

    def fixed(self, text: str) -> PromptSource:
        if not text.strip():
            raise PromptError("the fixed prompt is empty. Set a text, or omit the prompt to send the sonnets task")
        return self._given([Item(text)])

    def data_set(self, name: str, in_order: bool) -> PromptSource:
        data = read_items(name)
        source = self._given(data.items, in_order=in_order)
        source.notes = data_set_notes(data)
        if self._salt is None and any(item.input_tokens is None for item in data.items):
            source.different = len(data.items)
        return source

    def replay(self, trace: Trace) -> PromptSource:
        assert self._tokenizer is not None
        if self.openings.tokens:
            raise PromptError("a trace defines the shared prefixes of its prompts; omit other shared prefixes")
        return TraceSource(self._tokenizer, self._texts, trace, self._text_seed, self.openings)

    @cached_property
    def sonnets(self) -> SonnetSource:
        assert self._tokenizer is not None
        return SonnetSource(
            self._tokenizer,
            self._texts,
            self._input_lengths,
            self._output_lengths,
            self._seed,
            self._text_seed,
            self.openings,
        )

    @cached_property
    def _texts(self) -> ExactText:
        assert self._tokenizer is not None
        return sonnet_texts(self._tokenizer)

    def _given(self, items: list[Item], *, in_order: bool = False) -> GivenSource:
        only_lengths = any(item.input_tokens is not None for item in items)
        return GivenSource(
            items,
            tokenizer=self._tokenizer,
            output_lengths=self._output_lengths,
            seed=self._seed,
            openings=self.openings,
            make=self.sonnets.text if only_lengths and self._tokenizer else None,
            in_order=in_order,
        )
