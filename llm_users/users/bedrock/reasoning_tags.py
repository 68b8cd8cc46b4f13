"""Separate reasoning between tags from the answer, as Bedrock sends it for OpenAI's open models through Invoke.

Bedrock puts each piece of reasoning between its own tags (``<reasoning>First, </reasoning>``, one pair per chunk). One
pair around the whole reasoning, split at any position, is supported too.
"""

from __future__ import annotations

_OPEN, _CLOSE = "<reasoning>", "</reasoning>"


class ReasoningTags:
    """Splits the content of one answer, chunk by chunk. Tags are only recognized before the answer begins."""

    __slots__ = ("_answering", "_held", "_inside", "_tagged")

    def __init__(self) -> None:
        self._tagged = False  # a tag has occurred
        self._inside = False
        self._answering = False
        self._held = ""  # a possible beginning of a tag

    def split(self, text: str) -> tuple[str, str]:
        """Return (answer, reasoning) of one chunk's content. White space after a tag belongs to the reasoning."""
        if self._answering or not text:
            return text, ""
        text, self._held = self._held + text, ""
        reasoning = ""
        while text:
            if self._inside:
                before, tag, text = text.partition(_CLOSE)
                if not tag:
                    self._held = _beginning_of(_CLOSE, before)
                    return "", reasoning + before.removesuffix(self._held)
                self._inside = False
                reasoning += before
                continue
            bare = text.lstrip() if self._tagged else text
            reasoning += text[: len(text) - len(bare)]
            if not bare.startswith(_OPEN):
                if _OPEN.startswith(bare):
                    self._held, bare = bare, ""
                self._answering = bool(bare)
                return bare, reasoning
            self._inside = self._tagged = True
            text = bare.removeprefix(_OPEN)
        return "", reasoning

    def rest(self) -> tuple[str, str]:
        """Return (answer, reasoning) of the text that is still held at the end of the answer and is not a tag."""
        held, self._held = self._held, ""
        return ("", held) if self._inside else (held, "")


def _beginning_of(tag: str, text: str) -> str:
    """Return the longest suffix of the text that is a prefix of the tag."""
    return next((tag[:length] for length in range(len(tag) - 1, 0, -1) if text.endswith(tag[:length])), "")
