"""OpenAIUser and AzureOpenAIUser: chat completions, legacy completions and responses through the openai SDK.

The SDK provides keys, base URL, headers, request building and error types. Its typed stream is not used, because it
takes several times as much CPU time as decoding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from llm_users.load.worker.context import RunContext
from llm_users.prompts import Prompt
from llm_users.record import RequestRecord
from llm_users.transport import endpoint
from llm_users.transport.exchange import Exchange, SdkExchange
from llm_users.transport.httpx import Head
from llm_users.users.answer import Answer, Ask
from llm_users.users.failures import error_response_of
from llm_users.users.llm import LLMUser
from llm_users.users.openai.client import (
    SdkClient,
    deployment_of,
    has_deployments,
    key_problem,
    make_azure_client,
    make_client,
    raw_stream,
)
from llm_users.users.openai.events import OpenAIEvents
from llm_users.users.openai.responses import ResponseEvents, ResponsesApiStream, input_of
from llm_users.users.openai.server_times import fill_llama_timings, fill_phase_times, fill_tgi_headers
from llm_users.users.response_stream import ResponseStream, SseResponseStream
from llm_users.users.token_counts import fill_openai_usage

if TYPE_CHECKING:
    import openai

CHAT, COMPLETIONS, RESPONSES = "chat", "completions", "responses"
_PATHS = {CHAT: "/chat/completions", COMPLETIONS: "/completions", RESPONSES: "/responses"}

_ELSEWHERE = (
    "converse and invoke: locustfiles/bedrock.py, messages: locustfiles/messages.py, bedrock-chat and "
    "bedrock-responses: locustfiles/bedrock_openai.py, bedrock-messages: locustfiles/bedrock_messages.py"
)

_REFUSALS = (400, 422)


class OpenAIUser(LLMUser):
    """A user of an OpenAI-compatible endpoint. ``host`` is the base URL as the SDK expects it (``.../v1``).

    Example::

        from locust import task
        from llm_users import OpenAIUser

        class Chat(OpenAIUser):
            @task
            def ask(self):
                answer = self.chat("Why is the sky blue?")
    """

    abstract = True
    framework: ClassVar[str] = "openai"
    apis: ClassVar[Mapping[str, str]] = {"chat": "chat", "completions": "complete", "responses": "respond"}

    provider: ClassVar[str] = "openai"
    """The first part of the values in the column ``api``; the second part is the API, such as ``chat``."""

    default_headers: ClassVar[dict[str, str]] = {}
    """Extra headers for all requests of this class."""

    @classmethod
    def import_sdk(cls) -> None:
        raw_stream()

    @classmethod
    def key_problem(cls, host: str, headers: Mapping[str, str]) -> str | None:
        return key_problem(host, {**cls.default_headers, **headers})

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        api = run_context.options.api
        if api not in (None, *cls.apis):
            raise ValueError(f"--llm-api {api} requires another user ({_ELSEWHERE}); here use {', '.join(cls.apis)}")
        cls.client_for(run_context, host, run_context.model or "")

    def chat(
        self, prompt: str | None = None, *, messages: Sequence[dict[str, Any]] | None = None, **body: Any
    ) -> Answer:
        """Send one chat completion, streamed unless ``stream=False``, and return the answer.

        ``prompt`` is the user's text. ``messages`` is a whole conversation. Without both, the user sends the next
        prompt of the run. Other keywords are added to the request's body (``temperature=0``, ``max_tokens=64``).
        """
        return self.send_request(partial(self._chat_ask, prompt, messages, body), body)

    def complete(self, prompt: str | None = None, **body: Any) -> Answer:
        """Send one legacy completion and return the answer. Without ``prompt``, send the run's next prompt.

        It is streamed unless ``stream=False``.
        """
        return self.send_request(partial(self._completion_ask, prompt, body), body)

    def respond(
        self, prompt: str | None = None, *, input: str | Sequence[dict[str, Any]] | None = None, **body: Any
    ) -> Answer:
        """Send one request to the Responses API, streamed unless ``stream=False``, and return the answer.

        ``prompt`` is the user's text. ``input`` is the API's field of this name: a text, or a list of items, which is
        sent unchanged. Without both, the user sends the next prompt of the run. Other keywords are added to the
        request's body (``instructions="Be short."``, ``max_output_tokens=64``).
        """
        return self.send_request(partial(self._respond_ask, prompt, input, body), body)

    def _respond_ask(
        self, text: str | None, content: str | Sequence[dict[str, Any]] | None, body: dict[str, Any]
    ) -> Ask:
        if isinstance(content, str):
            text, content = content, None
        prompt = self.prompt_of(text, content)
        items = prompt.messages if content is not None else input_of(prompt)
        request: dict[str, Any] = {"model": self.model_of_request(), "input": items, "stream": self.streams}
        if prompt.max_tokens is not None:
            request["max_output_tokens"] = prompt.max_tokens
        request |= self.extra_body(body)
        prompt = prompt.capped(request.get("max_output_tokens"))
        api = f"{self.provider}-{RESPONSES}"
        return Ask(api, str(request["model"]), prompt, request, streamed=bool(request["stream"]))

    def _chat_ask(self, text: str | None, messages: Sequence[dict[str, Any]] | None, body: dict[str, Any]) -> Ask:
        prompt = self.prompt_of(text, messages)
        turns = prompt.messages or [{"role": "user", "content": prompt.text}]
        return self._make_ask(CHAT, prompt, {"messages": turns}, body)

    def _completion_ask(self, text: str | None, body: dict[str, Any]) -> Ask:
        prompt = self.prompt_of(text, None)
        flat = prompt.text
        if flat is None:
            flat = "\n\n".join(str(turn.get("content", "")) for turn in prompt.messages or [])
        return self._make_ask(COMPLETIONS, prompt, {"prompt": flat}, body)

    def _make_ask(self, api: str, prompt: Prompt, content: dict[str, Any], extra: dict[str, Any]) -> Ask:
        body: dict[str, Any] = {"model": self.model_of_request(), **content, "stream": self.streams}
        if prompt.max_tokens is not None:
            body["max_tokens"] = prompt.max_tokens
        extra = self.extra_body(extra)
        body.update(extra)
        cap = body.get("max_tokens") or body.get("max_completion_tokens")
        if "max_completion_tokens" in body and "max_tokens" not in extra:
            body.pop("max_tokens", None)
            cap = body["max_completion_tokens"]
        named = f"{self.provider}-{api}"
        return Ask(named, str(body["model"]), prompt.capped(cap), body, streamed=bool(body["stream"]))

    # Sending requests.

    def open_response(self, ask: Ask, exchange: Exchange | SdkExchange) -> ResponseStream:
        client = self.client_for(self.run_context, self.host or "", ask.model)
        if isinstance(exchange, Exchange):
            exchange.reserve(client.origin)
        self.run_context.starts.wait()
        usage = endpoint.usage_of(client.base_url)
        if _api_of(ask) == RESPONSES:
            response = self._post(client, ask, ask.body, exchange)
            return ResponsesApiStream(response, ResponseEvents, usage, self.run_context.note, streamed=ask.streamed)
        cap = endpoint.cap_of(client.base_url, ask.model)
        body = cap.renamed(ask.body)
        if body is not ask.body:
            ask = replace(ask, body=body)
        try:
            response = self._post_with_usage(client, ask, exchange, usage)
        except Exception as error:
            refusal = _refusal_of(error)
            if refusal is None or not cap.is_refused(ask.body, refusal):
                raise
            cap.name = cap.NEW
            self.run_context.note(
                f"{ask.model}: the server requires {cap.NEW} instead of {cap.OLD}; all further requests use it"
            )
            response = self._post_with_usage(client, replace(ask, body=cap.renamed(ask.body)), exchange, usage)
        choices = ask.body.get("n")
        make_events = partial(OpenAIEvents, choices) if type(choices) is int else OpenAIEvents
        options = ask.body.get("stream_options")
        asked = bool(options.get("include_usage")) if isinstance(options, dict) else usage.asked
        return _CompletionStream(
            response, make_events, usage, self.run_context.note, usage_asked=asked, streamed=ask.streamed
        )

    def _post_with_usage(
        self, client: SdkClient, ask: Ask, exchange: Exchange | SdkExchange, usage: endpoint.UsageSupport
    ) -> Head:
        """Send the request with ``include_usage``, unless the server is known to refuse it, or for a whole answer."""
        if not usage.asked or not ask.streamed or "stream_options" in ask.body:
            return self._post(client, ask, ask.body, exchange)
        body = {**ask.body, "stream_options": {"include_usage": True}}
        try:
            response = self._post(client, ask, body, exchange)
        except Exception as error:
            text = _refusal_of(error)
            if text is None or not usage.may_be_refusal(text):
                raise
            refusal = error
        else:
            usage.is_accepted = True
            return response
        # Send the request again without the field that the server may have refused.
        try:
            response = self._post(client, ask, ask.body, exchange)
        except Exception as error:
            if error_response_of(error) is None:
                raise
            usage.has_other_causes = True
            raise refusal from None
        usage.asked = False
        self.run_context.note(
            f"{ask.model}: the server refuses stream_options.include_usage; the client counts the output tokens"
        )
        return response

    def _post(self, client: SdkClient, ask: Ask, body: dict[str, Any], exchange: Exchange | SdkExchange) -> Head:
        import openai

        path, sdk = _PATHS[_api_of(ask)], client.sdk
        cached = None
        # A subclass may sign each request separately (Azure's tokens expire), and cookies differ between users.
        if type(sdk) is openai.OpenAI and not self.run_context.options.cookies:
            cached = self.run_context.cached_request(client, path, client.signer)
        return self.send_http(
            exchange,
            cached,
            lambda: _encoded(body),
            lambda: sdk.post(path, cast_to=object, body=body, stream=True, stream_cls=raw_stream()).response,
        )

    @classmethod
    def client_for(cls, run_context: RunContext, host: str, model: str) -> SdkClient:  # noqa: ARG003 - for subclasses
        """Return the process's client for requests to this model at this base URL, with the headers of the class."""

        def make(url: str, headers: dict[str, str]) -> SdkClient:
            return SdkClient(cls._make_client(run_context, url, headers))

        client: SdkClient = run_context.client_of_class(cls, host, cls.default_headers, make)
        return client

    @classmethod
    def _make_client(cls, run_context: RunContext, host: str, headers: dict[str, str]) -> openai.OpenAI:
        return (make_azure_client if has_deployments(host) else make_client)(run_context, host, headers)

    @classmethod
    def listed_models(cls, run_context: RunContext, host: str) -> list[str]:
        """Return the models that the server lists. Raises the SDK's errors."""
        if has_deployments(endpoint.clean_url(host)):  # Azure lists deployable models instead of deployments
            deployment = deployment_of(endpoint.clean_url(host))
            return [deployment] if deployment else []
        # Not `models.list`, whose import takes 0.05 s.
        body: Any = cls.client_for(run_context, host, run_context.model or "").sdk.get("/models", cast_to=object)
        return [str(model["id"]) for model in body["data"]]


class AzureOpenAIUser(OpenAIUser):
    """A user of Azure OpenAI. ``host`` is the resource (``https://NAME.openai.azure.com``), ``model`` a deployment.

    ``OpenAIUser`` supports hosts under Azure's domains too. This class is for other host names and for a custom token
    provider.

    Example::

        from azure.identity import DefaultAzureCredential, get_bearer_token_provider
        from locust import task
        from llm_users import AzureOpenAIUser

        class Chat(AzureOpenAIUser):
            api_version = "2024-10-21"
            azure_ad_token_provider = get_bearer_token_provider(
                DefaultAzureCredential(), "https://cognitiveservices.azure.com/.default"
            )

            @task
            def ask(self):
                self.chat()
    """

    abstract = True
    framework: ClassVar[str] = "azure"
    host_variable: ClassVar[str] = "AZURE_OPENAI_ENDPOINT"

    api_version: ClassVar[str | None] = None
    """None: use the ``api-version`` in the host's query, or else OPENAI_API_VERSION."""

    azure_ad_token_provider: ClassVar[Callable[[], str] | None] = None
    """None: use AZURE_OPENAI_AD_TOKEN, AZURE_OPENAI_API_KEY, or azure-identity's default chain if installed."""

    @classmethod
    def _make_client(cls, run_context: RunContext, host: str, headers: dict[str, str]) -> openai.OpenAI:
        return make_azure_client(
            run_context, host, headers, api_version=cls.api_version, token_provider=cls.azure_ad_token_provider
        )

    @classmethod
    def listed_models(cls, run_context: RunContext, host: str) -> list[str]:  # noqa: ARG003 - the base class's signature
        """Return the deployment in the host's path: Azure lists deployable models instead of deployments."""
        deployment = deployment_of(endpoint.clean_url(host))
        return [deployment] if deployment else []


def _api_of(ask: Ask) -> str:
    """Return the API of a request without its provider."""
    return ask.api.rpartition("-")[2]


def _encoded(body: dict[str, Any]) -> bytes | None:
    """Return the body as the SDK encodes it; None if only the SDK can handle it."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError):
        return None


def _refusal_of(error: Exception) -> str | None:
    """Return the text of the response if the server refused a field of the request; None for other errors."""
    response = error_response_of(error)
    return response.text if response is not None and response.status_code in _REFUSALS else None


class _CompletionStream(SseResponseStream):
    """The response stream of a chat completion or a legacy completion."""

    events: OpenAIEvents
    terminator = "finish reason or [DONE]"

    def awaits_usage(self) -> bool:
        return self.usage_asked and not self.events.counted

    def count_usage(self, record: RequestRecord) -> None:
        usage = self.events.usage
        if isinstance(usage, dict):
            fill_openai_usage(record, usage, "prompt", "completion")
            fill_phase_times(record, usage)  # Groq
        else:
            self.note_missing_usage(record)
        if not self.streamed:
            fill_tgi_headers(record, self.headers)
        fill_phase_times(record, self.events.time_info)
        fill_llama_timings(record, self.events.timings)
