"""Build requests for ConverseStream and Converse, and read their answers, which are the same for all models.

The module handles the documents of the API; it does not depend on boto3 or on connections.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_users.prompts import Prompt
from llm_users.transport.errors import BadResponse
from llm_users.transport.eventstream import Message
from llm_users.users.bad_events import MalformedEvent, object_from, refuse_error
from llm_users.users.bedrock.events import BedrockEvents, json_object, number, raise_exception
from llm_users.users.openai.reasoning import text_of
from llm_users.users.tool_calls import arguments_text, calls_of, without_calls

# Common names of sampling parameters -> Converse's names inside inferenceConfig.
_INFERENCE = {
    "maxTokens": "maxTokens",
    "max_tokens": "maxTokens",
    "temperature": "temperature",
    "topP": "topP",
    "top_p": "topP",
    "stopSequences": "stopSequences",
    "stop_sequences": "stopSequences",
    "stop": "stopSequences",
}


def converse_request(
    model: str,
    prompt: Prompt,
    cap: int,
    system: str | Sequence[dict[str, Any]] | None,
    metadata: Mapping[str, str],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the parameters of the operation. ``extra`` has the user's parameters for Converse or inferenceConfig."""
    turns, instructions = conversation(prompt)
    if system is not None:
        instructions = [{"text": system}] if isinstance(system, str) else list(system)
    inference: dict[str, Any] = {"maxTokens": cap}
    request: dict[str, Any] = {"modelId": model, "messages": turns}
    if instructions:
        request["system"] = instructions
    for name, value in extra.items():
        if name in _INFERENCE:
            stops = _INFERENCE[name] == "stopSequences"
            inference[_INFERENCE[name]] = [value] if stops and isinstance(value, str) else value
        elif name not in ("inferenceConfig", "requestMetadata"):
            request[name] = value
    inference.update(extra.get("inferenceConfig") or {})
    request["inferenceConfig"] = inference
    tags = {**metadata, **(extra.get("requestMetadata") or {})}
    if tags:
        request["requestMetadata"] = tags
    return request


def conversation(prompt: Prompt) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (messages, system) in Converse's shape, from a text or from messages in Converse's or OpenAI's shape."""
    if prompt.messages is None:
        return [{"role": "user", "content": [{"text": prompt.text or ""}]}], []
    turns: list[dict[str, Any]] = []
    system: list[dict[str, Any]] = []
    for message in prompt.messages:
        content = message.get("content")
        blocks = [{"text": content}] if isinstance(content, str) else [_block(part) for part in content or []]
        if message.get("role") in ("system", "developer"):
            system += blocks
        elif message.get("role") == "tool":
            result = {"toolUseId": message.get("tool_call_id"), "content": blocks}
            turns.append({"role": "user", "content": [{"toolResult": result}]})
        elif message.get("tool_calls"):
            uses = [
                {"toolUse": {"toolUseId": call.identifier, "name": call.name, "input": call.fields}}
                for call in calls_of(message)
            ]
            texts = blocks if message.get("content") else []  # Converse refuses an empty text
            turns.append({**without_calls(message), "content": [*texts, *uses]})
        else:
            turns.append({**message, "content": blocks})
    return turns, system


def _block(part: Any) -> Any:
    """Convert a content part from OpenAI's shape. Parts in Converse's shape are returned unchanged."""
    if not isinstance(part, dict) or "type" not in part:
        return part
    if part["type"] == "image_url":
        url = part["image_url"]["url"] if isinstance(part["image_url"], dict) else part["image_url"]
        head, _, data = str(url).partition(",")
        if not head.startswith("data:image/"):
            raise ValueError("Converse accepts images only as data: use a data:image/...;base64,... URL")
        kind = head.removeprefix("data:image/").partition(";")[0]
        return {"image": {"format": "jpeg" if kind == "jpg" else kind, "source": {"bytes": base64.b64decode(data)}}}
    return {"text": part.get("text", "")}


class _Reasoning(msgspec.Struct, gc=False):
    text: str | None = None
    redactedContent: str | None = None


class _ToolUse(msgspec.Struct, gc=False):
    input: Any = ""


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    reasoningContent: _Reasoning | None = None
    toolUse: _ToolUse | None = None


class _DeltaEvent(msgspec.Struct, gc=False):
    delta: _Delta


_decode_delta = msgspec.json.Decoder(_DeltaEvent).decode


class ConverseEvents(BedrockEvents):
    """Accumulates the events of ConverseStream."""

    def take(self, message: Message, stamp_ns: int, clock_ns: int) -> None:
        kind = message.headers.get(":event-type")
        if kind != "contentBlockDelta":
            self._other(kind, message)
            if self.finish_reason is not None:
                self.chunks.end(self.finish_reason, stamp_ns, clock_ns)
            return
        try:
            delta = _decode_delta(message.payload).delta
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadResponse(f"a contentBlockDelta event is invalid: {error}") from None
        text = delta.text
        if text:
            self.chunks.add(stamp_ns, clock_ns, text, "")
        elif delta.reasoningContent is not None:
            reasoning = delta.reasoningContent
            # Redacted reasoning is output without visible text; a signature is not output.
            if reasoning.text or reasoning.redactedContent:
                self.chunks.add(stamp_ns, clock_ns, "", reasoning.text or "")
        elif delta.toolUse is not None and delta.toolUse.input:
            arguments = arguments_text(delta.toolUse.input)
            self.add_arguments(arguments)
            self.chunks.add_other(stamp_ns, clock_ns, "", arguments)

    def _other(self, kind: Any, message: Message) -> None:
        if kind is None or message.headers.get(":message-type") != "event":
            raise_exception(message)
            return
        if kind not in EVENTS:
            return  # messageStart, contentBlockStop, and events that the service may add later
        fields = json_object(message.payload)
        if fields is None:
            raise BadResponse(f"the event {kind} is not a JSON object")
        take_event(self, kind, fields)
        if kind == "metadata":
            self.done = self.stopped

    def take_whole(self, body: bytes) -> None:
        document = object_from(body) or {}
        if not take_answer(self, document):
            refuse_error(document, whole=True)


EVENTS = ("contentBlockStart", "messageStop", "metadata")
"""The events that ``take_event`` reads."""

_COUNTS = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "cache_read_tokens": "cacheReadInputTokens",
    "cache_write_tokens": "cacheWriteInputTokens",
}
_CACHE_COUNTS_OF_NOVA = {name: f"{_COUNTS[name]}Count" for name in ("cache_read_tokens", "cache_write_tokens")}


def take_answer(events: BedrockEvents, document: Mapping[str, Any]) -> bool:
    """Store the whole answer of Converse. Return False if the document has no answer.

    Raises ``MalformedEvent`` for an answer of a wrong shape.
    """
    if "output" not in document:
        return False
    try:
        for block in (document["output"].get("message") or {}).get("content") or []:
            _take_block(events, block)
        if document.get("stopReason"):
            take_event(events, "messageStop", document)
        take_event(events, "metadata", document)
    except (AttributeError, TypeError):
        raise MalformedEvent("the answer does not have the shape of Converse") from None
    return True


def _take_block(events: BedrockEvents, block: Mapping[str, Any]) -> None:
    """Store one block of the content of a whole answer."""
    reasoning, tool = block.get("reasoningContent"), block.get("toolUse")
    if tool is not None:
        events.begin_tool(tool.get("toolUseId"), tool.get("name"))
        arguments = arguments_text(tool.get("input"))
        events.add_arguments(arguments)
        events.chunks.add_whole("", call=arguments)
    elif reasoning is not None:  # redacted reasoning is output without visible text
        events.chunks.add_whole("", text_of((reasoning.get("reasoningText") or {}).get("text")))
    elif block.get("text"):
        events.chunks.add_whole(text_of(block["text"]))


def take_event(events: BedrockEvents, kind: Any, fields: Mapping[str, Any]) -> None:
    """Store the beginning of a tool call, the finish reason, or the service's counts and settings."""
    if kind == "contentBlockStart":
        tool = (fields.get("start") or {}).get("toolUse")
        if isinstance(tool, dict):
            events.begin_tool(tool.get("toolUseId"), tool.get("name"))
    elif kind == "messageStop":
        events.stopped = True
        events.finish_reason = str(fields.get("stopReason") or "unknown")
    else:
        usage, counts = events.usage, fields.get("usage") or {}
        usage.keep_counts(_CACHE_COUNTS_OF_NOVA, counts)
        usage.keep_counts(_COUNTS, counts)
        usage.latency_ms = number((fields.get("metrics") or {}).get("latencyMs"))
        # The latency mode and the service tier that were actually used.
        usage.latency_mode = (fields.get("performanceConfig") or {}).get("latency") or usage.latency_mode
        usage.service_tier = (fields.get("serviceTier") or {}).get("type") or usage.service_tier
