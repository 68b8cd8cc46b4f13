"""The one classification of errors: from whatever was raised to the row's ``error_code`` and ``error_message``.

Messages say what was wrong, where, and what to do, and never hold a secret.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from typing import Any

import gevent
import httpx2
import openai
from locust.exception import StopUser

from llm_users.outcome import ABORTED, CLIENT_LIMIT, OWN_CODES
from llm_users.record import RequestRecord
from llm_users.secrets import redact, redact_start
from llm_users.transport.client_limits import remedy_for
from llm_users.transport.errors import TransportError
from llm_users.transport.sse import EventTooLong
from llm_users.users.bad_events import MalformedEvent, StreamFailure, failure_from, has_message, words_of_page

MESSAGE_CHARACTERS = 500
"""Longer messages are cut: some servers send a whole page of HTML."""


EXCERPT_CHARACTERS = 200
"""Of an answer that was checked."""

_FORMULA_STARTS = "=+-@ \t\r\n"

CODE_CHARACTERS = 64
"""Codes inside a stream are the provider's own text, and column values."""


VALUE_CHARACTERS = 200
"""Of what a server says in the other columns."""


class RequestFailed(Exception):
    """What a failed call becomes in Locust's failures table, and what it raises with ``raise_errors``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


def failure_of(error: BaseException, base_url: str, key_variable: str = "OPENAI_API_KEY") -> tuple[str, str]:
    """(error_code, error_message) of anything that a request can raise."""
    code, message = _classify(error, base_url, key_variable)
    # Locust begins lines of its own CSV files with the code: a provider's must not become a formula there.
    shown = redact_start(code, CODE_CHARACTERS).lstrip(_FORMULA_STARTS) or "error"
    return shown, redact_start(message, MESSAGE_CHARACTERS)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an answer that was an error, also of one that comes wrapped by the SDK."""
    statuses = (getattr(cause, "status_code", None) for cause in _causes(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def redact_fields(record: RequestRecord) -> None:
    """Take secrets, and what is longer than any name, out of what a server may have put into the other columns."""
    for name in ("response_id", "finish_reason", "latency_mode", "service_tier"):
        value = getattr(record, name)
        if value is not None:
            setattr(record, name, redact_start(str(value), VALUE_CHARACTERS))


def excerpt(text: str) -> str:
    """The beginning of a text on one line, without secrets."""
    return redact_start(text, EXCERPT_CHARACTERS)


def shows_no_secret(error: BaseException | None) -> bool:
    """True when the error, printed with all its causes, has nothing to hide."""
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
        return code, f"the server reported an error inside the stream: {error.message}"
    if isinstance(error, TransportError):
        return error.code, str(error)
    if isinstance(error, RecursionError):
        return "malformed", "what the server sent is nested more deeply than anybody means"
    if isinstance(error, (MalformedEvent, EventTooLong)):
        return "malformed", str(error)
    if isinstance(error, openai.APIStatusError):
        return str(error.status_code), _status_message(error, base_url, key_variable)
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, TransportError):
            return cause.code, str(cause)
    if limit := next((f"{origin}. {text}" for origin in _origins(error) if (text := remedy_for(origin))), ""):
        return CLIENT_LIMIT, f"this machine could not open a connection to {base_url}: {limit}"
    for cause in causes:
        if isinstance(cause, httpx2.TransportError):
            return _sdk_code(cause), f"{base_url}: {str(cause) or type(cause).__name__}"
    return type(error).__name__, str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on: our transport's own errors come wrapped by the SDK."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _origins(error: BaseException) -> Iterator[BaseException]:
    """The causes, and what was being handled when one was raised: the SDK's HTTP stack names no cause for the system's
    own errors."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _sdk_code(error: httpx2.TransportError) -> str:
    """The code of what the SDK's own HTTP stack raises."""
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        return "connect"
    if isinstance(error, httpx2.TimeoutException):
        return "timeout"
    return "reset"


def _status_message(error: openai.APIStatusError, base_url: str, key_variable: str) -> str:
    status = error.status_code
    message = _body_message(error) or error.response.reason_phrase or f"HTTP {status}"
    path = error.request.url.path
    if status == 401:
        return f"{message} (the key was refused or is missing: set {key_variable})"
    if status == 529:  # Anthropic's own
        return f"{message} (the service is overloaded for everybody; a limit of this account would be a 429)"
    if status == 404 and "model" in message.lower():
        return f"{message} (is --llm-model spelled as the server lists it under /models?)"
    if status == 404 and not base_url.rstrip("/").endswith(("/v1", "/v1beta/openai", "/openai")):
        return f"{message} ({path} does not exist there; does the base URL need /v1 at its end?)"
    if status == 404:
        return f"{message} (is {path} served there, and is --llm-model spelled as in /models?)"
    return message


def _body_message(error: openai.APIStatusError) -> str:
    """The message in any of the shapes that servers send: object, string, ``detail``, plain text, nothing."""
    text = error.response.text.strip()
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        return words_of_page(text) if text.startswith("<") else text
    if isinstance(body, dict):
        return failure_from(body).message if has_message(body) else text if body else ""
    if isinstance(body, list) and body and all(isinstance(item, dict) for item in body):  # Google's
        return failure_from(body).message
    return body if isinstance(body, str) else text
