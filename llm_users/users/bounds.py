"""Limit the length of an answer, because a faulty server must not be able to exhaust memory or time.

The limits are checked once per MiB of received bytes, not per chunk. The module does not depend on a wire format or on
the transport.
"""

from __future__ import annotations

from itertools import islice

from llm_users.transport.errors import BadResponse
from llm_users.users.chunks import Chunks

MOST_CHARACTERS = 16 * 1024 * 1024
MOST_CHUNKS = 1_000_000

_LOOK_BYTES = 1024 * 1024
_LEAST_LOOK_BYTES = 4096
_LEAST_CHUNK_BYTES = 16  # the shortest possible event with output

_MOST_BYTES, _MOST_BYTES_PER_CHUNK = 32 * 1024 * 1024, 16 * 1024
"""Limits on a body, because data that is not output, such as usage, comments and probabilities, must end too."""


class AnswerTooLong(BadResponse):
    """The answer was aborted because it exceeded a limit."""


class Bounds:
    """The limits of one answer."""

    def __init__(self, chunks: Chunks, most_chunks: int, most_characters: int) -> None:
        self._chunks = chunks
        self._most_chunks = most_chunks
        self._most_characters = most_characters
        self._checked_texts = self._checked_reasoning = self._characters = 0
        self.look_at = min(_LOOK_BYTES, max(_LEAST_LOOK_BYTES, most_characters, most_chunks * _LEAST_CHUNK_BYTES))
        """The number of received bytes at which to call ``look`` next."""

    def look(self, received: int) -> None:
        """Check the limits after ``received`` bytes. Raises ``AnswerTooLong``."""
        chunks = self._chunks
        texts, reasoning = chunks.texts, chunks.reasoning_at
        self._characters += sum(map(len, texts[self._checked_texts :]))
        self._characters += sum(map(len, islice(reasoning.values(), self._checked_reasoning, None)))
        count, self._checked_reasoning = len(texts), len(reasoning)
        self._checked_texts = count
        if count > self._most_chunks:
            raise AnswerTooLong(
                f"the answer has more than {self._most_chunks:,} chunks, the limit for one answer "
                "(set max_answer_chunks of the user class to change it)"
            )
        if self._characters > self._most_characters:
            raise AnswerTooLong(
                f"the text of the answer is longer than {self._most_characters:,} characters, the limit for one answer "
                "(set max_answer_characters of the user class to change it)"
            )
        if received > _MOST_BYTES + _MOST_BYTES_PER_CHUNK * count:
            raise AnswerTooLong(
                f"the answer does not end: {received >> 20} MiB arrived, with {count} chunks and {self._characters:,} "
                "characters of output"
            )
        remaining = min(self._most_characters - self._characters, (self._most_chunks - count) * _LEAST_CHUNK_BYTES)
        self.look_at = received + min(_LOOK_BYTES, max(_LEAST_LOOK_BYTES, remaining))
