"""Reduce an error text to its kind by removing the parts that differ between requests.

Locust keeps one table entry for each distinct error text, and every report of a worker and every page contains all of
them. A provider that puts a request id into every refusal creates one entry per refusal: at 96 refusals per second the
entries moved the 99th percentile of TTFT of the good streams from 0.46 s to 1.46 s within two minutes. So Locust's
table gets the kinds. The row of a request keeps the whole text.
"""

from __future__ import annotations

import re

MOST_KINDS = 50
"""Limit on kinds per process and test: more than a person reads in a table, few enough to send and draw every
second."""

KIND_CHARACTERS = 200
"""Two kinds with the same first ``KIND_CHARACTERS`` characters differ only by their code, or not at all."""

OTHER = ("other", f"not one of the first {MOST_KINDS} kinds of error; each row has its whole message")
"""Code and text for all kinds after the first ``MOST_KINDS``."""

_VARYING = re.compile(
    r"""
      (?P<kept>
          [a-z]{2,6}://[^\s/?\#]+                  # scheme and authority of a URL say which endpoint it was
        | (?<=/)v\d+(?![\w-]) )                     # the version of an API in a path
    | (?P<quoted>"[^"]*" | `[^`]*` | (?<!\w)'[^']*'(?!\w))
    | (?P<number>(?<![\w-])\d+(?:[.,:]\d+)*+(?:(?![\w-])|(?=(?:ns|us|ms|s|m|h|kB|MB|GB)\b)))
    | (?P<id>(?<![\w-])(?:
          [\w-]*\d[\w-]*                            # a word with a digit: a request id, a hash, a UUID, a model
        | (?!\w+:)(?<!:)[\w-]{24,}                  # a word too long to be one, except a name such as bedrock:Invoke...
        | (?:req|request|resp|msg|run|call|chatcmpl)_[\w-]+ ))  # an id that happens to have no digit
    """,
    re.VERBOSE,
)
_REPLACEMENTS = {"kept": None, "quoted": "*", "number": "N", "id": "*"}

_NAMED_ID = re.compile(r"(?i)\b((?:request|trace|correlation|session|activity|response)[ _-]?id\b[\"':= ]{0,4})[\w.-]+")
"""The text after such a name is an id, even if it looks like a word (``Request id: dead-beef``)."""


def kind_of(message: str) -> str:
    """Return the message with N for numbers and * for ids and quoted values, at most ``KIND_CHARACTERS`` long."""
    text = _NAMED_ID.sub(r"\1*", message)
    text = _VARYING.sub(lambda match: _REPLACEMENTS[match.lastgroup or "kept"] or match[0], text)
    return text if len(text) <= KIND_CHARACTERS else text[: KIND_CHARACTERS - 3] + "..."


class ErrorKinds:
    """The kinds of errors that occurred in a process during a test."""

    def __init__(self) -> None:
        self._kinds: set[tuple[str, str]] = set()

    def entry(self, code: str, message: str) -> tuple[str, str]:
        """Return the code and text of the table entry for an error."""
        kind = (code, kind_of(message))
        if kind not in self._kinds:
            if len(self._kinds) >= MOST_KINDS:
                return OTHER
            self._kinds.add(kind)
        return kind
