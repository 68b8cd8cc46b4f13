"""What this process knows about endpoints: where they are, what came hidden in their URL, what they cannot do.

Credentials in a base URL stay here, in memory; everything that travels or is shown has the clean URL.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from llm_users import secrets


@dataclass(frozen=True, slots=True)
class _Hidden:
    authorization: str | None
    query: dict[str, str]


_hidden: dict[str, _Hidden] = {}


def clean_url(url: str) -> str:
    """The URL without user info, query and fragment; what was taken out is remembered for this process."""
    parts = urlsplit(url.strip())
    host = parts.netloc.rpartition("@")[2]
    clean = urlunsplit((parts.scheme, host, parts.path.rstrip("/") or parts.path, "", ""))
    if parts.netloc != host or parts.query:
        authorization = secrets.remember_user_info(parts.netloc)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name, value in query.items():
            if secrets.is_secret_query(name):
                secrets.remember(value, temporary=True)
        _hidden[clean] = _Hidden(authorization, query)
    return clean


def check_url(url: str) -> str | None:
    """What is wrong with a base URL, in words; None when it can be used."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # a bracket that is not closed, for example
        return f"it is not a URL ({error})"
    if parts.scheme not in ("http", "https"):
        return "it must start with http:// or https://"
    try:
        port = parts.port
    except ValueError:
        return "its port is not a number from 1 to 65535"
    if not parts.hostname or port == 0:
        return "it names no host"
    return None


def authorization_of(url: str) -> str | None:
    """The Authorization header that came as user info in this base URL."""
    hidden = _hidden.get(url)
    return hidden.authorization if hidden else None


def query_of(url: str) -> dict[str, object]:
    """The query that came with this base URL."""
    hidden = _hidden.get(url)
    return dict(hidden.query) if hidden else {}


def headers_from_environment(variables: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Header values by name, read from the environment variables that the options name."""
    headers = {}
    for name, variable in variables:
        value = os.environ.get(variable)
        if value is None:
            raise ValueError(
                f"--llm-header-env: the environment has no variable {variable!r}; export it on each worker"
            )
        secrets.remember(value.strip())
        headers[name] = value
    return headers


class UsageSupport:
    """Whether an endpoint takes ``stream_options.include_usage``: asked until it is refused, said once."""

    def __init__(self) -> None:
        self.asked = True
        self._known_good = False
        self._missing_said = False
        self._other_causes = False

    def may_be_refusal(self, message: str) -> bool:
        """True when an answer of 400 or 422 may be about the field: it says so, or nothing is known yet."""
        if self._known_good:
            return False
        if not self.asked:  # found out for another user's request while this one was on its way
            return True
        return "stream_options" in message or "include_usage" in message or not self._other_causes

    def accepted(self) -> None:
        self._known_good = True

    def not_the_cause(self) -> None:
        """A request was refused without the field too: from now on the server must name it."""
        self._other_causes = True

    def refused(self) -> None:
        self.asked = False

    def missing(self) -> bool:
        """True the first time that a complete answer came without usage although it was asked for."""
        if self._missing_said or not self.asked:
            return False
        self._missing_said = True
        return True


class CapName:
    """What an endpoint calls the cap on output tokens of a model: newer OpenAI models refuse ``max_tokens``."""

    OLD, NEW = "max_tokens", "max_completion_tokens"

    def __init__(self) -> None:
        self.name = self.OLD

    def is_refused(self, body: dict[str, object], message: str) -> bool:
        """True when this refusal says to use the new name, and the old one was used."""
        return self.OLD in body and self.NEW not in body and self.NEW in message

    def renamed(self, body: dict[str, object]) -> dict[str, object]:
        """The body with the cap under its name there."""
        if self.name == self.OLD or self.OLD not in body or self.NEW in body:
            return body
        return {self.NEW if key == self.OLD else key: value for key, value in body.items()}


_usage: dict[str, UsageSupport] = {}
_caps: dict[tuple[str, str], CapName] = {}


def usage_of(base_url: str) -> UsageSupport:
    """This process's knowledge about an endpoint."""
    return _usage.setdefault(base_url, UsageSupport())


def cap_of(base_url: str, model: str) -> CapName:
    """This process's knowledge about a model's cap on output tokens."""
    return _caps.setdefault((base_url, model), CapName())


def forget() -> None:
    """A new test starts: servers may have changed."""
    _usage.clear()
    _caps.clear()
