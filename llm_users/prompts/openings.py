"""What stands before the prompts of a run: one of several shared texts, and a head of its own against caches.

Knows no prompts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from llm_users.prompts.exact import ExactText
from llm_users.prompts.order import shuffled, stream
from llm_users.prompts.prompt import PromptError
from llm_users.prompts.unique import unique_line


@dataclass(frozen=True, slots=True)
class Prefixes:
    """``count`` different texts of ``tokens`` tokens each."""

    tokens: int
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Prefixes:
        """From ``TOKENSxCOUNT`` or ``TOKENS`` (one text). Raises ``PromptError``."""
        match = re.fullmatch(r"\s*([1-9]\d*)\s*(?:x\s*([1-9]\d*)\s*)?", text)
        if match is None:
            raise PromptError(
                f"{text!r} is not TOKENSxCOUNT; write for example 1000x8 for eight shared texts of 1000 tokens each"
            )
        return cls(int(match[1]), int(match[2] or 1))


class Openings:
    """``openings.text(i)`` stands before prompt i, in the same message, and ends with a line break unless empty.

    A pure function of the text seed, the salt and i, safe in any thread.
    """

    def __init__(self, text_seed: str, texts: ExactText | None, prefixes: Prefixes | None, salt: str | None) -> None:
        """``salt`` is the id of the run: it makes every prompt begin differently from all others, those of earlier runs
        included. None: they begin as they are. Shared prefixes are made with ``texts``, from ``text_seed``."""
        if prefixes is not None and texts is None:
            raise PromptError("shared prefixes of a given length need a tokenizer; give one, or leave them out")
        self._text_seed, self._texts, self._prefixes, self._salt = text_seed, texts, prefixes, salt
        self._made: dict[int, str] = {}  # two threads may make the same, which is then equal

    @property
    def tokens(self) -> int:
        """Tokens of a shared text."""
        return self._prefixes.tokens if self._prefixes is not None else 0

    @property
    def are_empty(self) -> bool:
        return self._prefixes is None and self._salt is None

    def text(self, index: int) -> str:
        """The head of its own, then the shared text: with both, no cache holds anything of prompt ``index``."""
        return self._head(index) + self._prefix(index)

    def texts(self, index: int) -> tuple[str, ...]:
        """The same, then what is to be taken where a prompt has too few tokens for it, best first.

        With a head of its own the shared text may go first, since nothing is shared anyway; a prompt of fewer tokens
        than its head (some ten) has less than any cache keeps.
        """
        whole, head = self.text(index), self._head(index)
        return tuple(dict.fromkeys((whole, whole.rstrip("\n"), head, "")))

    def _head(self, index: int) -> str:
        """16 hexadecimal digits: two alike in a million requests once in 37 million runs."""
        if self._salt is None:
            return ""
        name = f"{self._salt}:{self._text_seed}:{index}".encode()
        return hashlib.blake2b(name, digest_size=8).hexdigest() + "\n"

    def _prefix(self, index: int) -> str:
        if self._prefixes is None:
            return ""
        which = index % self._prefixes.count
        if which not in self._made:
            self._made[which] = self._make(which) + "\n\n"
        return self._made[which]

    def _make(self, which: int) -> str:
        assert self._prefixes is not None
        assert self._texts is not None
        unique = unique_line(self._texts.vocabulary, stream(self._text_seed, "prefix", which, "unique"))
        lines = self._texts.lines
        heads = (unique, "")  # a prefix of a few tokens is shorter than a unique line
        made = (self._texts.build(head, self._order(which, lines), self._prefixes.tokens) for head in heads)
        text = next((text for text in made if text is not None and text != unique), None)
        if text is None:
            raise PromptError(
                f"no shared text of exactly {self._prefixes.tokens} tokens could be made; choose another length"
            )
        return text

    def _order(self, which: int, lines: int) -> Iterator[int]:
        """Numbers of lines, endless. Two texts begin with different lines, as long as there are as many."""
        first = list(shuffled(stream(self._text_seed, "prefixes"), range(lines)))[which % lines]
        yield first
        rng = stream(self._text_seed, "prefix", which)
        yield from shuffled(rng, (line for line in range(lines) if line != first))
        while True:
            yield from shuffled(rng, range(lines))
