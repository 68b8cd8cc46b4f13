"""AnthropicUser: requests to Anthropic's Messages API and compatible servers (vLLM, SGLang, gateways).

Requests use this project's transport; a single request type needs no SDK. Keys come from the environment only, and are
sent only to the endpoint of the run. ``anthropic.events`` interprets the events.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import httpx2
import msgspec

from llm_users._version import __version__
from llm_users.load.worker.context import RunContext
from llm_users.prompts import Prompt
from llm_users.record import RequestRecord
from llm_users.transport import endpoint
from llm_users.transport.connection import Origin, origin_of
from llm_users.transport.exchange import Exchange, SdkExchange
from llm_users.transport.httpx import HeadSigner
from llm_users.users.answer import Answer, Ask
from llm_users.users.anthropic.events import MessageEvents
from llm_users.users.bedrock.families import anthropic_conversation
from llm_users.users.failures import error_response_of, failure_of
from llm_users.users.llm import LLMUser
from llm_users.users.openai.client import KEYS_WITHHELD, make_http_client
from llm_users.users.response_stream import ResponseStream, SseResponseStream

MESSAGES = "messages"
_PATH = "/messages"
HOST_VARIABLE = "ANTHROPIC_BASE_URL"
KEY_VARIABLE = "ANTHROPIC_API_KEY"
_TOKEN_VARIABLE = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - the variable's name
_VERSION = "2023-06-01"
_KEY_HEADERS = {"authorization", "x-api-key"}
_KEYED_DOMAIN = ".anthropic.com"


class AnthropicUser(LLMUser):
    """A user of the Messages API. ``host`` is the base URL (``https://api.anthropic.com``, with or without ``/v1``).

    Example::

        from locust import task
        from llm_users import AnthropicUser

        class Chat(AnthropicUser):
            @task
            def ask(self):
                answer = self.message("Why is the sky blue?")
    """

    abstract = True
    framework: ClassVar[str] = "anthropic"
    apis: ClassVar[Mapping[str, str]] = {"messages": "message"}
    host_variable: ClassVar[str] = HOST_VARIABLE

    provider: ClassVar[str] = "anthropic"
    """The first part of the values in the column ``api``."""

    default_headers: ClassVar[dict[str, str]] = {}
    """Extra headers for all requests of this class (``anthropic-beta``), or another ``anthropic-version``."""

    @classmethod
    def key_problem(cls, host: str, headers: Mapping[str, str]) -> str | None:
        return _key_problem(host, {**cls.default_headers, **headers})

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        if run_context.options.api not in (None, *cls.apis):
            raise ValueError(f"--llm-api {run_context.options.api} is not an API of Anthropic; use messages")
        cls.client_for(run_context, host)

    def message(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[dict[str, Any]] | None = None,
        system: str | Sequence[dict[str, Any]] | None = None,
        **body: Any,
    ) -> Answer:
        """Send one message, streamed unless ``stream=False``, and return the answer.

        ``prompt`` is the user's text. ``messages`` is a whole conversation, in the shape of Anthropic or OpenAI.
        Without both, the user sends the next prompt of the run. Other keywords are added to the request's body
        (``max_tokens=64``, ``thinking={"type": "enabled", "budget_tokens": 1024}``, ``tools=[...]``).
        """
        return self.send_request(lambda: self._message_ask(self.prompt_of(prompt, messages), system, body), body)

    def _message_ask(self, prompt: Prompt, system: Any, extra: dict[str, Any]) -> Ask:
        turns, instructions = anthropic_conversation(prompt)
        cap = prompt.max_tokens or self.default_cap()  # the API requires a cap
        body: dict[str, Any] = {"model": self.model_of_request(), "max_tokens": cap, "messages": turns}
        body["stream"] = self.streams
        if system or instructions:
            body["system"] = system or instructions
        body |= self.extra_body(extra)
        prompt = prompt.capped(body["max_tokens"])
        api = f"{self.provider}-{MESSAGES}"
        return Ask(api, str(body["model"]), prompt, body, streamed=bool(body["stream"]))

    # Sending requests.

    def open_response(self, ask: Ask, exchange: Exchange | SdkExchange) -> ResponseStream:
        client = self.client_for(self.run_context, self.host or "")
        body = msgspec.json.encode(ask.body)
        if isinstance(exchange, Exchange):
            exchange.reserve(client.origin)
        self.run_context.starts.wait()
        head = self.send_http(
            exchange,
            None if self.run_context.options.cookies else self.run_context.cached_request(client, _PATH, client.signer),
            lambda: body,
            lambda: _checked(client.http.send(client.request("POST", _PATH, body), stream=True)),
        )
        usage, note = endpoint.usage_of(client.base_url), self.run_context.note
        return _MessageStream(head, MessageEvents, usage, note, streamed=ask.streamed)

    def failure_of(self, error: BaseException) -> tuple[str, str]:
        return failure_of(error, _versioned(self.host or ""), KEY_VARIABLE)

    def refusal_of(self, error: BaseException) -> tuple[int | None, str | None]:
        response = error_response_of(error)
        if response is None:
            return super().refusal_of(error)
        return response.status_code, response.headers.get("request-id") or response.headers.get("x-request-id")

    @classmethod
    def client_for(cls, run_context: RunContext, host: str) -> MessagesClient:
        """Return the process's client for this base URL, with the headers of the class."""
        client: MessagesClient = run_context.client_of_class(
            cls, host, cls.default_headers, partial(_make_client, run_context)
        )
        return client

    @classmethod
    def listed_models(cls, run_context: RunContext, host: str) -> list[str]:
        """Return the models that the server lists. Raises the errors of requests."""
        client = cls.client_for(run_context, host)
        body = _checked(client.http.send(client.request("GET", "/models"))).json()
        return [str(model["id"]) for model in body["data"]]


class _MessageStream(SseResponseStream):
    """The response stream of a message."""

    events: MessageEvents
    terminator = MessageEvents.terminator

    def count_usage(self, record: RequestRecord) -> None:
        self.events.usage.fill(record)
        if self.events.usage.output_tokens is None:
            self.note_missing_usage(record)


def _checked(response: httpx2.Response) -> httpx2.Response:
    """Return the response. Raise an error response as ``httpx2.HTTPStatusError``."""
    if response.status_code < 300:
        return response
    response.read()
    raise httpx2.HTTPStatusError(f"HTTP {response.status_code}", request=response.request, response=response)


@dataclass(frozen=True, slots=True, eq=False)
class MessagesClient:
    """The settings that all requests of a user class to one endpoint share."""

    base_url: str
    http: httpx2.Client
    origin: Origin
    signer: HeadSigner | None = None
    """Signs requests with a cached head, if the endpoint requires a signature."""

    def request(self, method: str, path: str, body: bytes | None = None) -> httpx2.Request:
        """Return a request that ``http`` can send."""
        return self.http.build_request(method, f"{self.base_url}{path}", content=body)


def _versioned(host: str) -> str:
    """Return the base URL with ``/v1`` at the end, which Anthropic's own base URLs omit."""
    return host if host.rstrip("/").endswith("/v1") else f"{host.rstrip('/')}/v1"


def _make_client(run_context: RunContext, host: str, headers: dict[str, str]) -> MessagesClient:
    """Return a client for this base URL. Raises ValueError if a key is required but not set."""
    return make_messages_client(run_context, host, headers, _credentials(run_context, host, headers))


def make_messages_client(
    run_context: RunContext,
    host: str,
    headers: Mapping[str, str],
    credentials: Mapping[str, str],
    *,
    auth: httpx2.Auth | None = None,
    signer: HeadSigner | None = None,
) -> MessagesClient:
    """Return a client for this base URL. ``credentials`` are headers; ``auth`` and ``signer`` sign requests."""
    all_headers = {
        "accept": "application/json",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"locust-llm/{__version__}",
        "anthropic-version": _VERSION,
        **credentials,
        **{name.lower(): value for name, value in headers.items()},
    }
    base_url = _versioned(host)
    http = make_http_client(
        run_context,
        base_url,
        headers=all_headers,
        params=endpoint.query_of(host),
        auth=auth,
        timeout=httpx2.Timeout(run_context.options.timeout_s, connect=run_context.pool.connect_timeout_s),
    )
    if auth is not None:
        http.follow_redirects = False  # a signature is only valid for its own address
    return MessagesClient(base_url, http, origin_of(str(httpx2.URL(base_url))), signer)


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
    if _KEY_HEADERS & {name.lower() for name in headers}:
        return {}
    if run_context.withhold_keys:
        run_context.note(KEYS_WITHHELD)
        return {}
    if problem := _key_problem(host, headers):
        raise ValueError(problem)
    if run_context.options.simulator is None:
        run_context.note(f"no {KEY_VARIABLE} in the environment: requests carry no key")
    return {}


def _key_problem(host: str, headers: Mapping[str, str]) -> str | None:
    """Return what to set if requests to this base URL require a key and this process has none, else None."""
    if not f".{httpx2.URL(host).host}".endswith(_KEYED_DOMAIN):
        return None
    has_key = any(os.environ.get(variable, "").strip() for variable in (KEY_VARIABLE, _TOKEN_VARIABLE))
    if has_key or endpoint.authorization_of(host) or _KEY_HEADERS & {name.lower() for name in headers}:
        return None
    return (
        f"Anthropic requires a key, and the environment has none: set {KEY_VARIABLE}, or {_TOKEN_VARIABLE} for a "
        "bearer token"
    )
