"""Events that say what went wrong, and events that are wrong: what every API of JSON events shares.

Knows no API, no transport's connections and no Locust.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from llm_users.secrets import redact
from llm_users.transport.errors import BadResponse
from llm_users.transport.sse import BareLine, is_html

DONE = b"[DONE]"

FAILED_REASONS = frozenset(
    (
        "error", "abort", "aborted", "cancelled",
        "malformed_model_output", "malformed_tool_use",  # Converse
        "malformed_function_call", "unexpected_tool_call",  # Gemini
        "insufficient_system_resource",  # DeepSeek
        "network_error",  # Zhipu
        "user_cancel",  # Cohere
    )
)  # fmt: skip
"""Finish reasons, in lower case, of answers that the server did not bring to their end.

OpenRouter, Mistral, vLLM and Cohere have ``error``; vLLM and SGLang ``abort``."""

_SUCCESS = frozenset(("", "0", "200", "ok", "success", "succeeded", "none", "null"))
"""Codes, states and messages, in lower case, that servers send with successful answers."""

_FAILURE = frozenset(("error", "failed", "failure", "fail"))
"""Values of ``status`` that say the contrary."""

_MESSAGES = (
    "message", "msg", "detail", "details", "error_msg", "error_message", "errormessage", "status_msg", "description",
    "title", "text",
)  # fmt: skip
_CODES = ("code", "error_code", "errorcode", "status_code", "type", "__type", "status")

_BESIDE_MESSAGE = frozenset(("message", "msg", "request_id", "requestid", "id", "__type", "error", "object"))
"""Of an event that has nothing else, the message is an error; beside a progress or a state it need not be one."""

_NOT_FINITE = re.compile(rb"[:,\[]\s*-?(?:NaN|Infinity)\b")

_KEEP_ALIVES = frozenset((b"ping", b"pong", b"heartbeat", b"keepalive", b"keep-alive", b"keep_alive"))


class StreamFailure(Exception):
    """An error that the server reported inside the stream. ``code`` is the provider's own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class MalformedEvent(BadResponse):
    """An event that is not the JSON it should be."""


def failure_from(error: Any) -> StreamFailure:
    """Code and message of an error in any of the shapes that servers send."""
    if isinstance(error, list):
        failures = [failure_from(item) for item in error] or [StreamFailure("error", "")]
        return StreamFailure(failures[0].code, "; ".join(failure.message for failure in failures))
    if not isinstance(error, dict):
        return StreamFailure("error", str(error))
    fields = {str(name).lower(): value for name, value in error.items()}
    inner = next(
        (fields[name] for name in ("error", "errors") if isinstance(fields.get(name), (dict, str, list))), None
    )
    if inner and not fields.get("message"):
        return failure_from(inner)
    message = next((value for name in _MESSAGES if (value := fields.get(name))), None) or error
    code = next((value for name in _CODES if (value := fields.get(name)) and not isinstance(value, bool)), "error")
    if isinstance(message, list):
        message = "; ".join(map(_validation, message))
    return StreamFailure(str(code), message if isinstance(message, str) else json.dumps(message))


def has_message(value: dict[str, Any]) -> bool:
    """True when there are words, or something inside, that ``failure_from`` finds."""
    return any(value[name] for name in value if str(name).lower() in ("error", "errors", *_MESSAGES))


def _validation(item: Any) -> str:
    """One entry of FastAPI's ``detail`` list."""
    if not isinstance(item, dict):
        return str(item)
    place = item.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else str(place or "")
    return f"{where}: {item.get('msg', '')}".strip(": ")


def error_in(value: dict[str, Any], *, whole: bool = False) -> StreamFailure | None:
    """Return the error in an object that has no output; None when the object is not an error.

    ``whole``: the object is all that the server sent, so that a message alone is an error.
    """
    fields = {str(name).lower(): value for name, value in value.items()}
    error = fields.get("error")
    if error and not _is_success(error):
        return failure_from(value if isinstance(error, (bool, int, float)) else error)
    if fields.get("errors"):
        return failure_from(fields["errors"] if isinstance(fields["errors"], list) else value)
    base = fields.get("base_resp")  # MiniMax
    if isinstance(base, dict) and str(base.get("status_code") or 0) != "0":
        return failure_from(base)
    if fields.get("object") == "error" or fields.get("detail"):
        return failure_from(value)
    if any(str(fields[name] or 0) != "0" for name in ("error_code", "errorcode") if name in fields):  # FastChat, Baidu
        return failure_from(value)
    message = next((words for name in ("message", "msg") if isinstance(words := fields.get(name), str)), None)
    if message is None:
        return None
    if fields.get("code") is not None:
        failed = not _is_success(fields["code"])
    else:
        failed = whole or not set(fields) - _BESIDE_MESSAGE
    kind = str(fields.get("type") or fields.get("__type") or "").lower()
    failed = failed or fields.get("success") is False or str(fields.get("status")).lower() in _FAILURE
    return failure_from(value) if failed or kind.endswith(("error", "exception")) else None


def _is_success(said: Any) -> bool:
    """True for a code, or for an error object, of a successful answer."""
    if isinstance(said, dict):
        return all(_is_success(value) for value in said.values())
    return not isinstance(said, list) and not isinstance(said, bool) and str(said or "").strip().lower() in _SUCCESS


def refuse_error(said: bytes | dict[str, Any], *, whole: bool = False) -> None:
    """Raise ``StreamFailure`` if an object without output is an error."""
    value = object_from(said) if isinstance(said, bytes) else said
    failure = error_in(value, whole=whole) if value else None
    if failure is not None:
        raise failure


def finish_failure(reasons: Iterable[str | None]) -> StreamFailure | None:
    """Return the failure that a finish reason of the answer stands for; None if there is none."""
    for reason in reasons:
        if reason is not None and reason.lower() in FAILED_REASONS:
            return StreamFailure(reason, f"the answer ended with the finish reason {reason!r}, without a message")
    return None


def is_done(data: bytes) -> bool:
    """True for ``[DONE]`` as servers vary it: with white space, in quotes."""
    return data.strip(b" \t\r\n\"'") == DONE


def is_heartbeat(data: Any) -> bool:
    """True for an event that only keeps the connection open."""
    if not isinstance(data, bytes):
        return False
    words = data.strip().lower()
    if not words or words == b"null" or words in _KEEP_ALIVES:
        return True
    if getattr(data, "name", "").encode().lower() in _KEEP_ALIVES:
        return True
    value = json_or_text(data)
    return isinstance(value, dict) and str(value.get("type")).encode().lower() in _KEEP_ALIVES


def object_from(data: bytes) -> dict[str, Any] | None:
    """The JSON object that this is; None for ``null``, which some servers send as a keep-alive. Raises
    ``MalformedEvent``."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise not_an_event(data, error) from None
    if value is not None and not isinstance(value, dict):
        raise not_an_event(data, TypeError(f"a {type(value).__name__} where an object belongs"))
    return value


def object_despite(error: Exception, data: bytes) -> dict[str, Any] | None:
    """What can be made of data that a strict decoder refused with this error; None when it is no event at all.

    Raises ``StreamFailure`` for what is an error event, ``MalformedEvent`` for the rest.
    """
    name = getattr(data, "name", "").lower()
    if name.endswith(("error", "exception")):
        raise failure_from(json_or_text(data)) from None
    words = data.strip()
    if not words or words.lower() in _KEEP_ALIVES or is_done(words):  # a keep-alive, a gateway's own end
        return None
    if isinstance(data, BareLine):
        return _object_of_line(data)
    if words.startswith(b"data:"):  # two layers of a server have each written the field's name
        return object_despite(error, words[5:]) if not words[5:].lstrip().startswith(b"{") else object_from(words[5:])
    # A shape that was not expected; half a character, whose other half is in another event; NaN and Infinity, which
    # Python's writer of JSON lets through.
    if isinstance(error, msgspec.ValidationError) or b"\\ud" in data.lower() or _NOT_FINITE.search(data):
        return object_from(data)
    if name not in ("", "message") and not words.startswith((b"{", b"[")):  # a named heartbeat
        return None
    raise not_an_event(data, error) from None


def _object_of_line(line: bytes) -> dict[str, Any] | None:
    """The object that a line without a field name is; None for what the grammar says to skip."""
    if is_html(line):
        raise StreamFailure("malformed", f"a page of HTML: {words_of_page(line.decode('utf-8', 'replace'))}")
    value = json_or_text(line)
    return value if isinstance(value, dict) else None


_TAG = re.compile(r"<(/?\w*+)[^<>]*+>")


def words_of_page(html: str) -> str:
    """What a page of HTML says, as of a gateway before the server."""
    words: list[str] = []
    start, hidden = 0, ""
    for tag in _TAG.finditer(html):
        name = tag[1].lower()
        if not hidden:
            words.append(html[start : tag.start()])
            hidden = name if name in ("script", "style") else ""
        elif name == f"/{hidden}":
            hidden = ""
        start = tag.end()
    return " ".join(words if hidden else [*words, html[start:]])


def json_or_text(data: bytes) -> Any:
    """The value that this is the JSON of, else the text."""
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def not_an_event(data: bytes, error: Exception) -> MalformedEvent:
    """What to raise for data that is no JSON object, with its beginning."""
    return MalformedEvent(f"an event of the stream is not valid JSON ({error}): {_shown(data)!r}")


def _shown(data: bytes) -> str:
    """The beginning of data, for a message."""
    return redact(data[:4096].decode("utf-8", "replace"))[:80]  # in this order: half a key is too much
