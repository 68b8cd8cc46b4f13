"""How long an answer may become: memory and time must not depend on the server's goodwill.

Looked at once per MiB of what comes, never per chunk. Knows chunks; no wire format and no transport.
"""

from __future__ import annotations

from itertools import islice

from llm_users.transport.errors import BadResponse
from llm_users.users.chunks import Chunks

MOST_CHARACTERS = 16 * 1024 * 1024
MOST_CHUNKS = 1_000_000

_LOOK_BYTES = 1024 * 1024
_LEAST_LOOK_BYTES = 4096
_LEAST_CHUNK_BYTES = 16  # no event with output is shorter

_MOST_BYTES, _MOST_BYTES_PER_CHUNK = 32 * 1024 * 1024, 16 * 1024
"""Of a body: what is not output, such as usage, comments and probabilities, ends too."""


class AnswerTooLong(BadResponse):
    """The answer was given up because it went beyond a bound."""


class Bounds:
    """The bounds of one answer."""

    def __init__(self, chunks: Chunks, most_chunks: int, most_characters: int) -> None:
        self._chunks = chunks
        self._most_chunks = most_chunks
        self._most_characters = most_characters
        self._counted = self._reasoned = self._characters = 0
        self.look_at = min(_LOOK_BYTES, max(_LEAST_LOOK_BYTES, most_characters, most_chunks * _LEAST_CHUNK_BYTES))
        """The number of received bytes from which on ``look`` has to be called."""

    def look(self, received: int) -> None:
        """So many bytes have been received. Raises ``AnswerTooLong``."""
        chunks = self._chunks
        texts, thoughts = chunks.texts, chunks.reasoning_at
        self._characters += sum(map(len, texts[self._counted :]))
        self._characters += sum(map(len, islice(thoughts.values(), self._reasoned, None)))
        count, self._reasoned = len(texts), len(thoughts)
        self._counted = count
        if count > self._most_chunks:
            raise AnswerTooLong(
                f"the answer has more than {self._most_chunks:,} chunks, the bound for one answer "
                "(max_answer_chunks of the user class changes it)"
            )
        if self._characters > self._most_characters:
            raise AnswerTooLong(
                f"the text of the answer is longer than {self._most_characters:,} characters, the bound for one answer "
                "(max_answer_characters of the user class changes it)"
            )
        if received > _MOST_BYTES + _MOST_BYTES_PER_CHUNK * count:
            raise AnswerTooLong(
                f"the answer does not end: {received >> 20} MiB came, with {count} chunks and {self._characters:,} "
                "characters of output"
            )
        left = min(self._most_characters - self._characters, (self._most_chunks - count) * _LEAST_CHUNK_BYTES)
        self.look_at = received + min(_LOOK_BYTES, max(_LEAST_LOOK_BYTES, left))
