"""Advice about a wrong base URL, from the server's answer to a request."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_VERSION = re.compile(r"/v\d")
_HAS_ITS_OWN_PATHS = ("/openai",)
"""Ends of base URLs without a version behind them: Gemini's ``/v1beta/openai``, and Azure's deployments."""

_EXPECTS_TLS = re.compile(r"\bHTTPS\b|\bTLS\b|\bSSL\b", re.IGNORECASE)
"""nginx and AWS: "The plain HTTP request was sent to HTTPS port"; Go: "Client sent an HTTP request to an HTTPS
server."; Apache: "speaking plain HTTP to an SSL-enabled server port"."""


def with_version(base_url: str) -> str | None:
    """Return the base URL that the user probably means, if ``/v1`` is missing; None if it has a version."""
    url = base_url.rstrip("/")
    path = urlsplit(url).path
    return None if _VERSION.search(path) or path.endswith(_HAS_ITS_OWN_PATHS) else f"{url}/v1"


def with_tls(base_url: str, status: int, message: str) -> str | None:
    """Return the base URL with https if the server's words say that it expects TLS; None otherwise."""
    scheme, separator, rest = base_url.partition("://")
    expects_tls = scheme == "http" and status == 400 and _EXPECTS_TLS.search(message)
    return f"https{separator}{rest}" if expects_tls else None
