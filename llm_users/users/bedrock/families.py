"""The model families of InvokeModel: the request body and the stream reader of each family, one line per family.

The field names of the bodies are from AWS's pages on the inference parameters of each model. A reader takes one JSON
document of the stream and returns its output as (answer, reasoning) or (answer, reasoning, fragment of a tool call),
`NOTHING` for a document without output, or None for an unknown shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_users.prompts import Prompt
from llm_users.users.bad_events import failure_from
from llm_users.users.bedrock.converse import EVENTS, take_answer, take_event
from llm_users.users.bedrock.converse import conversation as converse_conversation
from llm_users.users.bedrock.events import BedrockEvents
from llm_users.users.openai.reasoning import NO_REASONING, REASONING_NAMES, reasoning_of, split_content, text_of
from llm_users.users.tool_calls import arguments_text, calls_of, without_calls

Body = dict[str, Any]
Builder = Callable[[str, Prompt, int], Body]
"""(model, prompt, cap on output tokens) -> body."""

Document = dict[str, Any]
Output = tuple[str, ...]
NOTHING: Output = ()
Reader = Callable[[BedrockEvents, Document], Output | None]
WholeReader = Callable[[BedrockEvents, Document], bool]


@dataclass(frozen=True, slots=True)
class Family:
    """A model family. ``cap`` is the path to the cap on output tokens in the body, ``terminator`` ends the stream.

    ``read_whole`` reads the document of InvokeModel if it differs from the documents of a stream. It returns False for
    an unknown shape.
    """

    name: str
    body: Builder
    read: Reader
    terminator: str
    cap: tuple[str, ...] = ("max_tokens",)
    read_whole: WholeReader | None = None


# Request bodies.


def turns_of(prompt: Prompt) -> tuple[str, list[tuple[str, str]]]:
    """Return (system text, [(role, text), ...]) of a prompt, for families that take plain text."""
    if prompt.messages is None:
        return "", [("user", prompt.text or "")]
    turns = [(str(message.get("role", "user")), _text_of(message.get("content"))) for message in prompt.messages]
    system = "\n\n".join(text for role, text in turns if role in ("system", "developer"))
    return system, [(role, text) for role, text in turns if role not in ("system", "developer")]


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    """Return the messages of a prompt, for families that take a conversation. Given messages are not changed."""
    if prompt.messages is not None:
        return prompt.messages
    return [{"role": "user", "content": prompt.text or ""}]


def anthropic_conversation(prompt: Prompt) -> tuple[list[dict[str, Any]], Any]:
    """Return (messages, system) in Anthropic's shape, from a text or from messages in Anthropic's or OpenAI's shape."""
    if prompt.messages is None:
        return [{"role": "user", "content": prompt.text or ""}], None
    turns: list[dict[str, Any]] = []
    system: list[dict[str, Any]] = []
    for message in prompt.messages:
        content = message.get("content")
        blocks = content if isinstance(content, str) or content is None else list(map(_anthropic_block, content))
        if message.get("role") == "tool":
            result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": blocks or ""}
            turns.append({"role": "user", "content": [result]})
        elif message.get("tool_calls"):
            texts = [{"type": "text", "text": blocks}] if isinstance(blocks, str) and blocks else blocks or []
            uses = [
                {"type": "tool_use", "id": call.identifier, "name": call.name, "input": call.fields}
                for call in calls_of(message)
            ]
            turns.append({**without_calls(message), "content": [*texts, *uses]})
        elif message.get("role") not in ("system", "developer"):
            turns.append({**message, "content": blocks})
        else:
            system += [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks or []
    if len(system) == 1 and set(system[0]) == {"type", "text"}:
        return turns, system[0]["text"]
    return turns, system or None


def _anthropic_block(part: Any) -> Any:
    """Convert a content part from OpenAI's shape. Parts in Anthropic's shape are returned unchanged."""
    if not isinstance(part, dict) or part.get("type") != "image_url":
        return part
    image = part.get("image_url")
    url = str(image.get("url") if isinstance(image, dict) else image)
    head, _, data = url.partition(";base64,")
    if not data:
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}}


def _anthropic_messages_body(_model: str, prompt: Prompt, cap: int) -> Body:
    turns, system = anthropic_conversation(prompt)
    body: Body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": cap, "messages": turns}
    return {**body, "system": system} if system else body


def _anthropic_text_body(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    names = {"assistant": "Assistant"}
    text = system + "".join(f"\n\n{names.get(role, 'Human')}: {content}" for role, content in turns) + "\n\nAssistant:"
    return {"prompt": text, "max_tokens_to_sample": cap}


def _llama_body(model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    four = "llama4" in model
    head, end = ("<|header_start|>", "<|eot|>") if four else ("<|start_header_id|>", "<|eot_id|>")
    close = "<|header_end|>" if four else "<|end_header_id|>"
    messages = [("system", system), *turns] if system else turns
    text = "".join(f"{head}{role}{close}\n\n{content}{end}" for role, content in messages)
    return {"prompt": f"<|begin_of_text|>{text}{head}assistant{close}\n\n", "max_gen_len": cap}


def _mistral_text_body(_model: str, prompt: Prompt, cap: int) -> Body:
    """Return the body with the prompt in the template of the first Mistral models."""
    system, turns = turns_of(prompt)
    text, opening = "", f"{system}\n\n" if system else ""
    for role, content in turns:
        if role == "assistant":
            text += f" {content}</s>"
        else:
            text += f"<s>[INST] {opening}{content} [/INST]"
            opening = ""
    return {"prompt": text, "max_tokens": cap}


def _nova_body(_model: str, prompt: Prompt, cap: int) -> Body:
    turns, system = converse_conversation(prompt)
    body: Body = {"schemaVersion": "messages-v1", "messages": turns, "inferenceConfig": {"maxTokens": cap}}
    return {**body, "system": system} if system else body


def _deepseek_text_body(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    bar, space = "\uff5c", "\u2581"  # non-ASCII characters of the template
    names = {"assistant": f"<{bar}Assistant{bar}>"}
    text = "".join(names.get(role, f"<{bar}User{bar}>") + content for role, content in turns)
    begin = f"<{bar}begin{space}of{space}sentence{bar}>"
    return {"prompt": f"{begin}{system}{text}<{bar}Assistant{bar}><think>\n", "max_tokens": cap}


def _chat_body(model: str, prompt: Prompt, cap: int) -> Body:
    """Return the body of OpenAI's chat completions, which most newer models use."""
    # OpenAI's own open models accept only the newer name.
    field = "max_completion_tokens" if "openai." in model else "max_tokens"
    return {"messages": messages_of(prompt), field: cap}


# Stream readers.


_MESSAGE_COUNTS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
}


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
        # The count of output tokens is not final.
        events.usage.keep_counts(_MESSAGE_COUNTS, {**(message.get("usage") or {}), "output_tokens": None})
    elif kind == "message_delta":
        events.finish_reason = (document.get("delta") or {}).get("stop_reason") or events.finish_reason
        events.usage.keep_counts(_MESSAGE_COUNTS, document.get("usage") or {})
    elif kind == "message_stop":
        events.finish_reason = events.finish_reason or "message_stop"
        events.stopped = True
    elif kind == "error":
        raise failure_from(document)
    return NOTHING if isinstance(kind, str) else None


def take_message(events: BedrockEvents, message: Document) -> bool:
    """Store a whole message. Return False if the document has no content."""
    if "content" not in message:
        return False
    _anthropic_messages(events, {"type": "message_start", "message": message})
    for block in message["content"] or []:
        output = _anthropic_messages(events, {"type": "content_block_start", "content_block": block})
        if str(block.get("type")).endswith("tool_use"):
            arguments = arguments_text(block.get("input") or {})
            events.add_arguments(arguments)
            events.chunks.add_whole("", call=arguments)
        elif output:
            events.chunks.add_whole(*output[:2])
    if message.get("stop_reason"):
        _anthropic_messages(events, {"type": "message_delta", "delta": message, "usage": message.get("usage")})
        _anthropic_messages(events, {"type": "message_stop"})
    else:
        events.usage.keep_counts(_MESSAGE_COUNTS, message.get("usage") or {})
    return True


def _plain(text_field: str, counts: Mapping[str, str] | None = None) -> Reader:
    """Return the reader of documents with one field of text, ``stop_reason`` and, if ``counts`` is given, counts."""

    def read(events: BedrockEvents, document: Document) -> Output | None:
        if text_field not in document:
            return None
        if counts:
            events.usage.keep_counts(counts, document)
        _finish(events, document.get("stop_reason"))
        return _output(document[text_field], "")

    return read


_LLAMA_COUNTS = {"input_tokens": "prompt_token_count", "output_tokens": "generation_token_count"}


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
    kind = next((name for name in EVENTS if name in document), None)
    if kind is not None:
        take_event(events, kind, document[kind])
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


_CHOICES_COUNTS = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}


def _choices(events: BedrockEvents, document: Document) -> Output | None:
    """Read OpenAI's chunks and variants: ``delta``, ``message`` or ``text``; ``finish_reason`` or ``stop_reason``."""
    if document.get("error"):
        raise failure_from(document["error"])
    usage = document.get("usage")
    if isinstance(usage, dict):
        events.usage.keep_counts(_CHOICES_COUNTS, usage)
    choices = document.get("choices")
    if not isinstance(choices, list):
        return NOTHING if usage else None
    answer = reasoning = calls = ""
    for choice in choices:
        if choice.get("error"):
            raise failure_from(choice["error"])
        delta = choice.get("delta") or choice.get("message") or {}
        content = delta.get("content")
        text, (thought, _) = (content, NO_REASONING) if isinstance(content, str) else split_content(content)
        answer += text_of(choice.get("text")) + text + text_of(delta.get("refusal"))
        reasoning += thought or reasoning_of(map(delta.get, REASONING_NAMES), delta.get("reasoning_details"))[0]
        calls += events.calls.take(delta.get("tool_calls"))
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
        return (text_of(answer), text_of(reasoning))
    return NOTHING


def _arguments(events: BedrockEvents, piece: Any) -> Output:
    if not piece:
        return NOTHING
    text = arguments_text(piece)
    events.add_arguments(text)
    return ("", "", text)


def _finish(events: BedrockEvents, reason: Any) -> None:
    if reason:
        events.finish_reason = str(reason)
        events.stopped = True


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "anthropic-messages",
            _anthropic_messages_body,
            _anthropic_messages,
            "message_stop",
            read_whole=take_message,
        ),
        Family("anthropic-text", _anthropic_text_body, _plain("completion"), "stop_reason", ("max_tokens_to_sample",)),
        Family("llama", _llama_body, _plain("generation", _LLAMA_COUNTS), "stop_reason", ("max_gen_len",)),
        Family("nova", _nova_body, _nova, "messageStop", ("inferenceConfig", "maxTokens"), take_answer),
        Family("mistral-text", _mistral_text_body, _mistral_text, "stop_reason"),
        Family("mistral-chat", _chat_body, _choices, "stop_reason"),
        Family("jamba", _chat_body, _choices, "finish_reason"),
        Family("deepseek-text", _deepseek_text_body, _choices, "stop_reason"),
        Family("openai", _chat_body, _openai, "finish_reason"),
    )
}

# Provider -> [(a part of the model's name, its family)]; the first match is used, and "" matches all names.
_BY_PROVIDER: dict[str, tuple[tuple[str, str], ...]] = {
    "anthropic": (("claude-v", "anthropic-text"), ("claude-instant", "anthropic-text"), ("", "anthropic-messages")),
    "meta": (("", "llama"),),
    "amazon": (("nova", "nova"),),
    "mistral": (
        ("mistral-7b-instruct", "mistral-text"),
        ("mixtral", "mistral-text"),
        ("-2402", "mistral-text"),
        ("", "mistral-chat"),
    ),
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
