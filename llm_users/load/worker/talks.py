"""The conversations of one load process: where they come from, and how many to build before a stage.

Knows nothing of how they are held.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llm_users.load.worker.prompt_queue import PromptFeed
from llm_users.options.table import Options
from llm_users.prompts import Conversation, Tokenizer, make_conversations


class Talks:
    """Made in a thread: reads files. ``part`` is this process's (first index, step)."""

    only = False
    """True when no user of the process asks prompts."""

    def __init__(
        self,
        options: Options,
        tokenizer: Tokenizer,
        run_key: str,
        salt: str | None,
        part: tuple[int, int],
        note: Callable[[str], None],
    ) -> None:
        source = make_conversations(
            tokenizer=tokenizer,
            turn_counts=options.turns,
            input_lengths=options.input_tokens,
            output_lengths=options.output_tokens,
            seed=options.seed,
            run_key=run_key,
            file=options.conversations,
            in_order=options.prompts_order == "file",
            prefixes=options.shared_prefix,
            cache_bust=salt,
        )
        for text in source.notes:
            note(text)
        self._mean_turns = source.mean_turns
        self.feed: PromptFeed[Conversation] = PromptFeed(source, *part, note, Conversation.characters, "conversations")

    def conversations_of(self, requests: int) -> int:
        """The average number of conversations in this number of requests."""
        return math.ceil(requests / max(1.0, self._mean_turns))
