"""The openai SDK's clients: for OpenAI and what is compatible with it, and for Azure's deployments.

Keys come from the environment or the SDK's own chain; the HTTP layer is ours, or the SDK's for comparison.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import openai

from llm_users import secrets
from llm_users.load.worker.context import RunContext
from llm_users.transport import endpoint
from llm_users.transport.bodies import bound_whole_body
from llm_users.transport.connection import origin_of
from llm_users.transport.cookies import UserCookies, no_cookies
from llm_users.transport.httpx import GeventTransport
from llm_users.transport.redirects import Redirects
from llm_users.transport.tls import tls_context

TokenProvider = Callable[[], str]

_KEYED_HOSTS = ("api.openai.com",)
_AZURE_DOMAINS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com", ".openai.azure.us")
_ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
_PLACEHOLDER = "no-key"

KEYS_WITHHELD = (
    "no key is sent: the endpoint was typed into a web page that is open to the network without a login, and keys go "
    "only to endpoints that were named at the start. Name it with --host, add --web-login, or use --web-host 127.0.0.1."
)


def make_client(run_context: RunContext, host: str, headers: dict[str, str]) -> openai.OpenAI:
    """A client of this base URL. Raises the SDK's error when a key is needed and there is none."""
    sent = dict(headers)
    authorization = endpoint.authorization_of(host)
    key = run_context.secret("OPENAI_API_KEY") or (
        run_context.secret("AZURE_OPENAI_API_KEY") if is_azure(host) else None
    )
    # Without a key of ours the SDK would read the environment itself, so it gets a placeholder when keys are withheld.
    needs_key = httpx2.URL(host).host in _KEYED_HOSTS and not run_context.withhold_keys
    keyless = not key and not authorization and not needs_key
    if authorization:
        sent["Authorization"] = authorization
    elif run_context.withhold_keys:
        run_context.note(KEYS_WITHHELD)
    elif (
        keyless and run_context.options.simulator is None and not any(name.lower() == "authorization" for name in sent)
    ):
        run_context.note("no OPENAI_API_KEY in the environment: requests carry no key")
    # The SDK insists on a key; a server that needs none gets none.
    return openai.OpenAI(
        api_key=_PLACEHOLDER if keyless or authorization else key or None,
        **_settings(run_context, host, sent, endpoint.query_of(host), without_placeholder=keyless),
    )


def make_azure_client(
    run_context: RunContext,
    host: str,
    headers: dict[str, str],
    *,
    api_version: str | None = None,
    token_provider: TokenProvider | None = None,
) -> openai.AzureOpenAI:
    """A client of an Azure resource, whose models are deployments. Raises ValueError with what is missing."""
    if run_context.withhold_keys:
        raise ValueError(f"{KEYS_WITHHELD} Azure needs one")
    query = endpoint.query_of(host)
    named = query.pop("api-version", None)
    version = api_version or named or os.environ.get("OPENAI_API_VERSION")
    if not version:
        raise ValueError(
            "Azure wants an API version: set OPENAI_API_VERSION (2024-10-21 or later), write --host "
            "'https://NAME.openai.azure.com?api-version=...', or use the v1 API: https://NAME.openai.azure.com/openai/v1"
        )
    key, token = run_context.secret("AZURE_OPENAI_API_KEY"), run_context.secret("AZURE_OPENAI_AD_TOKEN")
    given = next((value for name, value in headers.items() if name.lower() == "api-key"), None)
    credentials: dict[str, Any] = {}
    if token_provider is not None:
        credentials["azure_ad_token_provider"] = remembering(token_provider)
    elif given or (key and not token):
        credentials["api_key"] = given or key
    elif token:
        credentials["azure_ad_token"] = token
    else:
        credentials["azure_ad_token_provider"] = remembering(_default_token_provider())
    secrets.remember(credentials.get("api_key"))
    secrets.remember(token)
    return openai.AzureOpenAI(
        api_version=str(version), **credentials, **_settings(run_context, azure_base_url(host), headers, query)
    )


def is_azure(host: str) -> bool:
    """True for a resource of Azure OpenAI under one of Azure's own names."""
    return httpx2.URL(host).host.endswith(_AZURE_DOMAINS)


def has_deployments(host: str) -> bool:
    """True for an Azure resource reached by deployments and API versions, not by the v1 API."""
    return is_azure(host) and not httpx2.URL(host).path.rstrip("/").endswith("/v1")


def azure_base_url(host: str) -> str:
    """The base URL under which deployments are: a resource's own URL gets its ``/openai``."""
    return host if "/openai" in httpx2.URL(host).path else f"{host.rstrip('/')}/openai"


def deployment_of(host: str) -> str | None:
    """The deployment that a base URL names, if it does."""
    _, found, rest = httpx2.URL(host).path.partition("/deployments/")
    return rest.split("/")[0] if found and rest else None


def remembering(provider: TokenProvider) -> TokenProvider:
    """The provider; its tokens, which change every hour, are kept out of all output."""

    def remembered() -> str:
        token = provider()
        secrets.remember(token)
        return token

    return remembered


def _default_token_provider() -> TokenProvider:
    """Entra ID by azure-identity's default chain, if that package is installed."""
    try:
        from azure.identity import DefaultAzureCredential, get_bearer_token_provider
    except ImportError:
        raise ValueError(
            "no credentials for Azure: set AZURE_OPENAI_API_KEY or AZURE_OPENAI_AD_TOKEN, or install azure-identity "
            "to use Entra ID (managed identity, az login)"
        ) from None
    provider: TokenProvider = get_bearer_token_provider(DefaultAzureCredential(), _ENTRA_SCOPE)
    return provider


def _settings(
    run_context: RunContext,
    base_url: str,
    headers: dict[str, str],
    query: dict[str, object],
    *,
    without_placeholder: bool = False,
) -> dict[str, Any]:
    """What every client of this process is made with."""
    before = [_without_placeholder] if without_placeholder else []
    return {
        "base_url": base_url,
        "max_retries": 0,  # a retry would hide throttling inside the time to first token
        "timeout": httpx2.Timeout(run_context.options.timeout_s, connect=run_context.pool.connect_timeout_s),
        "default_headers": headers,
        "default_query": query,
        "http_client": make_http_client(run_context, base_url, before=before),
    }


def make_http_client(
    run_context: RunContext, base_url: str, *, before: Sequence[Callable[[httpx2.Request], None]] = (), **settings: Any
) -> httpx2.Client:
    """The HTTP layer below a client: our transport, or the SDK's own for comparison (--llm-transport sdk).

    ``before`` is called with each request that is about to be sent.
    """
    pool = run_context.pool
    allowed = [origin_of(str(httpx2.URL(origin))) for origin in run_context.options.redirect_to]
    redirects = Redirects(origin_of(str(httpx2.URL(base_url))), allowed, run_context.note)
    settings["follow_redirects"] = True  # those that the hook lets through
    settings["event_hooks"] = {
        "request": [*before, redirects.on_request],
        "response": [redirects.on_response, bound_whole_body],
    }
    settings["cookies"] = UserCookies() if run_context.options.cookies else no_cookies()
    if run_context.options.transport == "fast":
        return httpx2.Client(transport=GeventTransport(pool), trust_env=False, **settings)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    # The same rules for proxies and certificates as on our transport.
    url = httpx2.URL(base_url)
    proxy = pool.proxies.of(origin_of(str(url)))
    if proxy is not None:
        login = {"Proxy-Authorization": proxy.authorization.decode()} if proxy.authorization else None
        settings["proxy"] = httpx2.Proxy(str(proxy.origin), headers=login)
    if url.scheme == "https":
        settings["verify"] = tls_context(pool.tls)
    return openai.DefaultHttpxClient(limits=limits, trust_env=False, **settings)


def _without_placeholder(request: httpx2.Request) -> None:
    if request.headers.get("authorization") == f"Bearer {_PLACEHOLDER}":
        del request.headers["authorization"]
