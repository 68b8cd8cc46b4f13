"""Prompt sources (the sonnets task, a fixed text, a dataset or a trace) and the counting of their tokens.

It does not depend on Locust, gevent or requests. The import is fast: ``load_tokenizer`` imports tokenizer libraries.
"""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from llm_users.distributions import Distribution
from llm_users.prompts.chat import count_messages, is_text_only
from llm_users.prompts.conversations import (
    Conversation,
    GivenConversations,
    MadeConversations,
    forget_scripts,
    read_scripts,
)
from llm_users.prompts.draws import length_at, parse_mix, text_seed_of
from llm_users.prompts.files import DataSet, file_digest, forget_items, read_items, split_name, texts_digest
from llm_users.prompts.hub import HUB, parse_hub_name
from llm_users.prompts.images import PicturedSource, Pictures
from llm_users.prompts.items import Item, skipped_note
from llm_users.prompts.openings import Openings, Prefixes
from llm_users.prompts.prompt import Prompt, PromptError, PromptSource
from llm_users.prompts.sonnets import SonnetSource, sonnet_texts
from llm_users.prompts.source import GivenSource
from llm_users.prompts.tokenizer import Tokenizer, count_all, load_tokenizer, packaged_identity
from llm_users.prompts.trace import BLOCK_TOKENS, UNITS, Trace, TraceEntry, TraceSource, parse_window, read_trace

__all__ = [
    "BLOCK_TOKENS", "HUB", "UNITS", "Conversation", "Pictures", "Prefixes", "Prompt", "PromptError", "PromptSource",
    "Tokenizer", "Trace", "TraceEntry", "count_all", "count_messages", "file_digest", "forget_items", "forget_scripts",
    "is_text_only", "length_at", "load_tokenizer", "make_conversations", "make_source", "packaged_identity",
    "parse_hub_name", "parse_mix", "parse_window", "read_items", "read_scripts", "read_trace", "split_name",
    "texts_digest",
]  # fmt: skip


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
    texts = sonnet_texts(tokenizer) if prefixes is not None and tokenizer is not None else None
    openings = Openings(text_seed, texts, prefixes, cache_bust)

    def sonnets() -> SonnetSource:
        assert tokenizer is not None
        return SonnetSource(tokenizer, input_lengths, output_lengths, seed, text_seed, openings)

    source: PromptSource
    if text is not None or file is not None:
        if file is not None:
            data = read_items(fspath(file))
        elif text is not None and text.strip():
            data = DataSet("the fixed prompt", [Item(text)])
        else:
            raise PromptError("the fixed prompt is empty. Set a text, or omit the prompt to send the sonnets task")
        only_lengths = any(item.input_tokens is not None for item in data.items)
        source = GivenSource(
            data,
            tokenizer=tokenizer,
            output_lengths=output_lengths,
            seed=seed,
            openings=openings,
            make=sonnets().text if only_lengths and tokenizer else None,
            in_order=in_order,
        )
        if file is not None and cache_bust is None and any(item.input_tokens is None for item in data.items):
            source.different = len(data.items)
    elif tokenizer is None:
        raise PromptError("prompts of a given length need a tokenizer; set one, or a fixed prompt or a prompts file")
    elif trace is not None:
        if prefixes is not None:
            raise PromptError("a trace defines the shared prefixes of its prompts; omit other shared prefixes")
        source = TraceSource(tokenizer, trace, text_seed, openings)
    else:
        source = sonnets()
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
) -> GivenConversations | MadeConversations:
    """Return the conversations of ``file``, or generated ones: ``turn_counts`` turns of ``input_lengths`` tokens each.

    A shared text and a cache-busting head are at the start of a conversation and are not repeated in its later turns.
    Raises ``PromptError``.
    """
    text_seed = text_seed_of(seed, run_key, "conversations")
    openings = Openings(text_seed, sonnet_texts(tokenizer) if prefixes is not None else None, prefixes, cache_bust)
    if file is not None:
        scripts, skipped = read_scripts(file)
        total = len(scripts) + skipped
        notes = (skipped_note(str(file), skipped, total, "conversations"),) if skipped else ()
        return GivenConversations(scripts, tokenizer, output_lengths, seed, openings, in_order=in_order, notes=notes)
    first, later = (
        SonnetSource(tokenizer, input_lengths, output_lengths, seed, text_seed, start).text
        for start in (openings, Openings(text_seed, None, None, None))
    )
    return MadeConversations(turn_counts, input_lengths, output_lengths, seed, first, later)
