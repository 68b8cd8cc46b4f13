"""Reasoning that comes as text between tags, as Bedrock has it for OpenAI's open models through Invoke.

Bedrock puts every piece of reasoning into tags of its own (``<reasoning>First, </reasoning>``, one pair per chunk);
one pair around all of it, split anywhere, is read too.
"""

from __future__ import annotations

_OPEN, _CLOSE = "<reasoning>", "</reasoning>"


class ReasoningTags:
    """Splits the content of one answer, chunk by chunk. Tags mean something only before the answer has begun."""

    __slots__ = ("_answering", "_held", "_inside", "_tagged")

    def __init__(self) -> None:
        self._tagged = False  # a tag was seen
        self._inside = False
        self._answering = False
        self._held = ""  # the beginning of what may become a tag

    def split(self, text: str) -> tuple[str, str]:
        """(answer, reasoning) of one chunk's content. White space behind a tag counts with the reasoning."""
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
        """What was held back, at the end of the answer: no tag after all."""
        held, self._held = self._held, ""
        return ("", held) if self._inside else (held, "")


def _beginning_of(tag: str, text: str) -> str:
    """The longest end of the text with which the tag begins."""
    return next((tag[:length] for length in range(len(tag) - 1, 0, -1) if text.endswith(tag[:length])), "")
