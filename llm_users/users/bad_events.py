"""Events that say what went wrong, and events that are wrong: what every API of JSON events shares.

Knows no API, no transport and no Locust.
"""

from __future__ import annotations

import json
from typing import Any

from llm_users.secrets import redact
from llm_users.transport.errors import BadResponse

_DONE = b"[DONE]"


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
    if isinstance(error, dict):
        inner = error.get("error")
        if isinstance(inner, (dict, str)) and "message" not in error:
            return failure_from(inner)
        message = error.get("message") or error.get("detail") or json.dumps(error)
        code = error.get("code") or error.get("type") or "error"
        return StreamFailure(str(code), message if isinstance(message, str) else json.dumps(message))
    return StreamFailure("error", str(error))


def refuse_bare_error(data: bytes) -> None:
    """Some servers send an error without the word: ``{"object": "error", ...}``, ``{"detail": ...}``."""
    value = json.loads(data)
    if value.get("object") == "error" or "detail" in value or ("message" in value and "code" in value):
        raise failure_from(value)


def object_from(data: bytes) -> dict[str, Any]:
    """The JSON object that this is. Raises ``MalformedEvent``."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise not_an_event(data, error) from None
    if not isinstance(value, dict):
        raise not_an_event(data, TypeError(f"a {type(value).__name__} where an object belongs"))
    return value


def object_despite(error: Exception, data: bytes) -> dict[str, Any] | None:
    """What can be made of data that a strict decoder refused with this error; None when it is no event at all.

    Raises ``StreamFailure`` for what is an error event, ``MalformedEvent`` for the rest.
    """
    if getattr(data, "name", "") == "error":
        raise failure_from(json_or_text(data)) from None
    if not data.strip() or data == _DONE:  # a keep-alive, a gateway's own end
        return None
    if b"\\ud" not in data.lower():
        raise not_an_event(data, error) from None
    return object_from(data)  # half a character, the other half is in another event


def json_or_text(data: bytes) -> Any:
    """The value that this is the JSON of, else the text."""
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def not_an_event(data: bytes, error: Exception) -> MalformedEvent:
    """What to raise for data that is no JSON object, with its beginning."""
    shown = redact(data[:4096].decode("utf-8", "replace"))[:80]  # in this order: half a key is too much
    return MalformedEvent(f"an event of the stream is not valid JSON ({error}): {shown!r}")
