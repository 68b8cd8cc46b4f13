"""What must never be shown: keys and header values that this process uses, kept only to take them out of texts."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable

_MARK = "[redacted]"
_SHORTEST = 6  # shorter "secrets" would tear holes into ordinary words
_known: set[str] = set()
_KEY_SHAPES = re.compile(r"\b(?:sk|pk|rk|gsk|xai|nvapi|hf|AKIA|ASIA)[-_A-Za-z0-9]{12,}|(?i:bearer)\s+[\w.~+/=-]{8,}")


def remember(secret: str | None) -> None:
    """Take this value out of every text from now on."""
    if secret and len(secret) >= _SHORTEST:
        _known.add(secret)


def redact(text: str) -> str:
    """The text without known secrets and without what looks like a key."""
    for secret in _known:
        text = text.replace(secret, _MARK)
    return _KEY_SHAPES.sub(_MARK, text)


class _Redactor(logging.Filter):
    """Takes secrets out of log lines, whatever their level."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        shown = redact(message)
        if shown != message:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return True


_redactor = _Redactor()


def redact_logs(packages: Iterable[str]) -> None:
    """Keep secrets out of what these packages log; SDKs log headers and answers when debugging is on."""
    prefixes = tuple(packages)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(prefixes):
            logging.getLogger(name).addFilter(_redactor)
