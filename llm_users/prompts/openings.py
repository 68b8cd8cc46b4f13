"""Texts at the start of the prompts of a run: one of several shared texts, and a unique head that defeats caches.

It does not depend on prompts.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from llm_users.prompts.draws import passes, shuffled, stream
from llm_users.prompts.exact import ExactText
from llm_users.prompts.prompt import PromptError


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Shared prefixes: ``count`` different texts with ``tokens`` tokens each."""

    tokens: int
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Prefixes:
        """Parse ``TOKENSxCOUNT`` or ``TOKENS`` (one text). Raises ``PromptError``."""
        match = re.fullmatch(r"\s*([1-9]\d*)\s*(?:x\s*([1-9]\d*)\s*)?", text)
        if match is None:
            raise PromptError(
                f"{text!r} is not TOKENSxCOUNT; write for example 1000x8 for eight shared texts of 1000 tokens each"
            )
        return cls(int(match[1]), int(match[2] or 1))


class Openings:
    """The openings of prompts. ``text(i)`` precedes prompt i in its message and ends with a line break unless empty.

    It is a pure function of the text seed, the salt and i, and it is thread-safe.
    """

    def __init__(self, text_seed: str, texts: ExactText | None, prefixes: Prefixes | None, salt: str | None) -> None:
        """Store the settings. ``salt`` is the id of the run, which gives every prompt of every run a unique start.

        With ``salt`` None, prompts have no unique head. Shared prefixes are built with ``texts`` from ``text_seed``.
        Raises ``PromptError`` when ``texts`` is missing.
        """
        if prefixes is not None and texts is None:
            raise PromptError("shared prefixes of a given length need a tokenizer; set one, or omit the prefixes")
        self._text_seed, self._texts, self._prefixes, self._salt = text_seed, texts, prefixes, salt
        self._made: dict[int, str] = {}  # two threads may build the same text, with equal results

    @property
    def tokens(self) -> int:
        """The number of tokens of a shared text; 0 without shared texts."""
        return self._prefixes.tokens if self._prefixes is not None else 0

    @property
    def are_empty(self) -> bool:
        return self._prefixes is None and self._salt is None

    def text(self, index: int) -> str:
        """Return the unique head and the shared text: with both, no cache contains any part of prompt ``index``."""
        return self._head(index) + self._prefix(index)

    def texts(self, index: int) -> tuple[str, ...]:
        """Return the same text and shorter alternatives for prompts with too few tokens, the best first.

        With a unique head, the shared text can be dropped first, because no text is shared anyway; a prompt with fewer
        tokens than its head (about ten) is shorter than any cached prefix.
        """
        whole, head = self.text(index), self._head(index)
        return tuple(dict.fromkeys((whole, whole.rstrip("\n"), head, "")))

    def _head(self, index: int) -> str:
        """Return 16 hexadecimal digits: a million requests have two equal heads once in 37 million runs."""
        if self._salt is None:
            return ""
        name = f"{self._salt}:{self._text_seed}:{index}".encode()
        return hashlib.blake2b(name, digest_size=8).hexdigest() + "\n"

    def _prefix(self, index: int) -> str:
        if self._prefixes is None:
            return ""
        which = index % self._prefixes.count
        if which in self._made:
            return self._made[which]
        assert self._texts is not None
        unique = self._texts.unique_line(stream(self._text_seed, "prefix", which, "unique"))
        lines = self._texts.lines
        # Two texts start with different lines if there are enough lines.
        first = list(shuffled(stream(self._text_seed, "prefixes"), range(lines)))[which % lines]
        for head in (unique, ""):  # a prefix of a few tokens is shorter than a unique line
            order = passes(stream(self._text_seed, "prefix", which), lines, first)
            text = self._texts.build(head, order, self._prefixes.tokens)
            if text is not None and text != unique:
                self._made[which] = text + "\n\n"
                return self._made[which]
        raise PromptError(
            f"no shared text of exactly {self._prefixes.tokens} tokens could be built; choose another length"
        )
