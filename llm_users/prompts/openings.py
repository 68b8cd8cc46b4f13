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

    A pure function of the seed, the run and i, safe in any thread; without ``salt``, of the seed and i.
    """

    def __init__(self, seed: int, texts: ExactText | None, prefixes: Prefixes | None, salt: str | None) -> None:
        """``salt`` is what the run is called: it makes every prompt begin differently from all others, those of earlier
        runs included. None: they begin as they are. Shared prefixes are made with ``texts``."""
        if prefixes is not None and texts is None:
            raise PromptError("shared prefixes of a given length need a tokenizer; give one, or leave them out")
        self._seed, self._texts, self._prefixes, self._salt = seed, texts, prefixes, salt
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
        name = f"{self._salt}:{self._seed}:{index}".encode()
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
        text = self._texts.build("", self._order(which, self._texts.lines), self._prefixes.tokens)
        if text is None:
            raise PromptError(
                f"no shared text of exactly {self._prefixes.tokens} tokens could be made; choose another length"
            )
        return text

    def _order(self, which: int, lines: int) -> Iterator[int]:
        """Numbers of lines, endless. Two texts begin with different lines, as long as there are as many."""
        first = list(shuffled(stream(self._seed, "prefixes"), range(lines)))[which % lines]
        yield first
        rng = stream(self._seed, "prefix", which)
        yield from shuffled(rng, (line for line in range(lines) if line != first))
        while True:
            yield from shuffled(rng, range(lines))
