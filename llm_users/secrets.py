"""Redaction of secrets: keys and header values of this process, remembered only to remove them from texts.

The secrets come from the environment, from URLs and from headers. Texts that look like a key are removed too.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import logging
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

_MARK = "[redacted]"
_SHORTEST = 6  # the removal of shorter "secrets" would damage ordinary words
_PLACEHOLDERS = frozenset({"ollama", "lm-studio", "not-needed", "no-key", "dummy-key", "anything", "simulated"})
"""Placeholder keys for servers that need no key. Removing them would also remove the servers' names."""

_SECRET_WORDS = frozenset(
    {"apikey", "credential", "credentials", "key", "passwd", "password", "secret", "sig", "signature", "token"}
)
_QUERY_WORDS = _SECRET_WORDS | {"auth", "authorization", "code"}
_NO_SECRETS = frozenset({"LOCUST_LLM_RUN_KEY"})
"""Variables whose names look like secrets and that are not: every manifest contains the run key."""

_ENVIRONMENT_SHORTEST = 8  # other variables may not be keys, so require more characters

_known: set[str] = set()
_temporary: dict[str, None] = {}
"""Secrets from web requests or options, the oldest first. Their number is limited so that redaction stays fast."""

_longest_first: tuple[str, ...] | None = ()
"""All known secrets in their spellings, the longest first, because a secret can be part of another one; None: they have
changed since they were sorted."""

_MOST_TEMPORARY = 64
_NAMED_SHORTEST = 8  # shorter values of named fields are masked only where the field is shown


_SHAPES = (
    re.compile(r"\b(?:(?:sk|pk|rk|gsk|xai|nvapi|fw)[-_]|hf_)[-_A-Za-z0-9]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"),
    re.compile(r"\bdapi[0-9a-f]{24,}"),
    # Match from the beginning of a word, so that each word is examined once: 1 MiB of text takes a few ms.
    re.compile(r"(?<![\w-])(?P<kept>(?:(?!\beyJ)[\w-])*+)eyJ[\w-]{8,}+(?:\.[\w-]++){1,2}+\.?"),
    re.compile(r"\b(?:bearer|basic)\s+(?=[^\s\"']*[\d=])[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(?<=://)[^/\s@:\"'<>,]+:[^/\s@\"'<>,]*(?=@)"),
    re.compile(r"(?i)(?<=[?&])(?:[\w-]*[-_])?(?:apikey|key|token|sig|signature|secret|password)=[^&\s\"'<>]+"),
)  # fmt: skip
"""Keys of providers, AWS ids and JSON web tokens, authorization headers, user info and secrets in URLs. The time of
each pattern is proportional to the length of the text, for any text."""

_SIGN_OF_A_SHAPE = re.compile(r"[kifw][-_]|(?:AK|AS)IA|dapi|eyJ|(?i:bearer|basic)\s|://|[?&]")
"""Matches in every text in which one of the shapes matches. One search takes a fifth of the time of all shapes."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
"""Control characters from a server would control the terminal that shows them, and CSV readers stop at a NUL."""

_START_CHARACTERS = 8192
_LONGEST_SHAPE = 4096  # a text that looks like a key is rarely longer


def remember(secret: str | None, *, temporary: bool = False) -> None:
    """Redact this value from every later text, in all spellings in which it may occur.

    Only the latest 64 ``temporary`` secrets are kept, because anyone who can post a form can add one.
    """
    global _longest_first
    if not secret or len(secret) < _SHORTEST or secret.lower() in _PLACEHOLDERS:
        return
    _longest_first = None
    if not temporary:
        _known.update(_spellings(secret))
    elif secret not in _known:
        _temporary.pop(secret, None)
        _temporary[secret] = None
        while len(_temporary) > _MOST_TEMPORARY:
            del _temporary[next(iter(_temporary))]


def _spellings(secret: str) -> set[str]:
    """Return the secret as it is, in a URL, in JSON (some writers escape every slash), and in HTML."""
    in_json = json.dumps(secret)[1:-1]
    return {secret, quote(secret, safe=""), in_json, in_json.replace("/", "\\/"), html.escape(secret)}


def remember_named(value: Any) -> None:
    """Remember the texts under names such as ``api_key`` or ``password`` in a JSON value, at any depth."""
    for name, text in _named(value):
        if _is_named_secret(name, _SECRET_WORDS) and len(text) >= _NAMED_SHORTEST:
            remember(text, temporary=True)


def _named(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a JSON value with the name of the field that holds it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner, name)
    elif isinstance(value, str):
        yield name, value


def mask_named(value: Any) -> Any:
    """Return a JSON value with a mark in place of all values under names such as ``api_key`` or ``password``."""
    if isinstance(value, Mapping):
        return {
            key: _MARK if inner and _is_named_secret(str(key), _SECRET_WORDS) else mask_named(inner)
            for key, inner in value.items()
        }
    return [mask_named(inner) for inner in value] if isinstance(value, list | tuple) else value


def mask_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options with their secrets masked."""
    return {name: mask_option(value) for name, value in options.items()}


def mask_option(value: Any) -> Any:
    """Return an option's value for display: named secrets in JSON and KEY=VALUE texts masked, all texts redacted."""
    if isinstance(value, list | tuple):
        return [mask_option(item) for item in value]
    if not isinstance(value, str):
        return value
    name, equals, rest = value.partition("=")
    if value.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            parsed = json.loads(value)
            masked = mask_named(parsed)
            value = json.dumps(masked) if masked != parsed else value
    elif equals and rest and name.replace("-", "").replace("_", "").isalnum() and _is_named_secret(name, _SECRET_WORDS):
        value = f"{name}={_MARK}"
    return redact(value)


def remember_user_info(netloc: str) -> str | None:
    """Remember the credentials of a URL's netloc. Return the Basic authorization header for them, or None."""
    info, at, _host = netloc.rpartition("@")
    if not at:
        return None
    user, colon, password = info.partition(":")
    for part in (password, unquote(password)) if colon and password else (user, unquote(user)):
        remember(part, temporary=True)
    login = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    remember(login, temporary=True)
    remember(f"Basic {login}", temporary=True)
    return f"Basic {login}"


def remember_environment(environment: Mapping[str, str] | None = None) -> None:
    """Remember environment variables whose names indicate a key, token or password, and the proxies' credentials."""
    for name, value in (os.environ if environment is None else environment).items():
        if name.lower().endswith("_proxy"):
            remember_user_info(urlsplit(value if "://" in value else f"//{value}").netloc)
        elif name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("HEADERS"):
            _remember_headers(value)
        elif name in _NO_SECRETS:
            continue
        elif _is_named_secret(name, _SECRET_WORDS) and len(value) >= _ENVIRONMENT_SHORTEST and value[0] not in "/.~":
            remember(value)


def _remember_headers(headers: str) -> None:
    """Remember the values in a list of headers in the form of OpenTelemetry: ``NAME=VALUE,NAME=VALUE``, as in a URL."""
    for pair in headers.split(","):
        value = pair.partition("=")[2].strip()
        for text in (value, unquote(value)):
            remember(text)
            remember(text.rpartition(" ")[2])  # without the word Bearer or Basic


def is_secret_query(name: str) -> bool:
    """Return whether a URL parameter of this name must not be shown. ``api-version``, for example, can be shown."""
    return _is_named_secret(name, _QUERY_WORDS)


def _is_named_secret(name: str, words: frozenset[str]) -> bool:
    return not words.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def redact(text: str) -> str:
    """Return the text without known secrets and without texts that look like a key."""
    for secret in _by_length():
        if secret in text:
            text = text.replace(secret, _MARK)
    if _SIGN_OF_A_SHAPE.search(text):
        for shape in _SHAPES:
            text = shape.sub(rf"\g<kept>{_MARK}" if shape.groups else _MARK, text)
    return text


def redact_start(text: str, most: int) -> str:
    """Return the beginning of a text on one line, at most ``most`` characters, without secrets and control characters.

    The function examines only the beginning of a long text, with a margin. It does not show the margin, because the cut
    may have shortened a secret there so that it no longer looks like one.
    """
    if len(text) <= _START_CHARACTERS:
        shown = redact(text)
    else:
        margin = max([_LONGEST_SHAPE, *map(len, _by_length()[:1])])
        whole = most + _START_CHARACTERS + margin
        shown = redact(text) if len(text) <= whole else redact(text[:whole])[:-margin]
    if not (shown.isascii() and shown.isprintable()):
        shown = shown.encode("utf-8", "replace").decode()  # JSON can contain half of a surrogate pair
        shown = _CONTROLS.sub(" ", shown)
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _by_length() -> tuple[str, ...]:
    """Return all known secrets in their spellings, the longest first."""
    global _longest_first
    if _longest_first is None:
        spellings = {*_known, *(spelling for secret in _temporary for spelling in _spellings(secret))}
        _longest_first = tuple(sorted(spellings, key=len, reverse=True))
    return _longest_first


# Logs.


def redact_record(record: logging.LogRecord) -> logging.LogRecord:
    """Redact the message, exception and stack of a log record of any level."""
    try:
        message = record.getMessage()
    except Exception:  # the record does not match its format; its handler reports that
        message = " ".join(str(part) for part in (record.msg, record.args))
    shown = redact(message)
    if shown != message:
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[0] is not None:
        printed = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        hidden = redact(printed)
        if hidden != printed:
            record.exc_text, record.exc_info = hidden, None  # no handler can print the original
    if record.stack_info:
        record.stack_info = redact(record.stack_info)
    return record


def _redact_and_keep(record: logging.LogRecord) -> bool:
    redact_record(record)
    return True


def redact_logs() -> None:
    """Redact every log line of this process, including Locust's, the SDKs' and their libraries' lines.

    SDKs log headers and answers when debugging is on. The record factory redacts records on creation, so the set of
    handlers does not matter. The root's handlers filter too, for records that another factory created.
    """
    make = logging.getLogRecordFactory()
    if not getattr(make, "redacts", False):

        def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
            return redact_record(make(*args, **kwargs))

        make_redacted.redacts = True  # type: ignore[attr-defined]
        logging.setLogRecordFactory(make_redacted)
    for name in (None, "locust", "locust.stats_logger"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_redact_and_keep)  # a second call has no effect


# Locust's exceptions page, its exceptions file, and the messages with exceptions from workers.


def redact_exceptions(runner: Any) -> None:
    """Redact the exceptions of users' tasks that a runner keeps or sends."""
    keep = runner.log_exception

    def keep_redacted(node_id: str, msg: str, formatted_tb: str) -> None:
        keep(node_id, redact(msg), redact(formatted_tb))

    runner.log_exception = keep_redacted
    if getattr(runner, "client", None) is None:
        return
    _redact_sending(runner)
    reset = runner.reset_connection

    def reset_and_redact() -> None:
        reset()  # creates a new client
        _redact_sending(runner)

    runner.reset_connection = reset_and_redact


def _redact_sending(runner: Any) -> None:
    send = runner.client.send

    def send_redacted(message: Any) -> Any:
        if message.type == "exception":
            message.data = {name: redact(text) for name, text in message.data.items()}
        return send(message)

    runner.client.send = send_redacted
