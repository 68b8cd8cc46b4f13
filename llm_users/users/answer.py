"""What a call asks (``Ask``), what it returns (``Answer``), and what a check of the answer finds (``AnswerCheck``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_users.prompts import Prompt
from llm_users.record import RequestRecord
from llm_users.users.common_mistakes import NOT_IN_A_WITH, missing_in_answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returns, failed or not: ``record.error_code`` is empty when it succeeded."""

    text: str
    record: RequestRecord
    reasoning: str = ""
    finish_reason: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    """The texts of all choices when several were asked for (``n``); ``text`` is that of the first."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(missing_in_answer(name), name=name, obj=self)

    def __enter__(self) -> Any:
        raise TypeError(NOT_IN_A_WITH)

    def __exit__(self, *_error: object) -> None:
        """Only here so that ``with`` gets as far as the error that helps."""


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """What ``check_answer`` found: the expected answer, whether the given one is right, and whether strictly so."""

    expected: str
    match: bool
    strict_match: bool | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One call, as the subclass wants it made."""

    api: str
    model: str
    prompt: Prompt
    body: dict[str, Any]
