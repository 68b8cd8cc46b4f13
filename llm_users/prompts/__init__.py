"""Where prompts come from: the sonnets task, a fixed text or a file, and the counting of their tokens.

Knows nothing of Locust, gevent or requests. Importing it is cheap; tokenizer libraries load with ``load_tokenizer``.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from llm_users.prompts.files import FileSource, FixedSource, count_messages, is_text_only
from llm_users.prompts.lengths import LengthLaw
from llm_users.prompts.prompt import Prompt, PromptError, PromptSource
from llm_users.prompts.sonnets import SonnetSource
from llm_users.prompts.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "LengthLaw",
    "Prompt",
    "PromptError",
    "PromptSource",
    "Tokenizer",
    "count_messages",
    "is_text_only",
    "load_tokenizer",
    "make_source",
]


def make_source(
    *,
    tokenizer: Tokenizer | None,
    input_law: LengthLaw,
    output_law: LengthLaw | None,
    seed: int,
    text: str | None = None,
    file: str | PathLike[str] | None = None,
) -> PromptSource:
    """The fixed ``text``, the prompts of ``file``, or else the sonnets task in lengths of ``input_law``.

    The output cap is drawn from ``output_law`` (None: no cap) unless an entry of ``file`` has its own. Without a
    tokenizer the tokens of a text or file stay unknown; the sonnets need one.
    """
    if text is not None and file is not None:
        raise PromptError("both a fixed prompt and a prompts file are given; leave one out")
    if text is not None:
        return FixedSource(tokenizer, output_law, seed, text)
    if file is not None:
        return FileSource(tokenizer, output_law, seed, Path(file))
    if tokenizer is None:
        raise PromptError("prompts of a given length need a tokenizer; give one, or a fixed prompt or prompts file")
    return SonnetSource(tokenizer, input_law, output_law, seed)
