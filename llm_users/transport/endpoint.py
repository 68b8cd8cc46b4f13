"""Keep this process's state about endpoints: the secrets in their base URLs, and the request fields they accept.

Credentials in a base URL stay in the memory of this module; messages, files and other processes get the clean URL.
"""

from __future__ import annotations

import ipaddress
import os
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from llm_users import secrets

_PRIVATE_DOMAINS = (".localhost", ".local", ".internal", ".svc", ".lan", ".home.arpa")
"""Ends of names that only a local network or a cluster resolves: mDNS, Kubernetes (``vllm.default.svc``), Compose."""

_url_secrets: dict[str, tuple[str | None, dict[str, str]]] = {}
"""The Authorization header and the query parameters by clean URL."""


def clean_url(url: str) -> str:
    """Return the URL without user info, query and fragment, and keep user info and query for this process."""
    parts = urlsplit(url.strip())
    host = parts.netloc.rpartition("@")[2]
    clean = urlunsplit((parts.scheme, host, parts.path.rstrip("/") or parts.path, "", ""))
    if parts.netloc != host or parts.query:
        authorization = secrets.remember_user_info(parts.netloc)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name, value in query.items():
            if secrets.is_secret_query(name):
                secrets.remember(value, temporary=True)
        _url_secrets[clean] = authorization, query
    return clean


_API_PATHS = ("/chat/completions", "/completions", "/responses", "/messages", "/embeddings", "/models")
"""Paths that are part of a request and not of a base URL."""

_FORM = "write for example https://HOST/v1"


def check_url(url: str) -> str | None:
    """Return what is wrong with a base URL, and what to write instead; None if the URL is valid."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # a bracket that is not closed, for example
        return f"it is not a URL ({error}); {_FORM}"
    if "://" not in url:
        return f"it must start with http:// or https://; write http://{url}"
    if parts.scheme not in ("http", "https"):
        return f"it must start with http:// or https://; {_FORM}"
    try:
        port = parts.port
    except ValueError:
        return f"its port is not a number from 1 to 65535; {_FORM}"
    if not parts.hostname or port == 0:
        return f"it has no host; {_FORM}"
    path = parts.path.rstrip("/")
    if (api_path := next(filter(path.endswith, _API_PATHS), None)) is not None:
        base_url = urlunsplit((parts.scheme, parts.netloc, path.removesuffix(api_path), parts.query, parts.fragment))
        return f"it ends with {api_path}, which requests add to the base URL; write {base_url}"
    return None


def authorization_of(url: str) -> str | None:
    """Return the Authorization header made from the user info of this base URL, if it had any."""
    return _url_secrets.get(url, (None, {}))[0]


def query_of(url: str) -> dict[str, object]:
    """Return the query parameters of this base URL."""
    return dict(_url_secrets.get(url, (None, {}))[1])


def headers_from_environment(variables: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return header values by name, read from the environment variables that the options name.

    Raises ValueError if a variable is not set.
    """
    headers = {}
    for name, variable in variables:
        value = os.environ.get(variable)
        if value is None:
            raise ValueError(
                f"--llm-header-env: the environment variable {variable!r} is not set; export it on each worker"
            )
        secrets.remember(value.strip())
        headers[name] = value
    return headers


class UsageSupport:
    """Whether an endpoint accepts ``stream_options.include_usage``.

    Requests have the field until the endpoint refuses it. Missing usage is reported once.
    """

    def __init__(self) -> None:
        self.asked = True
        """Requests have the field. Set it to False when the endpoint refuses the field."""
        self.is_accepted = False
        self.has_other_causes = False
        """A request without the field was refused too: later refusals must name the field to count."""
        self._missing_reported = False

    def may_be_refusal(self, message: str) -> bool:
        """Return True if a response of 400 or 422 may be caused by the field.

        That is the case if the message names the field, or if no other cause of refusals is known yet.
        """
        if self.is_accepted:
            return False
        if not self.asked:  # another user's request was refused while this one was in flight
            return True
        return "stream_options" in message or "include_usage" in message or not self.has_other_causes

    def missing(self) -> bool:
        """Return True for the first complete answer without usage although the request asked for it."""
        if self._missing_reported or not self.asked:
            return False
        self._missing_reported = True
        return True


class CapName:
    """The field name of a model's cap on output tokens. Newer OpenAI models refuse ``max_tokens``."""

    OLD, NEW = "max_tokens", "max_completion_tokens"

    def __init__(self) -> None:
        self.name = self.OLD

    def is_refused(self, body: dict[str, object], message: str) -> bool:
        """Return True if the request has the old name and the error message mentions the new one."""
        return self.OLD in body and self.NEW not in body and self.NEW in message

    def renamed(self, body: dict[str, object]) -> dict[str, object]:
        """Return the body with the cap under the name that the endpoint accepts."""
        if self.name == self.OLD or self.OLD not in body or self.NEW in body:
            return body
        return {self.NEW if key == self.OLD else key: value for key, value in body.items()}


_usage: defaultdict[str, UsageSupport] = defaultdict(UsageSupport)
_caps: defaultdict[tuple[str, str], CapName] = defaultdict(CapName)


def usage_of(base_url: str) -> UsageSupport:
    """Return this process's state of usage support for an endpoint."""
    return _usage[base_url]


def cap_of(base_url: str, model: str) -> CapName:
    """Return this process's state of the cap's field name for a model at an endpoint."""
    return _caps[base_url, model]


def forget() -> None:
    """Clear the state at the start of a test, because servers may have changed."""
    _usage.clear()
    _caps.clear()


def is_in_private_network(url: str) -> bool:
    """Return whether the host of a base URL is this machine, a private address, or a name of a local or cluster DNS."""
    name = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE_DOMAINS)
    return address.is_private or address.is_loopback or address.is_link_local
