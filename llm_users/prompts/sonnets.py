"""LLMPerf's task: an instruction to stream lines from a text, followed by lines of Shakespeare's sonnets.

A line of words that is unique to the prompt precedes the instruction. The text has exactly the drawn number of tokens.
This module does not read prompt files and does not send requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from llm_users.distributions import Distribution
from llm_users.prompts.draws import draw_cap, length_at, passes, shuffled, stream
from llm_users.prompts.exact import ExactText
from llm_users.prompts.openings import Openings
from llm_users.prompts.prompt import Prompt, PromptError
from llm_users.prompts.tokenizer import Tokenizer

# Attempts with different lines, if no text has the length: a second one was never needed in 23,000 prompts with six
# tokenizers.
_REDRAWS = 2


@cache
def sonnets() -> dict[int, tuple[str, ...]]:
    """Return the lines of every sonnet by its number in the edition of 1609; modern spelling, public domain."""
    text = Path(__file__).with_name("sonnets.txt").read_text(encoding="ascii")
    poems = (block.splitlines() for block in text.strip().split("\n\n"))
    return {int(number): tuple(lines) for number, *lines in poems}


@lru_cache(maxsize=1)
def sonnet_texts(tokenizer: Tokenizer) -> ExactText:
    """Return a builder of texts from the lines of all sonnets."""
    return ExactText(tokenizer, [line for poem in sonnets().values() for line in poem])


def instruction(output_tokens: int | None) -> str:
    """Return LLMPerf's instruction (``randomly_sample_sonnet_lines_prompt``), without a number if there is no cap."""
    length = "" if output_tokens is None else f" with {output_tokens} output tokens"
    return f"Randomly stream lines from the following text{length}. Don't generate eos tokens:\n\n"


@dataclass(eq=False)
class SonnetSource:
    """Prompt i consists of its opening, a unique line, the instruction and random lines.

    The total length follows ``input_lengths``; it includes the cache-busting head of the opening, but not its shared
    text. Lengths and caps depend on ``seed``, texts on ``text_seed``, which differs between runs. The unique line
    precedes the instruction, so that a prefix cache can only contain the shared text of a prompt. A prompt that is too
    short for both has only the unique line; a prompt that is shorter than that (about 8 tokens) starts with a sonnet
    line.
    """

    tokenizer: Tokenizer
    input_lengths: Distribution
    output_lengths: Distribution | None
    seed: int
    text_seed: str
    openings: Openings
    notes: tuple[str, ...] = ()
    different: int | None = None

    def __post_init__(self) -> None:
        self._texts = sonnet_texts(self.tokenizer)
        self._first = list(shuffled(stream(self.text_seed, "first lines"), range(self._texts.lines)))

    def prompt(self, index: int) -> Prompt:
        max_tokens = draw_cap(self.output_lengths, self.seed, index)
        tokens = length_at(self.input_lengths, self.seed, index, "input")
        text = self.text(index, tokens, max_tokens)
        return Prompt(index, text, None, tokens + self.openings.tokens, max_tokens)

    def text(self, index: int, tokens: int, max_tokens: int | None) -> str:
        """Return the text of prompt ``index`` with ``tokens`` tokens plus the shared text. Raises ``PromptError``."""
        openings = self.openings.texts(index)
        wanted = tokens + self.openings.tokens
        unique = openings[0] + self._texts.unique_line(stream(self.text_seed, index, "unique"))
        for head in (unique + instruction(max_tokens), unique, *openings):
            head_tokens = self._texts.count(head)
            for redraw in range(_REDRAWS if head_tokens < wanted else 0):
                first = self._first[(index + redraw) % len(self._first)]
                order = passes(stream(self.text_seed, index, "lines", redraw), self._texts.lines, first)
                text = self._texts.build(head, order, wanted, head_tokens)
                # Chat templates strip a line break at the end, and the server would count fewer tokens.
                if text is not None and text not in openings and not text.endswith("\n"):
                    return text
        raise PromptError(
            f"prompt {index}: no text of exactly {wanted} tokens could be built with tokenizer "
            f"{self.tokenizer.name!r}. Check that this tokenizer counts ordinary text, choose another tokenizer "
            "(--llm-tokenizer) or length (--llm-input-tokens, --llm-length-mix), or use your own prompts "
            "(--llm-prompts)"
        )
