"""LLMPerf's task: an instruction to stream lines from a text, then lines of Shakespeare's sonnets.

The user text has the drawn length to the token. Knows nothing of files of prompts or of how a prompt is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

from llm_users.prompts.exact import ExactText
from llm_users.prompts.lengths import LengthLaw, draw_cap
from llm_users.prompts.order import shuffled, stream
from llm_users.prompts.prompt import Prompt, PromptError
from llm_users.prompts.tokenizer import Tokenizer

# Other lines where the first ones gave no text of the length: not needed once in 23,000 prompts under six tokenizers.
_REDRAWS = 2


@cache
def sonnets() -> dict[int, tuple[str, ...]]:
    """The lines of each sonnet by its number in the edition of 1609; modern spelling, public domain."""
    text = Path(__file__).with_name("sonnets.txt").read_text(encoding="ascii")
    poems = (block.splitlines() for block in text.strip().split("\n\n"))
    return {int(number): tuple(lines) for number, *lines in poems}


def instruction(output_tokens: int | None) -> str:
    """LLMPerf's words (``randomly_sample_sonnet_lines_prompt``); without a number when the output has no cap."""
    length = "" if output_tokens is None else f" with {output_tokens} output tokens"
    return f"Randomly stream lines from the following text{length}. Don't generate eos tokens:\n\n"


class SonnetSource:
    """Prompt i: the instruction and randomly drawn lines, ``input_law`` many tokens in all.

    A length below the instruction's own drops the instruction. The first line goes round all lines before any comes
    again, so that prompts share no more than the instruction and a server's prefix cache gains nothing.
    """

    def __init__(self, tokenizer: Tokenizer, input_law: LengthLaw, output_law: LengthLaw | None, seed: int) -> None:
        lines = [line for poem in sonnets().values() for line in poem]
        self._tokenizer, self._input_law, self._output_law, self._seed = tokenizer, input_law, output_law, seed
        self._texts = ExactText(tokenizer, lines)
        self._first = list(shuffled(stream(seed, "first lines"), range(len(lines))))

    def prompt(self, index: int) -> Prompt:
        max_tokens = draw_cap(self._output_law, self._seed, index)
        tokens = self._input_law.draw(stream(self._seed, index, "input"))
        for head, redraw in product((instruction(max_tokens), ""), range(_REDRAWS)):
            text = self._texts.build(head, self._order(index, redraw), tokens)
            if text is not None:
                return Prompt(index, text, None, tokens, max_tokens)
        raise PromptError(
            f"prompt {index}: no text of exactly {tokens} tokens could be made under tokenizer "
            f"{self._tokenizer.name!r}. Check that this tokenizer counts ordinary text, choose another "
            "(--llm-tokenizer) or another length (--llm-input-tokens), or give your own prompts (--llm-prompts)"
        )

    def _order(self, index: int, redraw: int) -> Iterator[int]:
        """Numbers of lines, endless; each pass takes every line once."""
        first = self._first[(index + redraw) % len(self._first)]
        yield first
        rng = stream(self._seed, index, "lines", redraw)
        yield from shuffled(rng, (line for line in range(len(self._first)) if line != first))
        while True:
            yield from shuffled(rng, range(len(self._first)))
