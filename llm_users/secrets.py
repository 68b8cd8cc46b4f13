"""What must never be shown: keys and header values that this process uses, kept only to take them out of texts.

What it knows of comes from the environment, from URLs and from headers; what only looks like a key goes too.
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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

_MARK = "[redacted]"
_SHORTEST = 6  # shorter "secrets" would tear holes into ordinary words
_PLACEHOLDERS = frozenset({"ollama", "lm-studio", "not-needed", "no-key", "dummy-key", "anything", "simulated"})
"""Keys that people give to servers which want none; taking them out would take out the servers' names."""

_SECRET_WORDS = frozenset(
    {"apikey", "credential", "credentials", "key", "passwd", "password", "secret", "sig", "signature", "token"}
)
_QUERY_WORDS = _SECRET_WORDS | {"auth", "authorization", "code"}
_NO_SECRETS = frozenset({"LOCUST_LLM_RUN_KEY"})
"""Variables that only sound like secrets: a run key is in every manifest."""

_ENVIRONMENT_SHORTEST = 8  # what else is in the environment is not known to be a key; be surer

_known: set[str] = set()
_temporary: dict[str, None] = {}
"""Secrets that arrived over the web or in options, the oldest first. A flood of them must not make redaction slow."""

_MOST_TEMPORARY = 64
_NAMED_SHORTEST = 8  # shorter values of named fields are masked where the field is shown, not everywhere

_SHAPES = (
    re.compile(r"\b(?:sk|pk|rk|gsk|xai|nvapi|hf|fw)[-_][-_A-Za-z0-9]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"),
    re.compile(r"\bdapi[0-9a-f]{24,}"),
    # From the beginning of a word on, so that each word is looked at once: a text of a MiB takes a few ms.
    re.compile(r"(?<![\w-])(?P<kept>(?:(?!\beyJ)[\w-])*+)eyJ[\w-]{8,}+(?:\.[\w-]++){1,2}+\.?"),
    re.compile(r"\b(?:bearer|basic)\s+(?=[^\s\"']*[\d=])[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(?<=://)[^/\s@:\"'<>,]+:[^/\s@\"'<>,]*(?=@)"),
    re.compile(r"(?i)(?<=[?&])(?:[\w-]*[-_])?(?:apikey|key|token|sig|signature|secret|password)=[^&\s\"'<>]+"),
)  # fmt: skip
"""Keys of providers, AWS ids and JSON web tokens, authorization headers, user info and secrets in URLs. Each takes time
in proportion to the length of the text, whatever the text."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
"""A server's text is shown in terminals, which would obey it, and in CSV files, whose readers stop at a NUL."""

_START_CHARACTERS = 8192
_LONGEST_SHAPE = 4096  # what only looks like a key is rarely longer


def remember(secret: str | None, *, temporary: bool = False) -> None:
    """Take this value out of every text from now on, in the spellings in which it may come back.

    ``temporary``: anybody who can post a form can add such secrets, so only the latest 64 of them are kept.
    """
    if not secret or len(secret) < _SHORTEST or secret.lower() in _PLACEHOLDERS:
        return
    if not temporary:
        _known.update(_spellings(secret))
    elif secret not in _known:
        _temporary.pop(secret, None)
        _temporary[secret] = None
        while len(_temporary) > _MOST_TEMPORARY:
            del _temporary[next(iter(_temporary))]


def _spellings(secret: str) -> set[str]:
    """As it is, in a URL, in JSON (of which some writers escape every slash), and in HTML."""
    in_json = json.dumps(secret)[1:-1]
    return {secret, quote(secret, safe=""), in_json, in_json.replace("/", "\\/"), html.escape(secret)}


def remember_named(value: Any) -> None:
    """Remember the texts under names like ``api_key`` or ``password`` in a JSON value, at any depth."""
    for name, text in _named(value):
        if _is_named_secret(name, _SECRET_WORDS) and len(text) >= _NAMED_SHORTEST:
            remember(text, temporary=True)


def _named(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value with the name of the field that holds it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner, name)
    elif isinstance(value, str):
        yield name, value


def mask_named(value: Any) -> Any:
    """A JSON value with a mark in place of everything under names like ``api_key`` or ``password``."""
    if isinstance(value, Mapping):
        return {
            key: _MARK if inner and _is_named_secret(str(key), _SECRET_WORDS) else mask_named(inner)
            for key, inner in value.items()
        }
    return [mask_named(inner) for inner in value] if isinstance(value, list | tuple) else value


def mask_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options as they may be shown."""
    return {name: mask_option(value) for name, value in options.items()}


def mask_option(value: Any) -> Any:
    """An option's value as it may be shown: JSON and KEY=VALUE texts without named secrets, all texts redacted."""
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
    """Remember what stands before the ``@`` of a URL; returns the Basic header that it makes, if there is any."""
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
    """Remember what the environment calls a key, a token or a password, and the logins in its proxies' URLs."""
    for name, value in (os.environ if environment is None else environment).items():
        if name.lower().endswith("_proxy"):
            remember_user_info(urlsplit(value if "://" in value else f"//{value}").netloc)
        elif name in _NO_SECRETS:
            continue
        elif _is_named_secret(name, _SECRET_WORDS) and len(value) >= _ENVIRONMENT_SHORTEST and value[0] not in "/.~":
            remember(value)


def is_secret_query(name: str) -> bool:
    """True when a parameter of this name in a URL is not to be shown; ``api-version`` may be."""
    return _is_named_secret(name, _QUERY_WORDS)


def _is_named_secret(name: str, words: frozenset[str]) -> bool:
    return not words.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def redact(text: str) -> str:
    """The text without known secrets and without what looks like a key."""
    for secret in _by_length():  # one may be a part of another
        if secret in text:
            text = text.replace(secret, _MARK)
    for shape in _SHAPES:
        text = shape.sub(_marked if shape.groups else _MARK, text)
    return text


def redact_start(text: str, most: int) -> str:
    """The beginning of a text on one line, at most ``most`` characters long, without secrets and control characters.

    However long the text is, only its beginning is looked at, with a margin: what a cut may have gone through, so that
    it no longer looks like a secret, is not shown.
    """
    margin = max([_LONGEST_SHAPE, *map(len, _by_length()[:1])])
    whole = most + _START_CHARACTERS + margin
    shown = redact(text) if len(text) <= whole else redact(text[:whole])[:-margin]
    shown = shown.encode("utf-8", "replace").decode()  # JSON may have half a character
    shown = " ".join(_CONTROLS.sub(" ", shown).split())
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _by_length() -> list[str]:
    """All known secrets in their spellings, the longest first."""
    known = {*_known, *(spelling for secret in _temporary for spelling in _spellings(secret))}
    return sorted(known, key=len, reverse=True)


def _marked(match: re.Match[str]) -> str:
    return match["kept"] + _MARK


# Logs.


def redact_record(record: logging.LogRecord) -> logging.LogRecord:
    """Take secrets out of a log record, whatever its level: message, exception and stack."""
    try:
        message = record.getMessage()
    except Exception:  # the record does not fit its own format; its handler will say so
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


class Redactor(logging.Filter):
    """Takes secrets out of what passes a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        redact_record(record)
        return True


_redactor = Redactor()


def redact_logs(_packages: Iterable[str] = ()) -> None:
    """Keep secrets out of every log line of this process: Locust's, the SDKs', and those of libraries below them.

    SDKs log headers and answers when debugging is on. Records are redacted when they are made, so it does not matter
    which handlers exist or come later; the root's handlers filter too, for records that were made elsewhere.
    """
    make = logging.getLogRecordFactory()
    if not getattr(make, "redacts", False):

        def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
            return redact_record(make(*args, **kwargs))

        make_redacted.redacts = True  # type: ignore[attr-defined]
        logging.setLogRecordFactory(make_redacted)
    for name in (None, "locust", "locust.stats_logger"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_redactor)  # twice is once


# Locust's exceptions page, its file, and the messages that carry them from workers.


def redact_exceptions(runner: Any) -> None:
    """Keep secrets out of what this runner keeps or sends of exceptions in users' tasks."""
    keep = runner.log_exception

    def keep_redacted(node_id: str, msg: str, formatted_tb: str) -> None:
        keep(node_id, redact(msg), redact(formatted_tb))

    runner.log_exception = keep_redacted
    if getattr(runner, "client", None) is None:
        return
    _redact_sending(runner)
    reset = runner.reset_connection

    def reset_and_redact() -> None:
        reset()  # makes a new client
        _redact_sending(runner)

    runner.reset_connection = reset_and_redact


def _redact_sending(runner: Any) -> None:
    send = runner.client.send

    def send_redacted(message: Any) -> Any:
        if message.type == "exception":
            message.data = {name: redact(text) for name, text in message.data.items()}
        return send(message)

    runner.client.send = send_redacted
