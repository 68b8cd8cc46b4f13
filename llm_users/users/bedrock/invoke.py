"""Read the answers of InvokeModelWithResponseStream and InvokeModel for all families, and for custom formats.

The module handles JSON documents and JMESPath; it does not depend on boto3 or on connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jmespath
import msgspec

from llm_users.prompts import Prompt
from llm_users.transport.errors import BadResponse
from llm_users.transport.eventstream import Message
from llm_users.users.bad_events import MalformedEvent, object_from, refuse_error
from llm_users.users.bedrock.events import INTERVENED, BedrockEvents, number, raise_exception
from llm_users.users.bedrock.families import (
    FAMILIES,
    NOTHING,
    Document,
    Family,
    Output,
    family_of,
    messages_of,
    turns_of,
)
from llm_users.users.token_counts import count

_SERVICE = "amazon-bedrock-"  # prefix of the fields that the service adds to the model's documents
_METRICS, _GUARDRAIL = f"{_SERVICE}invocationMetrics", f"{_SERVICE}guardrailAction"
_COUNTS = {
    "input_tokens": "inputTokenCount",
    "output_tokens": "outputTokenCount",
    "cache_read_tokens": "cacheReadInputTokenCount",
    "cache_write_tokens": "cacheWriteInputTokenCount",
}

_HEADERS = {  # of InvokeModel's answers
    "latency_ms": "x-amzn-bedrock-invocation-latency",
    "input_tokens": "x-amzn-bedrock-input-token-count",
    "output_tokens": "x-amzn-bedrock-output-token-count",
    "cache_read_tokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cache_write_tokens": "x-amzn-bedrock-cache-write-input-token-count",
}

# Parameters of the operation, with boto3's names; all other keywords are part of the model's body.
PARAMETERS = frozenset(
    ("accept", "contentType", "trace", "guardrailIdentifier", "guardrailVersion", "performanceConfigLatency",
     "serviceTier", "requestMetadata")
)  # fmt: skip

_PATHS = ("text", "reasoning", "finish_reason", "input_tokens", "output_tokens")
_SHOWN_KEYS = 8
_TEXTS = ("outputText", "generation", "completion", "text", "content", "message", "output", "outputs", "results",
          "choices", "generations", "delta")  # fmt: skip

InvokeFormat = str | Mapping[str, Any]
"""The name of a family, or a custom format: see ``custom_family``."""


class _Chunk(msgspec.Struct, gc=False):
    data: bytes = msgspec.field(name="bytes")


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_document = msgspec.json.Decoder(dict[str, Any]).decode


class InvokeEvents(BedrockEvents):
    """Accumulates the chunks of a response stream, which contain the documents of one family."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.terminator = family.terminator
        self._family = family
        self._read = family.read
        self._has_metrics = False  # the service's metrics have arrived
        self._intervened = False  # a guardrail blocked the prompt or the answer
        self._header_numbers: dict[str, float] = {}

    @property
    def complete(self) -> bool:
        # If the terminator is a field of the last chunk, the service's metrics in that chunk mark the end too.
        return self.stopped or (self._has_metrics and self.terminator not in ("message_stop", "messageStop"))

    def take(self, message: Message, stamp_ns: int, clock_ns: int) -> None:
        if message.headers.get(":event-type") != "chunk":
            raise_exception(message)
            return
        try:
            document = _decode_document(_decode_chunk(message.payload).data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadResponse(f"a chunk of the stream is not a JSON object: {error}") from None
        try:
            output = self._read_after_finish(document) if self.stopped else self._read(self, document)
        except (AttributeError, TypeError, KeyError, IndexError):
            output = None
        if document.get(_GUARDRAIL) == "INTERVENED":
            self._intervened = self.stopped = True
            if output is None:  # a shape that only guardrails use
                output = _blocked_text(document)
        if output:
            self.add_chunk(output, stamp_ns, clock_ns)
        elif output is None and not all(key.startswith(_SERVICE) for key in document):
            raise self._not_in_format("a chunk", document)
        if self._intervened:  # the guardrail ended the answer, whatever the model's own finish reason is
            self.finish_reason = INTERVENED
        if self.finish_reason is not None:
            self.chunks.end(self.finish_reason, stamp_ns, clock_ns)
        if self.usage.output_tokens is not None:  # each of Llama's documents has the running count
            self.chunks.count_tokens(self.usage.output_tokens, stamp_ns, clock_ns)
        metrics = document.get(_METRICS)
        if isinstance(metrics, dict):  # the service's counts override the counts of the family
            self._has_metrics = True
            self.usage.keep_counts(_COUNTS, metrics)
            self.usage.keep("latency_ms", number(metrics.get("invocationLatency")))
            self.usage.keep("first_byte_ms", number(metrics.get("firstByteLatency")))
            self.done = self.complete

    def take_whole(self, body: bytes) -> None:
        document = object_from(body) or {}
        if document.get("error"):
            refuse_error(document, whole=True)
        try:
            is_answer = self._take_document(document)
        except (AttributeError, TypeError, KeyError, IndexError):
            is_answer = False
        if document.get(_GUARDRAIL) == "INTERVENED":
            self.stopped, self.finish_reason = True, INTERVENED
            if not is_answer:  # a shape that only guardrails use
                self.chunks.add_whole(*(_blocked_text(document) or ("",)))
        elif not is_answer:
            refuse_error(document, whole=True)
            raise self._not_in_format("the answer", document)
        for name, field in _HEADERS.items():  # the service's counts override the counts of the family
            value = self._header_numbers.get(field)
            self.usage.keep(name, number(value) if name == "latency_ms" else count(value))

    def _take_document(self, document: Document) -> bool:
        """Store the document of InvokeModel. Return False if it does not match the format."""
        if self._family.read_whole is not None:
            return self._family.read_whole(self, document)
        output = self._read(self, document)
        if output:
            answer, reasoning, *call = output
            self.chunks.add_whole(answer, reasoning, call=call[0] if call else None)
        return output is not None

    def take_headers(self, headers: Mapping[str, str]) -> None:
        self._header_numbers = {
            name: value for name in _HEADERS.values() if (value := _number_in(headers.get(name))) is not None
        }

    def _not_in_format(self, what: str, document: Document) -> MalformedEvent:
        keys = ", ".join(list(document)[:_SHOWN_KEYS])
        return MalformedEvent(
            f"{what} does not match the format {self._family.name!r} (keys: {keys}); "
            "set the right format with --llm-invoke-format, or describe it in a JSON file"
        )

    def _read_after_finish(self, document: Document) -> Output | None:
        """Read a document after a finish reason. If it has output, the finish reason is removed."""
        reason, self.finish_reason, self.stopped = self.finish_reason, None, False
        output: Output | None = ()
        try:
            output = self._read(self, document)
        finally:
            if output:
                self.chunks.go_on()
            else:
                self.finish_reason, self.stopped = self.finish_reason or reason, True
        return output


def _number_in(text: str | None) -> float | None:
    """Return the number in a header; None if it has none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _blocked_text(document: Any) -> Output:
    """Return the text that a guardrail sends instead of an answer, in any family's shape."""
    if isinstance(document, list):
        document = next((item for item in document if isinstance(item, dict)), {})
    for name in _TEXTS if isinstance(document, dict) else ():
        value = document.get(name)
        if isinstance(value, str):
            return (value, "") if value else NOTHING
        if isinstance(value, (dict, list)):
            return _blocked_text(value)
    return NOTHING


def choose_family(model: str, wanted: InvokeFormat | None) -> Family:
    """Return the requested format, or else the family of the model id. Raises ValueError if it is unknown."""
    if wanted is None:
        return family_of(model)
    if not isinstance(wanted, str):
        return custom_family(wanted)
    if wanted not in FAMILIES:
        raise ValueError(f"{wanted!r} is not a valid format; use {', '.join(FAMILIES)}, or your own JSON file")
    return FAMILIES[wanted]


def custom_family(form: Mapping[str, Any]) -> Family:
    """Return the family for a custom format. Raises ValueError if the format is invalid.

    ``body`` is the request, in which "{prompt}", "{messages}" and "{max_tokens}" are replaced. ``text`` (required),
    ``reasoning``, ``finish_reason``, ``input_tokens`` and ``output_tokens`` are JMESPath expressions for one chunk::

        {"body": {"inputs": "{prompt}", "parameters": {"max_new_tokens": "{max_tokens}"}},
         "text": "outputs[0].text", "finish_reason": "outputs[0].stop"}
    """
    unknown = set(form) - {"body", *_PATHS}
    if unknown or "text" not in form or not isinstance(form.get("body"), Mapping):
        problem = f"remove {', '.join(sorted(unknown))}" if unknown else '"body" and "text" are required'
        raise ValueError(f"an invoke format has a body and the paths {', '.join(_PATHS)}; {problem}")
    paths = {}
    for name in _PATHS:
        if name in form:
            try:
                paths[name] = jmespath.compile(form[name])
            except jmespath.exceptions.JMESPathError as error:
                raise ValueError(f"the path of {name!r} is not valid JMESPath: {error}") from None
    template = form["body"]

    def body(_model: str, prompt: Prompt, cap: int) -> dict[str, Any]:
        system, turns = turns_of(prompt)
        flat = "\n\n".join(filter(None, [system, *(content for _role, content in turns)]))
        values = {"{prompt}": flat, "{messages}": messages_of(prompt), "{max_tokens}": cap}
        filled: dict[str, Any] = _filled(template, values)
        return filled

    def read(events: BedrockEvents, document: Document) -> Output | None:
        values = {name: path.search(document) for name, path in paths.items()}
        if all(value is None for value in values.values()):
            return None
        if values.get("finish_reason"):
            events.finish_reason, events.stopped = str(values["finish_reason"]), True
        for name in ("input_tokens", "output_tokens"):
            events.usage.keep(name, count(values.get(name)))
        answer, reasoning = values.get("text") or "", values.get("reasoning") or ""
        return (str(answer), str(reasoning)) if answer or reasoning else NOTHING

    return Family("custom", body, read, "finish_reason")


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, Mapping):
        return {name: _filled(value, values) for name, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, values) for value in template]
    if isinstance(template, str):
        if template in values:
            return values[template]
        return template.replace("{prompt}", values["{prompt}"])
    return template


def invoke_body(family: Family, model: str, prompt: Prompt, cap: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's body. Fields of ``extra`` replace ours; inside groups (``inferenceConfig``) one by one."""
    body = family.body(model, prompt, cap)
    if {"max_tokens", "max_completion_tokens"} & set(extra):
        body = {name: value for name, value in body.items() if name not in ("max_tokens", "max_completion_tokens")}
    for name, value in extra.items():
        ours = body.get(name)
        body[name] = {**ours, **value} if isinstance(ours, dict) and isinstance(value, Mapping) else value
    return body


def cap_of(family: Family, body: Mapping[str, Any]) -> int | None:
    """Return the cap on output tokens in a body; None if it has none."""
    for path in (family.cap, ("max_completion_tokens",), ("inferenceConfig", "max_new_tokens")):
        value: Any = body
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if count(value) is not None:
            return count(value)
    return None
