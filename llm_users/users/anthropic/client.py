"""Create the HTTP client of Anthropic's API: base URL, keys and headers. A single request type needs no SDK.

Keys come from the environment only, and are sent only to the endpoint of the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx2

from llm_users._version import __version__
from llm_users.load.worker.context import RunContext
from llm_users.transport import endpoint
from llm_users.transport.connection import Origin, origin_of
from llm_users.users.openai.client import KEYS_WITHHELD, make_http_client

HOST_VARIABLE = "ANTHROPIC_BASE_URL"
KEY_VARIABLE = "ANTHROPIC_API_KEY"
_TOKEN_VARIABLE = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - the variable's name

_VERSION = "2023-06-01"
_KEYED_DOMAIN = ".anthropic.com"


@dataclass(frozen=True, slots=True)
class Client:
    """The settings that all requests of a user class to one endpoint share."""

    base_url: str
    http: httpx2.Client
    origin: Origin

    def request(self, method: str, path: str, body: bytes | None = None) -> httpx2.Request:
        """Return a request that ``http`` can send."""
        return self.http.build_request(method, f"{self.base_url}{path}", content=body)


def versioned(host: str) -> str:
    """Return the base URL with ``/v1`` at the end, which Anthropic's own base URLs omit."""
    return host if host.rstrip("/").endswith("/v1") else f"{host.rstrip('/')}/v1"


def make_client(run_context: RunContext, host: str, headers: dict[str, str]) -> Client:
    """Return a client for this base URL. Raises ValueError if a key is required but not set."""
    all_headers = {
        "accept": "application/json",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"locust-llm/{__version__}",
        "anthropic-version": _VERSION,
        **_credentials(run_context, host, headers),
        **{name.lower(): value for name, value in headers.items()},
    }
    base_url = versioned(host)
    http = make_http_client(
        run_context,
        base_url,
        headers=all_headers,
        params=endpoint.query_of(host),
        timeout=httpx2.Timeout(run_context.options.timeout_s, connect=run_context.pool.connect_timeout_s),
    )
    return Client(base_url, http, origin_of(str(httpx2.URL(base_url))))


def _credentials(run_context: RunContext, host: str, headers: dict[str, str]) -> dict[str, str]:
    """Return the authentication headers: user info of the URL, a key, or a bearer token."""
    authorization = endpoint.authorization_of(host)
    key, token = run_context.secret(KEY_VARIABLE), run_context.secret(_TOKEN_VARIABLE)
    if authorization:
        return {"authorization": authorization}
    if key:
        return {"x-api-key": key}
    if token:
        return {"authorization": f"Bearer {token}"}
    if {"authorization", "x-api-key"} & {name.lower() for name in headers}:
        return {}
    if run_context.withhold_keys:
        run_context.note(KEYS_WITHHELD)
        return {}
    if f".{httpx2.URL(host).host}".endswith(_KEYED_DOMAIN):
        raise ValueError(f"Anthropic requires a key: set {KEY_VARIABLE}, or {_TOKEN_VARIABLE} for a bearer token")
    if run_context.options.simulator is None:
        run_context.note(f"no {KEY_VARIABLE} in the environment: requests carry no key")
    return {}
