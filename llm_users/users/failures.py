"""Classify errors: convert any exception of a request to the row's ``error_code`` and ``error_message``.

Messages say what failed, where, and what to do. They never contain a secret.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from typing import Any

import gevent
import httpx2
from locust.exception import StopUser

from llm_users.outcome import ABORTED, CLIENT_LIMIT, NOT_CONNECTED, OWN_CODES
from llm_users.record import RequestRecord
from llm_users.secrets import redact, redact_start
from llm_users.transport.errors import TransportError
from llm_users.transport.pool import remedy_for
from llm_users.transport.sse import EventTooLong
from llm_users.users.bad_events import MalformedEvent, StreamFailure, WebPage, failure_from, has_message, words_of_page
from llm_users.users.url_advice import with_tls, with_version

MESSAGE_CHARACTERS = 500
"""Longer messages are cut, because some servers send a whole HTML page."""

EXCERPT_CHARACTERS = 200
"""Length of the excerpt of a checked answer."""

MODEL_ADVICE = "check that --llm-model matches a name that the server lists under /models"

_FORMULA_STARTS = "=+-@ \t\r\n"

CODE_CHARACTERS = 64
"""Limit on codes, because a code inside a stream is free text of the provider and becomes a column value."""

VALUE_CHARACTERS = 200
"""Limit on other column values that a server sets."""


_SDK_CODES = (
    ((httpx2.ConnectError, httpx2.ConnectTimeout), NOT_CONNECTED),
    ((httpx2.TimeoutException,), "timeout"),
    ((httpx2.TransportError,), "reset"),
)


class RequestFailed(Exception):
    """A failed call: the exception for Locust's failures table, which the call raises with ``raise_errors``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


def failure_of(error: BaseException, base_url: str, key_variable: str = "OPENAI_API_KEY") -> tuple[str, str]:
    """Return (error_code, error_message) of any exception that a request can raise."""
    code, message = _classify(error, base_url, key_variable)
    # Locust writes the code at the start of CSV lines, where a provider's code must not become a formula.
    shown = redact_start(code, CODE_CHARACTERS).lstrip(_FORMULA_STARTS) or "error"
    return shown, redact_start(message, MESSAGE_CHARACTERS)


def with_model_advice(message: str, advice: str) -> str:
    """Return the message of a refusal with what is known about the model, instead of the general advice."""
    advised = message.replace(MODEL_ADVICE, advice) if MODEL_ADVICE in message else f"{message} ({advice})"
    return redact_start(advised, MESSAGE_CHARACTERS)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error response, also if the SDK wraps the error; None if there is none."""
    statuses = (getattr(cause, "status_code", None) for cause in _causes(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def error_response_of(error: BaseException) -> httpx2.Response | None:
    """Return the error response that an exception reports; None if there is none.

    The openai SDK raises ``APIStatusError``. Its response is read without its class, because the import of the SDK
    takes 0.35 s, and runs of other APIs do not need it.
    """
    response = getattr(error, "response", None)
    return response if isinstance(response, httpx2.Response) and response.status_code >= 300 else None


def redact_fields(record: RequestRecord) -> None:
    """Remove secrets from the other columns that a server sets, and cut long values."""
    for name in ("response_id", "finish_reason", "latency_mode", "service_tier"):
        value = getattr(record, name)
        if value is not None:
            setattr(record, name, redact_start(str(value), VALUE_CHARACTERS))


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line, without secrets."""
    return redact_start(text, EXCERPT_CHARACTERS)


def shows_no_secret(error: BaseException | None) -> bool:
    """Return True if the error, printed with all its causes, contains no secret."""
    if error is None:
        return False
    printed = "".join(traceback.format_exception(error))
    return redact(printed) == printed


def _classify(error: BaseException, base_url: str, key_variable: str) -> tuple[str, str]:
    if isinstance(error, gevent.Timeout):
        return "timeout", f"the locustfile's own timeout ended the request ({error})"
    if isinstance(error, StopUser) or not isinstance(error, Exception):
        return ABORTED, "the test or the stage ended while the request was in flight"
    if isinstance(error, StreamFailure):
        code = f"server_{error.code}" if error.code in OWN_CODES else error.code
        return code, f"the server reported an error {error.place}: {error.message}"
    if isinstance(error, TransportError):
        url = with_version(base_url) if isinstance(error, WebPage) else None
        advice = f" (the base URL of most servers ends with /v1: write --host {url})" if url else ""
        return error.code, f"{error}{advice}"
    if isinstance(error, RecursionError):
        return "malformed", "the server sent JSON that is nested too deeply"
    if isinstance(error, (MalformedEvent, EventTooLong)):
        return "malformed", str(error)
    if (response := error_response_of(error)) is not None:
        return str(response.status_code), _status_message(response, base_url, key_variable)
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, TransportError):
            return cause.code, str(cause)
    origins = _causes(error, with_contexts=True)
    if limit := next((f"{origin}. {text}" for origin in origins if (text := remedy_for(origin))), ""):
        return CLIENT_LIMIT, f"this machine could not open a connection to {base_url}: {limit}"
    for cause in causes:
        if isinstance(cause, httpx2.TransportError):  # an error of the SDK's own HTTP stack
            code = next(code for kinds, code in _SDK_CODES if isinstance(cause, kinds))
            return code, f"{base_url}: {str(cause) or type(cause).__name__}"
    return type(error).__name__, str(error)


def _causes(error: BaseException, *, with_contexts: bool = False) -> Iterator[BaseException]:
    """Yield the error and its chain of causes, because the SDK wraps our transport's errors.

    ``with_contexts``: also the contexts, because the SDK's HTTP stack sets no cause for system errors.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (cause.__context__ if with_contexts else None)


def _status_message(response: httpx2.Response, base_url: str, key_variable: str) -> str:
    status = response.status_code
    message = _body_message(response) or response.reason_phrase or f"HTTP {status}"
    advice = _status_advice(status, message, response.request.url.path, base_url, key_variable)
    return f"{message} ({advice})" if advice else message


def _status_advice(status: int, message: str, path: str, base_url: str, key_variable: str) -> str | None:
    """Return what to do about an error response, or None."""
    if status == 401:
        return f"the server refused the key, or the key is missing: set {key_variable}"
    if status == 529:  # specific to Anthropic
        return "the service is overloaded for all users; a limit of this account would be a 429"
    if (url := with_tls(base_url, status, message)) is not None:
        return f"the server uses TLS on this port: write --host {url}"
    if status == 404 and "model" in message.lower():
        return MODEL_ADVICE
    if status in (404, 405):
        if (url := with_version(base_url)) is not None:
            return f"the server has no {path}; the base URL of most servers ends with /v1: write --host {url}"
        return f"check that the server supports {path}, and that --llm-model matches a name in /models"
    return None


def _body_message(response: httpx2.Response) -> str:
    """Return the message of an error body in any shape: object, string, ``detail``, plain text, or empty."""
    text = response.text.strip()
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        return words_of_page(text) if text.startswith("<") else text
    if isinstance(body, dict):
        return failure_from(body).message if has_message(body) else text if body else ""
    if isinstance(body, list) and body and all(isinstance(item, dict) for item in body):  # Google's
        return failure_from(body).message
    return body if isinstance(body, str) else text
