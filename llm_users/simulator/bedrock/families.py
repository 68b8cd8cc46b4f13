"""The JSON documents of each model family: those of its stream, its unstreamed answer, and the family of a request.

A `Shape` returns documents; it does not depend on frames or on the schedule. The field names and the order of events
come from AWS's pages on the inference parameters of each model.
"""

# ruff: noqa: ARG002 (a shared interface, of which no family needs every parameter)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

Document = dict[str, Any]
_SIGNATURE = "c2ltdWxhdGVk"


@dataclass(slots=True)
class Turn:
    """The values of one answer that its documents contain. `finish` is length, stop or tool."""

    response_id: str
    number: int
    model: str
    created: int
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    thought_tokens: int
    finish: str
    latency_ms: int = 0
    used: Document = field(default_factory=dict)  # latency mode and service tier, if the request has them
    thought: str = ""
    text: str = ""
    call: str = ""

    @property
    def fresh_tokens(self) -> int:
        """The input tokens without cached tokens, which AWS counts separately."""
        return self.prompt_tokens - self.cached_tokens

    def shown(self, thought: Document, text: Document, call: Document) -> list[Document]:
        """Return those of the three documents whose kind of output the answer has."""
        pairs = ((self.thought, thought), (self.text, text), (self.call, call))
        return [document for output, document in pairs if output]


RUNNING_COUNT = 1234567890
"""Placeholder in a delta document for the number of tokens so far."""


class Shape:
    """A model family. The kinds of output are `thought`, `text` and `tool`; every kind is one block with an index."""

    caps: ClassVar[tuple[str, ...]] = ("max_tokens",)
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    thinks: ClassVar[bool] = False
    calls: ClassVar[bool] = False
    summary: ClassVar[str] = "thought"
    """The kind of output of a reasoning summary; it differs from `thought` where the API distinguishes the two."""
    finishes: ClassVar[Mapping[str, str]] = {"length": "length", "stop": "stop"}

    def complaint(self, body: Mapping[str, Any]) -> str:
        """Return why the API rejects this body, apart from missing fields; empty for a valid body."""
        return ""

    def head(self, turn: Turn) -> list[Document]:
        """Return the documents before the first token; they contain no output."""
        return []

    def opens(self, kind: str, index: int) -> list[Document]:
        return []

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        raise NotImplementedError

    def closes(self, kind: str, index: int) -> list[Document]:
        return []

    def tail(self, turn: Turn) -> list[Document]:
        """Return the documents after the last token; the last one carries the metrics of the invocation."""
        raise NotImplementedError

    def whole(self, turn: Turn) -> Document:
        raise NotImplementedError


class Plain(Shape):
    """A family whose stream repeats one kind of document; the last document has the stop reason."""

    def part(self, turn: Turn, text: str, reason: str | None) -> Document:
        raise NotImplementedError

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        return self.part(turn, text, None)

    def tail(self, turn: Turn) -> list[Document]:
        return [self.part(turn, "", self.finishes[turn.finish])]

    def whole(self, turn: Turn) -> Document:
        return self.part(turn, turn.text, self.finishes[turn.finish])


class AnthropicMessages(Shape):
    needs: ClassVar[tuple[str, ...]] = ("anthropic_version", "max_tokens", "messages")
    thinks = calls = True
    finishes: ClassVar = {"length": "max_tokens", "stop": "end_turn", "tool": "tool_use"}

    def _message(self, turn: Turn, content: list[Document], **more: Any) -> Document:
        usage: Document = {"input_tokens": turn.fresh_tokens}
        if turn.cached_tokens:
            usage |= {"cache_read_input_tokens": turn.cached_tokens, "cache_creation_input_tokens": 0}
        fields = {"id": f"msg_bdrk_{turn.number:08d}", "type": "message", "role": "assistant", "model": turn.model}
        return {**fields, "content": content, "stop_reason": None, "stop_sequence": None, **more, "usage": usage}

    def head(self, turn: Turn) -> list[Document]:
        message = self._message(turn, [])
        message["usage"]["output_tokens"] = 1
        return [{"type": "message_start", "message": message}]

    def opens(self, kind: str, index: int) -> list[Document]:
        blocks: dict[str, Document] = {
            "thought": {"type": "thinking", "thinking": "", "signature": ""},
            "text": {"type": "text", "text": ""},
            "tool": {"type": "tool_use", "id": "toolu_bdrk_simulated", "name": "simulated", "input": {}},
        }
        return [{"type": "content_block_start", "index": index, "content_block": blocks[kind]}]

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        deltas: dict[str, Document] = {
            "thought": {"type": "thinking_delta", "thinking": text},
            "text": {"type": "text_delta", "text": text},
            "tool": {"type": "input_json_delta", "partial_json": text},
        }
        return {"type": "content_block_delta", "index": index, "delta": deltas[kind]}

    def closes(self, kind: str, index: int) -> list[Document]:
        signature = {"type": "signature_delta", "signature": _SIGNATURE}
        signed = [{"type": "content_block_delta", "index": index, "delta": signature}] if kind == "thought" else []
        return [*signed, {"type": "content_block_stop", "index": index}]

    def tail(self, turn: Turn) -> list[Document]:
        delta = {"stop_reason": self.finishes[turn.finish], "stop_sequence": None}
        usage = {"output_tokens": turn.tokens}
        return [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]

    def whole(self, turn: Turn) -> Document:
        call = {"id": "toolu_bdrk_simulated", "name": "simulated", "input": {"text": turn.call}}
        content = turn.shown(
            {"type": "thinking", "thinking": turn.thought, "signature": _SIGNATURE},
            {"type": "text", "text": turn.text},
            {"type": "tool_use", **call},
        )
        message = self._message(turn, content, stop_reason=self.finishes[turn.finish])
        message["usage"]["output_tokens"] = turn.tokens
        return message


class AnthropicText(Plain):
    """The format of Claude 2 and Instant, which the first LLMPerf runs on Bedrock used."""

    caps, needs = ("max_tokens_to_sample",), ("prompt", "max_tokens_to_sample")
    finishes: ClassVar = {"length": "max_tokens", "stop": "stop_sequence"}

    def complaint(self, body: Mapping[str, Any]) -> str:
        prompt = str(body["prompt"])
        human = prompt.find("\n\nHuman:")
        if human < 0:
            return 'Invalid prompt: prompt must start with "\\n\\nHuman:" turn after an optional system prompt'
        if "\n\nAssistant:" not in prompt[human:]:
            return 'Invalid prompt: prompt must end with "\\n\\nAssistant:" turn'
        return ""

    def part(self, turn: Turn, text: str, reason: str | None) -> Document:
        stop = "\n\nHuman:" if reason == "stop_sequence" else None
        return {"type": "completion", "completion": text, "stop_reason": reason, "stop": stop}

    def whole(self, turn: Turn) -> Document:
        # Every completion of this model starts with a space.
        return self.part(turn, " " + turn.text, self.finishes[turn.finish])


class Llama(Shape):
    caps = ("max_gen_len",)

    def _generation(self, text: str, prompt: int | None, count: int | None, reason: str | None) -> Document:
        counts = {"prompt_token_count": prompt, "generation_token_count": count}
        return {"generation": text, **counts, "stop_reason": reason}

    def head(self, turn: Turn) -> list[Document]:
        return [self._generation("", turn.prompt_tokens, 0, None)]

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        return self._generation(text, None, RUNNING_COUNT, None)

    def tail(self, turn: Turn) -> list[Document]:
        return [self._generation("", None, turn.tokens, self.finishes[turn.finish])]

    def whole(self, turn: Turn) -> Document:
        return self._generation(turn.text, turn.prompt_tokens, turn.tokens, self.finishes[turn.finish])


class Nova(Shape):
    """Converse's documents, one per chunk, with the event name as the key."""

    needs = ("messages",)
    caps: ClassVar[tuple[str, ...]] = ("inferenceConfig.maxTokens", "inferenceConfig.max_new_tokens")
    thinks = calls = True
    finishes: ClassVar = {"length": "max_tokens", "stop": "end_turn", "tool": "tool_use"}

    def head(self, turn: Turn) -> list[Document]:
        return [{"messageStart": {"role": "assistant"}}]

    def opens(self, kind: str, index: int) -> list[Document]:
        if kind != "tool":
            return []
        start = {"toolUse": {"toolUseId": "tooluse_simulated", "name": "simulated"}}
        return [{"contentBlockStart": {"start": start, "contentBlockIndex": index}}]

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        deltas: dict[str, Document] = {
            "thought": {"reasoningContent": {"text": text}},
            "text": {"text": text},
            "tool": {"toolUse": {"input": text}},
        }
        return {"contentBlockDelta": {"delta": deltas[kind], "contentBlockIndex": index}}

    def closes(self, kind: str, index: int) -> list[Document]:
        return [{"contentBlockStop": {"contentBlockIndex": index}}]

    def tail(self, turn: Turn) -> list[Document]:
        stop = {"messageStop": {"stopReason": self.finishes[turn.finish]}}
        return [stop, {"metadata": {"usage": self._usage(turn), "metrics": {}, "trace": {}}}]

    def _usage(self, turn: Turn) -> Document:
        usage = {"inputTokens": turn.fresh_tokens, "outputTokens": turn.tokens}
        return {**usage, "cacheReadInputTokenCount": turn.cached_tokens, "cacheWriteInputTokenCount": 0}

    def whole(self, turn: Turn) -> Document:
        thought = {"text": turn.thought, "signature": _SIGNATURE}
        call = {"toolUseId": "tooluse_simulated", "name": "simulated", "input": {"text": turn.call}}
        content = turn.shown({"reasoningContent": {"reasoningText": thought}}, {"text": turn.text}, {"toolUse": call})
        usage = {**self._usage(turn), "totalTokens": turn.prompt_tokens + turn.tokens}
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": self.finishes[turn.finish],
            "usage": usage,
        }


class Converse(Nova):
    """The API that is the same for all families; its metadata differs from Nova's."""

    caps = ("inferenceConfig.maxTokens",)

    def closes(self, kind: str, index: int) -> list[Document]:
        signature = {"reasoningContent": {"signature": _SIGNATURE}}
        signed = [{"contentBlockDelta": {"delta": signature, "contentBlockIndex": index}}] if kind == "thought" else []
        return [*signed, *super().closes(kind, index)]

    def tail(self, turn: Turn) -> list[Document]:
        metadata = {"usage": self._usage(turn), "metrics": {"latencyMs": turn.latency_ms}, **turn.used}
        return [{"messageStop": {"stopReason": self.finishes[turn.finish]}}, {"metadata": metadata}]

    def _usage(self, turn: Turn) -> Document:
        total = turn.prompt_tokens + turn.tokens
        usage = {"inputTokens": turn.fresh_tokens, "outputTokens": turn.tokens, "totalTokens": total}
        if turn.cached_tokens:
            usage |= {"cacheReadInputTokens": turn.cached_tokens, "cacheWriteInputTokens": 0}
        return usage

    def whole(self, turn: Turn) -> Document:
        metrics = {"latencyMs": turn.latency_ms}
        return {**super().whole(turn), "usage": self._usage(turn), "metrics": metrics, **turn.used}


class MistralText(Plain):
    def part(self, turn: Turn, text: str, reason: str | None) -> Document:
        return {"outputs": [{"text": text, "stop_reason": reason}]}


class MistralChat(Plain):
    needs = ("messages",)

    def part(self, turn: Turn, text: str, reason: str | None) -> Document:
        message = {"role": "assistant", "content": text}
        return {"choices": [{"index": 0, "message": message, "stop_reason": reason}]}


class OpenAIShaped(Shape):
    """OpenAI's chat completions, which gpt-oss, Qwen, Kimi, Writer and most later models use."""

    needs = ("messages",)
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
    caps, thinks = ("max_tokens",), False

    def tail(self, turn: Turn) -> list[Document]:
        return [{**document, "usage": self._usage(turn)} for document in super().tail(turn)]


class DeepSeekText(Plain):
    def part(self, turn: Turn, text: str, reason: str | None) -> Document:
        return {"choices": [{"text": text, "stop_reason": reason}]}


CONVERSE = Converse()
_MESSAGES, _OPENAI = AnthropicMessages(), OpenAIShaped()
# Provider -> the family for bodies with a `prompt`, and the family for all other bodies.
_BY_PROVIDER: dict[str, tuple[Shape, Shape]] = {
    "anthropic": (AnthropicText(), _MESSAGES),
    "meta": (Llama(), Llama()),
    "mistral": (MistralText(), MistralChat()),
    "ai21": (Jamba(), Jamba()),
    "deepseek": (DeepSeekText(), _OPENAI),
    **dict.fromkeys(
        ("openai", "qwen", "moonshot", "moonshotai", "writer", "minimax", "nvidia", "zai", "google"), (_OPENAI, _OPENAI)
    ),
}
_NOVA = Nova()


def family_of(model: str, body: Mapping[str, Any]) -> Shape | None:
    """Return the family of an Invoke request, or None when it is unknown.

    The body determines the family of an id without a provider, such as an application inference profile.
    """
    provider, rest = provider_of(model)
    if provider == "amazon":
        return _NOVA if rest.startswith("nova") else None
    if provider in _BY_PROVIDER:
        return _BY_PROVIDER[provider]["prompt" not in body]
    return _MESSAGES if "anthropic_version" in body else None


def provider_of(model: str) -> tuple[str, str]:
    """Return the provider and the rest of a model id or an ARN, without a region prefix."""
    provider, _, rest = model.rpartition("/")[2].partition(".")
    if provider in _REGIONS and "." in rest:
        provider, _, rest = rest.partition(".")
    return provider, rest


_REGIONS = {"us", "eu", "apac", "jp", "au", "ca", "sa", "us-gov", "global", "in", "mx", "il", "me", "uk"}
