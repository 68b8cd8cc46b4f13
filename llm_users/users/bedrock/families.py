"""The model families of InvokeModel: the request body and the stream reader of each family, one line per family.

A reader takes one JSON document of the stream and returns its output as (answer, reasoning) or (answer, reasoning,
fragment of a tool call), `NOTHING` for a document without output, or None for an unknown shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_users.users.bad_events import failure_from
from llm_users.users.bedrock import bodies
from llm_users.users.bedrock.converse import take_metadata
from llm_users.users.bedrock.events import BedrockEvents
from llm_users.users.openai.reasoning import REASONING_NAMES, reasoning_of, split_content
from llm_users.users.token_counts import count
from llm_users.users.tool_calls import arguments_text

Document = dict[str, Any]
Output = tuple[str, ...]
NOTHING: Output = ()
Reader = Callable[[BedrockEvents, Document], Output | None]


@dataclass(frozen=True, slots=True)
class Family:
    """A model family. ``cap`` is the path to the cap on output tokens in the body, ``terminator`` ends the stream."""

    name: str
    body: bodies.Builder
    read: Reader
    terminator: str
    cap: tuple[str, ...] = ("max_tokens",)


def _anthropic_messages(events: BedrockEvents, document: Document) -> Output | None:
    kind = document.get("type")
    if kind == "content_block_delta":
        delta = document.get("delta") or {}
        what = delta.get("type")
        if what == "text_delta":
            return _output(delta.get("text"), "")
        if what == "thinking_delta":
            return _output("", delta.get("thinking"))
        if what == "input_json_delta":
            return _arguments(events, delta.get("partial_json"))
        return NOTHING  # signatures, citations
    if kind == "content_block_start":
        block = document.get("content_block") or {}
        if str(block.get("type")).endswith("tool_use"):  # a tool of the user or of the service
            events.begin_tool(block.get("id"), block.get("name"))
        # Redacted thinking is output without visible text, and arrives as a whole.
        return (
            ("", "") if block.get("type") == "redacted_thinking" else _output(block.get("text"), block.get("thinking"))
        )
    if kind == "message_start":
        message = document.get("message") or {}
        _message_counts(events, {**(message.get("usage") or {}), "output_tokens": None})  # not the final count
    elif kind == "message_delta":
        events.finish_reason = (document.get("delta") or {}).get("stop_reason") or events.finish_reason
        _message_counts(events, document.get("usage") or {})
    elif kind == "message_stop":
        events.finish_reason = events.finish_reason or "message_stop"
        events.stopped = True
    elif kind == "error":
        raise failure_from(document)
    return NOTHING if isinstance(kind, str) else None


_MESSAGE_COUNTS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
}


def _message_counts(events: BedrockEvents, usage: Document) -> None:
    """Store the running counts. A later event replaces the counts of an earlier one."""
    for name, field in _MESSAGE_COUNTS.items():
        events.usage.keep(name, count(usage.get(field)))


def _anthropic_text(events: BedrockEvents, document: Document) -> Output | None:
    if "completion" not in document:
        return None
    _finish(events, document.get("stop_reason"))
    return _output(document["completion"], "")


def _llama(events: BedrockEvents, document: Document) -> Output | None:
    if "generation" not in document:
        return None
    _counts(events, document.get("prompt_token_count"), document.get("generation_token_count"))
    _finish(events, document.get("stop_reason"))
    return _output(document["generation"], "")


def _titan(events: BedrockEvents, document: Document) -> Output | None:
    if "outputText" not in document:
        return None
    _counts(events, document.get("inputTextTokenCount"), document.get("totalOutputTextTokenCount"))
    _finish(events, document.get("completionReason"))
    return _output(document["outputText"], "")


def _nova(events: BedrockEvents, document: Document) -> Output | None:
    """Read Converse's events, which are fields of the document under their names."""
    if "contentBlockDelta" in document:
        delta = document["contentBlockDelta"].get("delta") or {}
        reasoning, tool = delta.get("reasoningContent"), delta.get("toolUse")
        if isinstance(tool, dict):
            return _arguments(events, tool.get("input"))
        if isinstance(reasoning, dict):
            return _output("", reasoning.get("text") or (reasoning.get("reasoningText") or {}).get("text"))
        return _output(delta.get("text"), "")
    if "messageStop" in document:
        events.finish_reason = document["messageStop"].get("stopReason") or "unknown"
        events.stopped = True
    elif "metadata" in document:
        take_metadata(events, document["metadata"])
    elif "contentBlockStart" in document:
        tool = (document["contentBlockStart"].get("start") or {}).get("toolUse")
        if isinstance(tool, dict):
            events.begin_tool(tool.get("toolUseId"), tool.get("name"))
    elif "messageStart" not in document and "contentBlockStop" not in document:
        return None
    return NOTHING


def _mistral_text(events: BedrockEvents, document: Document) -> Output | None:
    outputs = document.get("outputs")
    if not isinstance(outputs, list):
        return None
    output: Document = outputs[0] if outputs else {}
    _finish(events, output.get("stop_reason"))
    return _output(output.get("text"), "")


def _cohere_command(events: BedrockEvents, document: Document) -> Output | None:
    if "is_finished" not in document:
        return None
    if document["is_finished"]:
        _finish(events, document.get("finish_reason") or "is_finished")
    return _output(document.get("text"), "")


def _cohere_command_r(events: BedrockEvents, document: Document) -> Output | None:
    kind = document.get("event_type")
    if kind == "text-generation":
        return _output(document.get("text"), "")
    if kind == "tool-calls-generation":
        for call in document.get("tool_calls") or []:
            events.begin_tool(None, call.get("name"))
            events.add_arguments(arguments_text(call.get("parameters") or {}))
        return ("", "", arguments_text(document["tool_calls"])) if document.get("tool_calls") else NOTHING
    if kind == "stream-end":
        _finish(events, document.get("finish_reason") or "stream-end")
    return NOTHING if isinstance(kind, str) else None


def _choices(events: BedrockEvents, document: Document) -> Output | None:
    """Read OpenAI's chunks and variants: ``delta``, ``message`` or ``text``; ``finish_reason`` or ``stop_reason``."""
    if document.get("error"):
        raise failure_from(document["error"])
    usage = document.get("usage")
    if isinstance(usage, dict):
        _counts(events, usage.get("prompt_tokens"), usage.get("completion_tokens"))
    choices = document.get("choices")
    if not isinstance(choices, list):
        return NOTHING if usage else None
    answer = reasoning = calls = ""
    for choice in choices:
        if choice.get("error"):
            raise failure_from(choice["error"])
        delta = choice.get("delta") or choice.get("message") or {}
        content = delta.get("content")
        text, thought = (content, "") if isinstance(content, str) else _split(content)
        answer += _text(choice.get("text")) + text + _text(delta.get("refusal"))
        reasoning += thought or reasoning_of(map(delta.get, REASONING_NAMES), delta.get("reasoning_details"))[0]
        calls += events.take_calls(delta.get("tool_calls"))
        _finish(events, choice.get("finish_reason") or choice.get("stop_reason"))
    return (answer, reasoning, calls) if calls else _output(answer, reasoning)


def _openai(events: BedrockEvents, document: Document) -> Output | None:
    """Read ``_choices`` for models some of which write their reasoning between tags."""
    output = _choices(events, document)
    if output is None:
        return None
    answer, reasoning = output[:2] or ("", "")
    answer, thought = events.tags.split(answer)
    if events.stopped:
        late_answer, late_thought = events.tags.rest()
        answer, thought = answer + late_answer, thought + late_thought
    return (answer, reasoning + thought, output[2]) if len(output) == 3 else _output(answer, reasoning + thought)


def _output(answer: Any, reasoning: Any) -> Output:
    if answer or reasoning:
        return (_text(answer), _text(reasoning))
    return NOTHING


def _split(content: Any) -> tuple[str, str]:
    """Return (answer, reasoning) of content in parts."""
    answer, reasoning = split_content(content)
    return answer, reasoning[0]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(events: BedrockEvents, piece: Any) -> Output:
    if not piece:
        return NOTHING
    text = arguments_text(piece)
    events.add_arguments(text)
    return ("", "", text)


def _counts(events: BedrockEvents, input_tokens: Any, output_tokens: Any) -> None:
    """Store the counts of the family's documents. The last one is kept."""
    events.usage.keep("input_tokens", count(input_tokens))
    events.usage.keep("output_tokens", count(output_tokens))


def _finish(events: BedrockEvents, reason: Any) -> None:
    if reason:
        events.finish_reason = str(reason)
        events.stopped = True


_TITAN_CAP = ("textGenerationConfig", "maxTokenCount")
_NOVA_CAP = ("inferenceConfig", "maxTokens")

FAMILIES = {
    family.name: family
    for family in (
        Family("anthropic-messages", bodies.anthropic_messages, _anthropic_messages, "message_stop"),
        Family("anthropic-text", bodies.anthropic_text, _anthropic_text, "stop_reason", ("max_tokens_to_sample",)),
        Family("llama", bodies.llama, _llama, "stop_reason", ("max_gen_len",)),
        Family("titan", bodies.titan, _titan, "completionReason", _TITAN_CAP),
        Family("nova", bodies.nova, _nova, "messageStop", _NOVA_CAP),
        Family("mistral-text", bodies.mistral_text, _mistral_text, "stop_reason"),
        Family("mistral-chat", bodies.chat, _choices, "stop_reason"),
        Family("cohere-command", bodies.cohere_command, _cohere_command, "is_finished"),
        Family("cohere-command-r", bodies.cohere_command_r, _cohere_command_r, "stream-end"),
        Family("jamba", bodies.chat, _choices, "finish_reason"),
        Family("deepseek-text", bodies.deepseek_text, _choices, "stop_reason"),
        Family("openai", bodies.chat, _openai, "finish_reason"),
    )
}

# Provider -> [(a part of the model's name, its family)]; the first match is used, and "" matches all names.
_BY_PROVIDER: dict[str, tuple[tuple[str, str], ...]] = {
    "anthropic": (("claude-v", "anthropic-text"), ("claude-instant", "anthropic-text"), ("", "anthropic-messages")),
    "meta": (("", "llama"),),
    "amazon": (("titan", "titan"), ("nova", "nova")),
    "mistral": (
        ("mistral-7b-instruct", "mistral-text"),
        ("mixtral", "mistral-text"),
        ("-2402", "mistral-text"),
        ("", "mistral-chat"),
    ),
    "cohere": (("command-r", "cohere-command-r"), ("", "cohere-command")),
    "ai21": (("jamba", "jamba"),),
    "deepseek": (("r1", "deepseek-text"), ("", "openai")),
    **dict.fromkeys(
        ("openai", "qwen", "moonshot", "moonshotai", "writer", "minimax", "nvidia", "zai", "google"), (("", "openai"),)
    ),
}


def family_of(model: str) -> Family:
    """Return the family of a model id, an inference profile or an ARN. Raises ValueError if it is unknown."""
    identifier = model.rpartition("/")[2]
    parts = identifier.split(".")
    for index, provider in enumerate(parts[:-1]):  # a region may precede the provider
        rest = ".".join(parts[index + 1 :])
        for part, name in _BY_PROVIDER.get(provider, ()):
            if part in rest:
                return FAMILIES[name]
    raise ValueError(
        f"cannot infer the request format of InvokeModel from the model id {model!r}: set --llm-invoke-format "
        f"({', '.join(FAMILIES)}, or a JSON file for your own model), or use --llm-api converse"
    )
