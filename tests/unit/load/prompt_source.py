"""A source of prompts that take time to build, and the prompt queue that builds them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from llm_users.load.worker.prompt_queue import PromptQueue
from llm_users.prompts import Prompt, PromptError


@dataclass
class Source:
    """Prompts of so many tokens, each of which takes a while in its thread."""

    tokens: int
    seconds: float = 0.0
    bad: int = -1
    different: int | None = None
    made: int = 0

    def prompt(self, index: int) -> Prompt:
        if index == self.bad:
            raise PromptError(f"prompt {index} cannot be made")
        time.sleep(self.seconds)
        self.made += 1
        return Prompt(index, "word" * self.tokens)


def queue_of(source: Source, first: int = 1, step: int = 3) -> PromptQueue[Prompt]:
    return PromptQueue(source, first, step, lambda _text: None, Prompt.characters)
