"""LLMPerf's task: an instruction to stream lines from a text, then lines of Shakespeare's sonnets.

A line of words that no other prompt begins with stands before it. The text has the drawn length to the token. This
module does not read files of prompts and does not send anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from llm_users.distributions import Distribution
from llm_users.prompts.exact import ExactText
from llm_users.prompts.lengths import draw_cap, length_at
from llm_users.prompts.openings import Openings
from llm_users.prompts.order import shuffled, stream
from llm_users.prompts.prompt import Prompt, PromptError
from llm_users.prompts.tokenizer import Tokenizer
from llm_users.prompts.unique import unique_line

# Other lines where the first ones gave no text of the length: not needed once in 23,000 prompts under six tokenizers.
_REDRAWS = 2


@cache
def sonnets() -> dict[int, tuple[str, ...]]:
    """The lines of each sonnet by its number in the edition of 1609; modern spelling, public domain."""
    text = Path(__file__).with_name("sonnets.txt").read_text(encoding="ascii")
    poems = (block.splitlines() for block in text.strip().split("\n\n"))
    return {int(number): tuple(lines) for number, *lines in poems}


def sonnet_texts(tokenizer: Tokenizer) -> ExactText:
    """Builds texts of lines of all sonnets."""
    return ExactText(tokenizer, [line for poem in sonnets().values() for line in poem])


def instruction(output_tokens: int | None) -> str:
    """LLMPerf's words (``randomly_sample_sonnet_lines_prompt``); without a number when the output has no cap."""
    length = "" if output_tokens is None else f" with {output_tokens} output tokens"
    return f"Randomly stream lines from the following text{length}. Don't generate eos tokens:\n\n"


class SonnetSource:
    """Prompt i: what opens it, a unique line, the instruction and random lines, ``input_lengths`` tokens in all.

    A shared text of the opening comes on top of that; a head against caches is part of it. Lengths and caps depend on
    ``seed``, texts on ``text_seed``, which differs from run to run. The unique line stands before the instruction, so
    that a prefix cache holds nothing of a prompt but what a shared text adds. A prompt that is too short for both has
    the unique line only; one that is shorter than that (some 8 tokens) begins with one of the lines.
    """

    notes: tuple[str, ...] = ()
    different: int | None = None

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: ExactText,
        input_lengths: Distribution,
        output_lengths: Distribution | None,
        seed: int,
        text_seed: str,
        openings: Openings,
    ) -> None:
        self._tokenizer, self._seed = tokenizer, seed
        self._input_lengths, self._output_lengths = input_lengths, output_lengths
        self._texts, self._text_seed, self._openings = texts, text_seed, openings
        self._first = list(shuffled(stream(text_seed, "first lines"), range(texts.lines)))

    def prompt(self, index: int) -> Prompt:
        max_tokens = draw_cap(self._output_lengths, self._seed, index)
        tokens = length_at(self._input_lengths, self._seed, index, "input")
        text = self.text(index, tokens, max_tokens)
        return Prompt(index, text, None, tokens + self._openings.tokens, max_tokens)

    def text(self, index: int, tokens: int, max_tokens: int | None) -> str:
        """The text of prompt ``index``: ``tokens`` tokens, and those of a shared text. Raises ``PromptError``."""
        openings = self._openings.texts(index)
        wanted = tokens + self._openings.tokens
        unique = openings[0] + unique_line(self._texts.vocabulary, stream(self._text_seed, index, "unique"))
        for head in (unique + instruction(max_tokens), unique, *openings):
            head_tokens = self._texts.count(head)
            for redraw in range(_REDRAWS if head_tokens < wanted else 0):
                text = self._texts.build(head, self._order(index, redraw), wanted, head_tokens)
                # Chat templates strip a line break at the end, and the server would count less.
                if text is not None and text not in openings and not text.endswith("\n"):
                    return text
        raise PromptError(
            f"prompt {index}: no text of exactly {wanted} tokens could be made under tokenizer "
            f"{self._tokenizer.name!r}. Check that this tokenizer counts ordinary text, choose another "
            "(--llm-tokenizer) or another length (--llm-input-tokens, --llm-length-mix), or give your own prompts "
            "(--llm-prompts)"
        )

    def _order(self, index: int, redraw: int) -> Iterator[int]:
        """Numbers of lines, endless; each pass takes every line once."""
        first = self._first[(index + redraw) % len(self._first)]
        yield first
        rng = stream(self._text_seed, index, "lines", redraw)
        yield from shuffled(rng, (line for line in range(len(self._first)) if line != first))
        while True:
            yield from shuffled(rng, range(len(self._first)))
