"""Create the openai SDK's clients, for OpenAI-compatible endpoints, Azure's deployments and AWS Bedrock.

Keys come from the environment or from the SDK's own chain. The HTTP layer is our transport, or the SDK's own for
comparison. Only functions import the SDK, which takes 0.35 s: a master and runs of other APIs do not need it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import httpx2

from llm_users import secrets
from llm_users.load.worker.context import RunContext
from llm_users.transport import endpoint
from llm_users.transport.client_rules import Redirects, UserCookies, add_trace_headers, bound_whole_body, no_cookies
from llm_users.transport.connection import Origin, origin_of
from llm_users.transport.httpcore import import_httpcore
from llm_users.transport.httpx import GeventTransport, HeadSigner
from llm_users.transport.tls import tls_context

if TYPE_CHECKING:
    import openai

TokenProvider = Callable[[], str]


@dataclass(frozen=True, slots=True, eq=False)
class SdkClient:
    """The SDK's client for one endpoint. Its base URL takes 10 µs to convert to text, so the text is kept."""

    sdk: openai.OpenAI
    signer: HeadSigner | None = None
    """Signs requests with a cached head, if the endpoint requires a signature."""
    base_url: str = field(init=False)
    origin: Origin = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", str(self.sdk.base_url))
        object.__setattr__(self, "origin", origin_of(self.base_url))


KEY_VARIABLE = "OPENAI_API_KEY"
_KEYED_HOSTS = ("api.openai.com",)
_AZURE_DOMAINS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com", ".openai.azure.us")
_ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
_PLACEHOLDER = "no-key"
_SIGNED_AS_SENT = {"Accept-Encoding": "identity"}
"""The header that the transport sends, whatever the SDK sets. A signature must cover the value that is sent."""

KEYS_WITHHELD = (
    "no key is sent: the endpoint was entered in a web page that is open to the network without a login, and keys are "
    "sent only to endpoints set at the start. Set it with --host, add --web-login, or use --web-host 127.0.0.1."
)


def make_client(run_context: RunContext, host: str, headers: dict[str, str]) -> openai.OpenAI:
    """Return a client for this base URL. Raises ValueError if a key is required but not set."""
    import openai

    if not run_context.withhold_keys and (problem := key_problem(host, headers)):
        raise ValueError(problem)
    all_headers = dict(headers)
    authorization = endpoint.authorization_of(host)
    key = run_context.secret(KEY_VARIABLE) or (run_context.secret("AZURE_OPENAI_API_KEY") if is_azure(host) else None)
    # Without a key argument the SDK reads the environment itself, so it gets a placeholder if keys are withheld.
    keyless = not key and not authorization
    if authorization:
        all_headers["Authorization"] = authorization
    elif run_context.withhold_keys:
        run_context.note(KEYS_WITHHELD)
    elif (
        keyless
        and run_context.options.simulator is None
        and not any(name.lower() == "authorization" for name in all_headers)
    ):
        tell = run_context.inform if endpoint.is_in_private_network(host) else run_context.note
        tell(f"no {KEY_VARIABLE} in the environment: requests carry no key")
    # The SDK requires a key; a hook removes the placeholder from requests to a server that needs no key.
    return openai.OpenAI(
        api_key=_PLACEHOLDER if keyless or authorization else key,
        **_settings(run_context, host, all_headers, endpoint.query_of(host), without_placeholder=keyless),
    )


def key_problem(host: str, headers: Mapping[str, str]) -> str | None:
    """Return what to set if requests to this base URL require a key and this process has none, else None."""
    if httpx2.URL(host).host not in _KEYED_HOSTS:
        return None
    has_key = os.environ.get(KEY_VARIABLE, "").strip() or endpoint.authorization_of(host)
    if has_key or any(name.lower() == "authorization" for name in headers):
        return None
    return f"OpenAI requires a key, and the environment has none: set {KEY_VARIABLE}"


def make_azure_client(
    run_context: RunContext,
    host: str,
    headers: dict[str, str],
    *,
    api_version: str | None = None,
    token_provider: TokenProvider | None = None,
) -> openai.AzureOpenAI:
    """Return a client for an Azure resource, whose models are deployments.

    Raises ValueError if a setting is missing.
    """
    import openai

    if run_context.withhold_keys:
        raise ValueError(f"{KEYS_WITHHELD} Azure requires a key")
    query = endpoint.query_of(host)
    query_version = query.pop("api-version", None)
    version = api_version or query_version or os.environ.get("OPENAI_API_VERSION")
    if not version:
        raise ValueError(
            "Azure requires an API version: set OPENAI_API_VERSION (2024-10-21 or later), write --host "
            "'https://NAME.openai.azure.com?api-version=...', or use the v1 API: https://NAME.openai.azure.com/openai/v1"
        )
    key, token = run_context.secret("AZURE_OPENAI_API_KEY"), run_context.secret("AZURE_OPENAI_AD_TOKEN")
    header_key = next((value for name, value in headers.items() if name.lower() == "api-key"), None)
    credentials: dict[str, Any] = {}
    if token_provider is not None:
        credentials["azure_ad_token_provider"] = remembering(token_provider)
    elif header_key or (key and not token):
        credentials["api_key"] = header_key or key
    elif token:
        credentials["azure_ad_token"] = token
    else:
        credentials["azure_ad_token_provider"] = remembering(_default_token_provider())
    secrets.remember(credentials.get("api_key"))
    secrets.remember(token)
    return openai.AzureOpenAI(
        api_version=str(version), **credentials, **_settings(run_context, azure_base_url(host), headers, query)
    )


def make_bedrock_client(
    run_context: RunContext,
    base_url: str,
    headers: dict[str, str],
    *,
    endpoint: str,
    region: str,
    credentials: object | None,
    bearer: str | None,
) -> openai.OpenAI:
    """Return a client for Bedrock with a bearer key, or with signatures of ``credentials`` (botocore's).

    Raises ValueError if the base URL does not fit the endpoint or the region.
    """
    import openai
    from openai.providers.bedrock import bedrock

    authentication: dict[str, Any] = {"api_key": bearer} if bearer else {"credential_provider": lambda: credentials}
    settings = _settings(run_context, base_url, {**headers, **_SIGNED_AS_SENT}, {})
    del settings["base_url"]  # the provider has it
    try:
        provider = bedrock(endpoint=cast(Any, endpoint), region=region, base_url=base_url, **authentication)
        return openai.OpenAI(provider=provider, **settings)
    except openai.OpenAIError as error:
        raise ValueError(str(error)) from None


def make_keyless_client(run_context: RunContext, base_url: str, headers: dict[str, str]) -> openai.OpenAI:
    """Return a client whose requests carry no key."""
    import openai

    return openai.OpenAI(
        api_key=_PLACEHOLDER, **_settings(run_context, base_url, headers, {}, without_placeholder=True)
    )


def is_azure(host: str) -> bool:
    """Return True for an Azure OpenAI resource under one of Azure's domains."""
    return httpx2.URL(host).host.endswith(_AZURE_DOMAINS)


def has_deployments(host: str) -> bool:
    """Return True for an Azure resource with deployments and API versions; False for the v1 API."""
    return is_azure(host) and not httpx2.URL(host).path.rstrip("/").endswith("/v1")


def azure_base_url(host: str) -> str:
    """Return the base URL of the deployments: the resource's URL with ``/openai``."""
    return host if "/openai" in httpx2.URL(host).path else f"{host.rstrip('/')}/openai"


def deployment_of(host: str) -> str | None:
    """Return the deployment in a base URL; None if there is none."""
    _, separator, rest = httpx2.URL(host).path.partition("/deployments/")
    return rest.split("/")[0] if separator and rest else None


def remembering(provider: TokenProvider) -> TokenProvider:
    """Wrap a token provider to redact its tokens, which change every hour, in all output."""

    def remembered() -> str:
        token = provider()
        secrets.remember(token)
        return token

    return remembered


def _default_token_provider() -> TokenProvider:
    """Return Entra ID's token provider from azure-identity's default chain.

    Raises ValueError if azure-identity is not installed.
    """
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
    """Return the arguments that all clients of this process share."""
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
    """Return the HTTP client: our transport, or the SDK's own for comparison (--llm-transport sdk).

    The ``before`` hooks are called with each request before it is sent.
    """
    pool = run_context.pool
    allowed = [origin_of(str(httpx2.URL(origin))) for origin in run_context.options.redirect_to]
    redirects = Redirects(origin_of(str(httpx2.URL(base_url))), allowed, run_context.note)
    settings["follow_redirects"] = True  # only those that the hook allows
    settings["event_hooks"] = {
        "request": [*before, redirects.on_request],
        "response": [redirects.on_response, bound_whole_body],
    }
    settings["cookies"] = UserCookies() if run_context.options.cookies else no_cookies()
    if run_context.options.transport == "fast":
        return httpx2.Client(transport=GeventTransport(pool), trust_env=False, **settings)
    settings["event_hooks"]["request"].append(add_trace_headers)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    import_httpcore()
    # Use the same rules for proxies and certificates as our transport.
    url = httpx2.URL(base_url)
    proxy = pool.proxies.of(origin_of(str(url)))
    if proxy is not None:
        login = {"Proxy-Authorization": proxy.authorization.decode()} if proxy.authorization else None
        settings["proxy"] = httpx2.Proxy(str(proxy.origin), headers=login)
    if url.scheme == "https":
        settings["verify"] = tls_context(pool.tls)
    import openai

    return openai.DefaultHttpxClient(limits=limits, trust_env=False, **settings)


@functools.cache
def raw_stream() -> type[openai.Stream[object]]:
    """Return a replacement for the SDK's stream class that only passes the response on, without decoding it."""
    import openai

    class RawStream(openai.Stream[object]):
        def __init__(self, *, cast_to: Any, response: httpx2.Response, client: Any, options: Any = None) -> None:  # noqa: ARG002
            self.response = response

    return RawStream


def _without_placeholder(request: httpx2.Request) -> None:
    if request.headers.get("authorization") == f"Bearer {_PLACEHOLDER}":
        del request.headers["authorization"]
