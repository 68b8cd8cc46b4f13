"""Data types of one call: its request (``Ask``), its result (``Answer``), and a check of it (``AnswerCheck``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_users.prompts import Prompt
from llm_users.record import RequestRecord
from llm_users.users.common_mistakes import NOT_IN_A_WITH, missing_in_answer


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a call, successful or not. ``record.error_code`` is empty if the call succeeded."""

    text: str
    record: RequestRecord
    reasoning: str = ""
    finish_reason: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    """The texts of all choices if the request asked for several (``n``). ``text`` is the text of the first choice."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(missing_in_answer(name), name=name, obj=self)

    def __enter__(self) -> Any:
        raise TypeError(NOT_IN_A_WITH)

    def __exit__(self, *_error: object) -> None:
        """Do nothing. Without this method, ``with`` would fail before ``__enter__`` raises its helpful error."""


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """Result of ``check_answer``: the expected answer, and whether the given answer matches, also strictly."""

    expected: str
    match: bool
    strict_match: bool | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """The request of one call, as the subclass builds it."""

    api: str
    model: str
    prompt: Prompt
    body: dict[str, Any]
    streamed: bool = True
    """False: it asks for the whole answer at once."""
