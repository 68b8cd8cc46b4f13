"""Detect errors in events, and handle malformed events, for all APIs whose events are JSON.

The module does not depend on an API, on connections or on Locust.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, ClassVar

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
"""Finish reasons, in lower case, of answers that the server did not complete.

OpenRouter, Mistral, vLLM and Cohere send ``error``; vLLM and SGLang send ``abort``."""

_SUCCESS = frozenset(("", "0", "200", "ok", "success", "succeeded", "none", "null"))
"""Codes, states and messages, in lower case, that servers send with successful answers."""

_FAILURE = frozenset(("error", "failed", "failure", "fail"))
"""Values of ``status``, in lower case, that mean a failure."""

_MESSAGES = (
    "message", "msg", "detail", "details", "error_msg", "error_message", "errormessage", "status_msg", "description",
    "title", "text",
)  # fmt: skip
_CODES = ("code", "error_code", "errorcode", "status_code", "type", "__type", "status")

_BESIDE_MESSAGE = frozenset(("message", "msg", "request_id", "requestid", "id", "__type", "error", "object"))
"""Fields that an error may have in addition to its message. A message with other fields may be a progress report."""

_NOT_FINITE = re.compile(rb"[:,\[]\s*-?(?:NaN|Infinity)\b")

_KEEP_ALIVES = frozenset((b"ping", b"pong", b"heartbeat", b"keepalive", b"keep-alive", b"keep_alive"))


class StreamFailure(Exception):
    """An error that the server reported inside the stream. ``code`` is the provider's code."""

    place: ClassVar[str] = "inside the stream"
    """Where the error was, for messages."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class AnswerFailure(StreamFailure):
    """An error that the server reported in the body of an answer that is not streamed, with a status of success."""

    place = "in the body of the answer"


class MalformedEvent(BadResponse):
    """An event that is not valid JSON or has the wrong JSON type."""


class WebPage(BadResponse):
    """A page of HTML instead of an answer of the API: the base URL may be that of a web site."""


def failure_from(error: Any) -> StreamFailure:
    """Return the code and message of an error in any of the shapes that servers send."""
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
        message = "; ".join(map(_detail_text, message))
    return StreamFailure(str(code), message if isinstance(message, str) else json.dumps(message))


def has_message(value: dict[str, Any]) -> bool:
    """Return True if the object has a message or an inner error that ``failure_from`` can read."""
    return any(value[name] for name in value if str(name).lower() in ("error", "errors", *_MESSAGES))


def _detail_text(item: Any) -> str:
    """Return the text of one entry of FastAPI's ``detail`` list."""
    if not isinstance(item, dict):
        return str(item)
    location = item.get("loc")
    where = ".".join(map(str, location)) if isinstance(location, list) else str(location or "")
    return f"{where}: {item.get('msg', '')}".strip(": ")


def error_in(value: dict[str, Any], *, whole: bool = False) -> StreamFailure | None:
    """Return the error in an object that has no output; None if the object is not an error.

    ``whole``: the object is the complete response body, so a message alone is an error.
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
    message = next((text for name in ("message", "msg") if isinstance(text := fields.get(name), str)), None)
    if message is None:
        return None
    if fields.get("code") is not None:
        failed = not _is_success(fields["code"])
    else:
        failed = whole or not set(fields) - _BESIDE_MESSAGE
    kind = str(fields.get("type") or fields.get("__type") or "").lower()
    failed = failed or fields.get("success") is False or str(fields.get("status")).lower() in _FAILURE
    return failure_from(value) if failed or kind.endswith(("error", "exception")) else None


def _is_success(value: Any) -> bool:
    """Return True if a code or an error object belongs to a successful answer."""
    if isinstance(value, dict):
        return all(_is_success(inner) for inner in value.values())
    return not isinstance(value, list) and not isinstance(value, bool) and str(value or "").strip().lower() in _SUCCESS


_MAY_BE_ERROR = re.compile(rb'rror|"detail"|base_resp|"message"|"msg"|\\u', re.IGNORECASE)
"""Finds the names that ``error_in`` looks for. Most events with usage have none, and need not be decoded again."""


def refuse_error(event: bytes | dict[str, Any], *, whole: bool = False) -> None:
    """Raise ``StreamFailure`` if an event without output is an error. ``whole``: see ``error_in``."""
    if isinstance(event, bytes) and not _MAY_BE_ERROR.search(event):
        return
    value = object_from(event) if isinstance(event, bytes) else event
    failure = error_in(value, whole=whole) if value else None
    if failure is not None:
        raise failure


def finish_failure(reasons: Iterable[str | None]) -> StreamFailure | None:
    """Return the failure if one of the finish reasons means a failure; None otherwise."""
    for reason in reasons:
        if reason is not None and reason.lower() in FAILED_REASONS:
            return StreamFailure(reason, f"the answer ended with the finish reason {reason!r}, without a message")
    return None


def is_done(data: bytes) -> bool:
    """Return True for ``[DONE]``, including the variants with white space or in quotes that servers send."""
    return data.strip(b" \t\r\n\"'") == DONE


def is_heartbeat(data: Any) -> bool:
    """Return True for an event that only keeps the connection open."""
    if not isinstance(data, bytes):
        return False
    text = data.strip().lower()
    if not text or text == b"null" or text in _KEEP_ALIVES:
        return True
    if getattr(data, "name", "").encode().lower() in _KEEP_ALIVES:
        return True
    value = json_or_text(data)
    return isinstance(value, dict) and str(value.get("type")).encode().lower() in _KEEP_ALIVES


def object_from(data: bytes) -> dict[str, Any] | None:
    """Parse a JSON object. Return None for ``null``, which some servers send as a keep-alive.

    Raises ``MalformedEvent`` if the data is not a JSON object.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise not_an_event(data, error) from None
    if value is not None and not isinstance(value, dict):
        raise not_an_event(data, TypeError(f"a {type(value).__name__} instead of an object"))
    return value


def object_despite(error: Exception, data: bytes) -> dict[str, Any] | None:
    """Parse data that a strict decoder refused with this error. Return None if the data is not an event.

    Raises ``StreamFailure`` for an error event, ``MalformedEvent`` for data that cannot be parsed.
    """
    name = getattr(data, "name", "").lower()
    if name.endswith(("error", "exception")):
        raise failure_from(json_or_text(data)) from None
    text = data.strip()
    if not text or text.lower() in _KEEP_ALIVES or is_done(text):  # a keep-alive, or a gateway's own terminator
        return None
    if isinstance(data, BareLine):  # a line without a field name, which the grammar ignores
        if is_html(data):
            raise StreamFailure("malformed", f"an HTML page: {words_of_page(data.decode('utf-8', 'replace'))}")
        value = json_or_text(data)
        return value if isinstance(value, dict) else None
    if text.startswith(b"data:"):  # two layers of a server have both written the field name
        return object_despite(error, text[5:]) if not text[5:].lstrip().startswith(b"{") else object_from(text[5:])
    # An unexpected shape; half of a character whose other half is in another event; NaN and Infinity, which Python's
    # JSON encoder writes.
    if isinstance(error, msgspec.ValidationError) or b"\\ud" in data.lower() or _NOT_FINITE.search(data):
        return object_from(data)
    if name not in ("", "message") and not text.startswith((b"{", b"[")):  # a named keep-alive event
        return None
    raise not_an_event(data, error) from None


_TAG = re.compile(r"<(/?\w*+)[^<>]*+>")


def words_of_page(html: str) -> str:
    """Return the text of an HTML page, such as an error page from a gateway in front of the server."""
    texts: list[str] = []
    start, hidden = 0, ""
    for tag in _TAG.finditer(html):
        name = tag[1].lower()
        if not hidden:
            texts.append(html[start : tag.start()])
            hidden = name if name in ("script", "style") else ""
        elif name == f"/{hidden}":
            hidden = ""
        start = tag.end()
    return " ".join(texts if hidden else [*texts, html[start:]])


def json_or_text(data: bytes) -> Any:
    """Return the parsed JSON value, or the text if the data is not JSON."""
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def not_an_event(data: bytes, error: Exception) -> MalformedEvent:
    """Return the error for data that is not a JSON object. The message has the beginning of the data."""
    text = redact(data[:4096].decode("utf-8", "replace"))  # before cutting, because half of a key is still a secret
    return MalformedEvent(f"an event of the stream is not valid JSON ({error}): {text[:80]!r}")
