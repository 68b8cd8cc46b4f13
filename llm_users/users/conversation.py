"""ConversationUser: a user that holds multi-turn conversations with the live answers, and pauses between turns.

``prompts.conversations`` provides the user's turns, and the class of the API sends them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from locust import task
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING

from llm_users.load.worker.context import RunContext
from llm_users.prompts import Conversation, Prompt
from llm_users.prompts.draws import stream
from llm_users.record import RequestRecord
from llm_users.users.answer import Answer
from llm_users.users.llm import LLMUser
from llm_users.users.openai.user import OpenAIUser
from llm_users.users.tool_calls import assistant_turn


@dataclass(slots=True)
class _Progress:
    """A user's progress in its conversation: the current turn and the history."""

    conversation: Conversation
    history: list[dict[str, Any]]
    turn: int = 0  # from 1
    think_s: float | None = None


class ConversationMixin(LLMUser):
    """Adds conversations to a user of any API. List it before the class of the API; turns are sent with ``ask``.

    Example::

        class Claude(ConversationMixin, AnthropicUser):
            pass
    """

    abstract = True
    holds_conversations: ClassVar[bool] = True

    _at: _Progress | None = None

    @task
    def _converse(self) -> None:
        self.hold()

    def hold(self, conversation: Conversation | None = None) -> list[Answer]:
        """Hold the given conversation, or the next one of the run. Return the answers.

        Turns are sent in order, with the live answers of the earlier turns. A turn that fails or is cancelled ends
        the conversation: the remaining turns are not sent.
        """
        if self._at is not None:
            raise RuntimeError("a user holds one conversation at a time; run more users for more conversations")
        conversation = conversation or self.run_context.next_conversation()
        at = self._at = _Progress(conversation, [])
        answers: list[Answer] = []
        try:
            for at.turn, turn in enumerate(conversation.turns, start=1):
                if at.turn > 1:
                    self._think(at)
                at.history += map(dict, turn.messages)
                self.follow_up = at.turn > 1
                answer = self.ask()
                answers.append(answer)
                if not answer.record.ok:
                    break
                at.history.append(assistant_turn(answer.text, answer.tool_calls))
        finally:
            self._at, self.follow_up = None, False
            if self.arrival is not None:
                self.arrival = None
                self.run_context.gate.depart()
        return answers

    def make_prompt(self) -> Prompt:
        at = self._at
        if at is None:
            return super().make_prompt()
        return Prompt(-1, None, list(at.history), None, at.conversation.turns[at.turn - 1].max_tokens)

    def _think(self, at: _Progress) -> None:
        """Pause at the admission gate: a thinking user can be stopped immediately, and no stage waits for it."""
        options, conversation = self.run_context.options, at.conversation
        think_s = options.think_time.draw(stream(options.seed, conversation.index, "think", at.turn))
        if self._state == LOCUST_STATE_STOPPING:
            raise StopUser
        outer = self._state
        self._state = LOCUST_STATE_WAITING
        began_s = time.monotonic()
        self.run_context.gate.rest(self.user_state, think_s)
        self._state = LOCUST_STATE_RUNNING if outer is None else outer
        at.think_s = min(think_s, time.monotonic() - began_s)

    def choose_target(self) -> None:
        if not self.follow_up:  # a conversation keeps its target
            super().choose_target()

    def describe(self, record: RequestRecord) -> None:
        super().describe(record)
        at = self._at
        if at is not None:
            record.conversation_id, record.turn, record.turns = at.conversation.id, at.turn, len(at.conversation.turns)
            record.think_s = at.think_s


class ConversationUser(ConversationMixin, OpenAIUser):
    """A user that holds conversations with an OpenAI-compatible endpoint, through chat completions or responses.

    Example::

        from llm_users import ConversationUser

        class Visitor(ConversationUser):
            pass
    """

    abstract = True

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        if run_context.options.api == "completions":
            raise ValueError("--llm-api completions does not support turns; use chat or responses for conversations")
        super().prepare_process(run_context, host)
