"""The model families whose answers are lists of choices or plain texts, and the choice of the family of a request.

For the interface of a family, see `families.Shape`.
"""

# ruff: noqa: ARG002 (a shared interface, of which no family needs every parameter)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from llm_users.simulator.bedrock.families import (
    AnthropicMessages,
    AnthropicText,
    Converse,
    Document,
    Llama,
    Nova,
    Plain,
    Shape,
    Titan,
    Turn,
    provider_of,
)


class MistralText(Plain):
    name = "mistral-text"

    def part(self, turn: Turn, text: str, reason: str | None) -> Document:
        return {"outputs": [{"text": text, "stop_reason": reason}]}


class MistralChat(Plain):
    name, needs = "mistral-chat", ("messages",)

    def part(self, turn: Turn, text: str, reason: str | None) -> Document:
        message = {"role": "assistant", "content": text}
        return {"choices": [{"index": 0, "message": message, "stop_reason": reason}]}


class CohereCommand(Shape):
    name = "cohere-command"
    finishes: ClassVar = {"length": "MAX_TOKENS", "stop": "COMPLETE"}

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        return {"is_finished": False, "text": text}

    def tail(self, turn: Turn) -> list[Document]:
        return [{"is_finished": True, "finish_reason": self.finishes[turn.finish]}]

    def whole(self, turn: Turn) -> Document:
        generation = {"id": turn.response_id, "text": turn.text, "finish_reason": self.finishes[turn.finish]}
        return {"id": turn.response_id, "generations": [generation], "prompt": ""}


class CohereCommandR(Shape):
    name, needs = "cohere-command-r", ("message",)
    finishes: ClassVar = {"length": "MAX_TOKENS", "stop": "COMPLETE"}

    def head(self, turn: Turn) -> list[Document]:
        return [{"event_type": "stream-start", "is_finished": False, "generation_id": turn.response_id}]

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        return {"event_type": "text-generation", "is_finished": False, "text": text}

    def tail(self, turn: Turn) -> list[Document]:
        reason = self.finishes[turn.finish]
        end = {"event_type": "stream-end", "is_finished": True, "finish_reason": reason}
        return [{**end, "response": self.whole(turn)}]

    def whole(self, turn: Turn) -> Document:
        ids = {"response_id": turn.response_id, "generation_id": turn.response_id}
        return {**ids, "text": turn.text, "chat_history": [], "finish_reason": self.finishes[turn.finish]}


class OpenAIShaped(Shape):
    """OpenAI's chat completions, which gpt-oss, Qwen, Kimi, Writer and most later models use."""

    name, needs = "openai", ("messages",)
    caps: ClassVar[tuple[str, ...]] = ("max_completion_tokens", "max_tokens")
    thinks = True

    def _base(self, turn: Turn, what: str) -> Document:
        base = {"id": f"chatcmpl-{turn.number:08d}", "object": what, "created": turn.created}
        return {**base, "model": turn.model}

    def _chunk(self, turn: Turn, delta: Document, reason: str | None) -> Document:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**self._base(turn, "chat.completion.chunk"), "choices": [choice]}

    def head(self, turn: Turn) -> list[Document]:
        return [self._chunk(turn, {"role": "assistant", "content": ""}, None)]

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        if kind == "thought" and not _thinks_in_tags(turn):
            return self._chunk(turn, {"reasoning_content": text}, None)
        return self._chunk(turn, {"content": f"<reasoning>{text}</reasoning>" if kind == "thought" else text}, None)

    def tail(self, turn: Turn) -> list[Document]:
        return [self._chunk(turn, {}, self.finishes[turn.finish])]

    def _usage(self, turn: Turn) -> Document:
        total = turn.prompt_tokens + turn.tokens
        return {"prompt_tokens": turn.prompt_tokens, "completion_tokens": turn.tokens, "total_tokens": total}

    def whole(self, turn: Turn) -> Document:
        message = {"role": "assistant", "content": turn.text}
        if turn.thought and _thinks_in_tags(turn):
            message["content"] = f"<reasoning>{turn.thought}</reasoning>{turn.text}"
        elif turn.thought:
            message["reasoning_content"] = turn.thought
        choice = {"index": 0, "message": message, "finish_reason": self.finishes[turn.finish]}
        return {**self._base(turn, "chat.completion"), "choices": [choice], "usage": self._usage(turn)}


def _thinks_in_tags(turn: Turn) -> bool:
    """Return whether the model sends every piece of reasoning as content in tags, as OpenAI's open models do."""
    return "gpt-oss" in turn.model


class Jamba(OpenAIShaped):
    name, caps, thinks = "jamba", ("max_tokens",), False

    def tail(self, turn: Turn) -> list[Document]:
        return [{**document, "usage": self._usage(turn)} for document in super().tail(turn)]


class DeepSeekText(Plain):
    name = "deepseek-text"

    def part(self, turn: Turn, text: str, reason: str | None) -> Document:
        return {"choices": [{"text": text, "stop_reason": reason}]}


CONVERSE = Converse()
_MESSAGES, _OPENAI = AnthropicMessages(), OpenAIShaped()
# Provider -> the family for bodies with a `prompt`, and the family for all other bodies.
_BY_PROVIDER: dict[str, tuple[Shape, Shape]] = {
    "anthropic": (AnthropicText(), _MESSAGES),
    "meta": (Llama(), Llama()),
    "mistral": (MistralText(), MistralChat()),
    "cohere": (CohereCommand(), CohereCommandR()),
    "ai21": (Jamba(), Jamba()),
    "deepseek": (DeepSeekText(), _OPENAI),
    **dict.fromkeys(("openai", "qwen", "moonshot", "moonshotai", "writer"), (_OPENAI, _OPENAI)),
    # Later providers with the same bodies.
    **dict.fromkeys(("minimax", "nvidia", "zai", "google"), (_OPENAI, _OPENAI)),
}
_TITAN, _NOVA = Titan(), Nova()


def family_of(model: str, body: Mapping[str, Any]) -> Shape | None:
    """Return the family of an Invoke request, or None when it is unknown.

    The body determines the family of an id without a provider, such as an application inference profile.
    """
    provider, rest = provider_of(model)
    if provider == "amazon":
        return _TITAN if rest.startswith("titan") else _NOVA if rest.startswith("nova") else None
    if provider in _BY_PROVIDER:
        return _BY_PROVIDER[provider]["prompt" not in body]
    return _MESSAGES if "anthropic_version" in body else None
