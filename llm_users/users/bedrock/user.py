"""BedrockUser: requests to ConverseStream, InvokeModelWithResponseStream, Converse and InvokeModel through boto3.

boto3 provides credentials, regions, endpoints, signing, validation and error types. Its stream parser is not used,
because it takes more than half of the CPU time of an event.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

# Locust patches the interpreter, which must happen before botocore is imported (else RecursionError in ssl).
import locust  # noqa: F401

# isort: split
import msgspec
from botocore.session import Session

from llm_users.load.worker.context import RunContext
from llm_users.prompts import Prompt
from llm_users.transport import endpoint
from llm_users.transport.botocore import SENDING, BotocoreExchange, ParsedBody, Sending
from llm_users.transport.connection import origin_of
from llm_users.transport.exchange import Exchange, SdkExchange
from llm_users.users.answer import Answer, Ask
from llm_users.users.bedrock.authentication import HOST_VARIABLE, credentials_problem
from llm_users.users.bedrock.client import make_client
from llm_users.users.bedrock.converse import ConverseEvents, converse_request
from llm_users.users.bedrock.errors import bedrock_failure_of, refusal_of
from llm_users.users.bedrock.events import BedrockEvents, BedrockResponseStream
from llm_users.users.bedrock.families import Family
from llm_users.users.bedrock.invoke import PARAMETERS, InvokeEvents, InvokeFormat, cap_of, choose_family, invoke_body
from llm_users.users.bedrock.routes import RUNTIME
from llm_users.users.bedrock.run_models import models_of_run
from llm_users.users.llm import LLMUser
from llm_users.users.response_stream import ResponseStream

CONVERSE, INVOKE = "bedrock-converse", "bedrock-invoke"

_PROMPT_FIELDS = ("messages", "prompt")


class BedrockUser(LLMUser):
    """A user of AWS Bedrock. ``host`` is only needed for a custom endpoint.

    Example::

        from locust import task
        from llm_users import BedrockUser

        class Chat(BedrockUser):
            @task
            def ask(self):
                answer = self.converse("Why is the sky blue?")
    """

    abstract = True
    framework: ClassVar[str] = "bedrock"
    apis: ClassVar[Mapping[str, str]] = {"converse": "converse", "invoke": "invoke"}
    host_variable: ClassVar[str] = HOST_VARIABLE
    reserves_quota: ClassVar[bool] = True

    invoke_format: ClassVar[InvokeFormat | None] = None
    """The format of ``invoke``: the name of a family, or a custom format (see ``custom_family``).
    None: ``--llm-invoke-format``, or else the family of the model id."""

    attempts: ClassVar[int] = 1
    """Attempts per request. If above 1, botocore retries, ``retries`` counts them, and TTFT starts at the first one."""

    retry_mode: ClassVar[str] = "standard"

    @classmethod
    def needs_host(cls) -> bool:
        return False  # boto3 knows the endpoint of Bedrock

    @classmethod
    def botocore_session(cls) -> Session:
        """Return the source of credentials, profile and settings. Override it to use your own chain."""
        return Session()

    @classmethod
    def key_problem(cls, host: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG003 - the base's signature
        return credentials_problem(cls.botocore_session(), host)

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        models = models_of_run(cls, run_context)
        if run_context.options.api not in (None, *cls.apis):
            raise ValueError(f"--llm-api {run_context.options.api} is not an API of Bedrock; use converse or invoke")
        if run_context.options.bedrock_endpoint != RUNTIME:
            raise ValueError(
                "bedrock-mantle does not have the APIs converse and invoke: use bedrock-chat, bedrock-responses or "
                "bedrock-messages, or remove --llm-bedrock-endpoint"
            )
        if run_context.options.api == "invoke":
            for invoked_model in models:
                cls._family(run_context, invoked_model)
        cls._client(run_context, host)

    def converse(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[dict[str, Any]] | None = None,
        system: str | Sequence[dict[str, Any]] | None = None,
        **body: Any,
    ) -> Answer:
        """Send one request to ConverseStream, with ``stream=False`` to Converse, and return the answer.

        ``prompt`` is the user's text. ``messages`` is a whole conversation, in the shape of Converse or OpenAI.
        Without both, the user sends the next prompt of the run. Other keywords are Converse's parameters
        (``toolConfig``, ``guardrailConfig``, ``performanceConfig``, ``serviceTier``, ...) or sampling parameters
        (``temperature=0``, ``maxTokens=64``).
        """
        return self.send_request(lambda: self._converse_ask(self.prompt_of(prompt, messages), system, body), body)

    def invoke(self, prompt: str | None = None, **body: Any) -> Answer:
        """Send one request to InvokeModelWithResponseStream, in the format of the model's family; return the answer.

        With ``stream=False``, send it to InvokeModel.
        Without ``prompt`` (or ``messages``, or the prompt field of the family), the user sends the next prompt of the
        run. Keywords are added to the model's body, except the parameters of the operation (``guardrailIdentifier``,
        ``serviceTier``, ...).
        """
        return self.send_request(lambda: self._invoke_ask(prompt, body), body)

    def _converse_ask(self, prompt: Prompt, system: str | Sequence[dict[str, Any]] | None, body: dict[str, Any]) -> Ask:
        extra = self.extra_body(body)
        streamed = bool(extra.pop("stream", self.streams))
        model = extra.pop("modelId", None) or self.model_of_request()
        cap = prompt.max_tokens or self.default_cap()
        request = converse_request(model, prompt, cap, system, self._metadata(), extra)
        return Ask(CONVERSE, model, prompt.capped(request["inferenceConfig"]["maxTokens"]), request, streamed)

    def _invoke_ask(self, text: str | None, body: dict[str, Any]) -> Ask:
        extra = self.extra_body(body)
        streamed = bool(extra.pop("stream", self.streams))
        model = extra.pop("modelId", None) or self.model_of_request()
        prompt_field = next((name for name in _PROMPT_FIELDS if name in extra), None)
        if text is None and prompt_field is not None:
            turns = extra.pop("messages") if prompt_field == "messages" else []
            prompt = Prompt(-1, None, turns, None, None)
        else:
            prompt = self.prompt_of(text, None)
        family = self._family(self.run_context, model)
        parameters = {name: extra.pop(name) for name in PARAMETERS & set(extra)}
        document = invoke_body(family, model, prompt, prompt.max_tokens or self.default_cap(), extra)
        tags = parameters.pop("requestMetadata", {})  # a JSON string, as in Invoke, or an object, as in Converse
        metadata = {**self._metadata(), **(json.loads(tags) if isinstance(tags, str) else tags)}
        request: dict[str, Any] = {
            "modelId": model,
            "body": msgspec.json.encode(document),
            "contentType": "application/json",
            **parameters,
        }
        model_of_service = self._client(self.run_context, self.host or "").meta.service_model
        operation = "InvokeModelWithResponseStream" if streamed else "InvokeModel"
        parameters_of_boto3 = model_of_service.operation_model(operation).input_shape.members
        if metadata and "requestMetadata" in parameters_of_boto3:  # older versions of boto3 do not support it
            request["requestMetadata"] = json.dumps(metadata)
        prompt = prompt.capped(cap_of(family, document))
        return Ask(INVOKE, model, prompt, {"family": family, "request": request}, streamed)

    def _metadata(self) -> dict[str, str]:
        """Return the request metadata for the account's invocation log."""
        run_context = self.run_context
        return {"locust-run": run_context.run_id, "locust-stage": str(run_context.gate.plan.stage)}

    @classmethod
    def _family(cls, run_context: RunContext, model: str) -> Family:
        key = ("family", cls.__name__, model)
        chosen = cls.invoke_format or run_context.options.invoke_format
        family: Family = run_context.client(key, lambda: choose_family(model, chosen))
        return family

    # Sending requests.

    def make_exchange(self) -> Exchange | SdkExchange:
        return Exchange(self.run_context.pool) if self.run_context.options.transport == "fast" else BotocoreExchange()

    def open_response(self, ask: Ask, exchange: Exchange | SdkExchange) -> ResponseStream:
        client = self._client(self.run_context, self.host or "")
        fast = isinstance(exchange, Exchange)
        if isinstance(exchange, Exchange):
            exchange.reserve(origin_of(client.meta.endpoint_url))
        self.run_context.starts.wait()
        events: BedrockEvents
        call: Callable[..., dict[str, Any]]
        if ask.api == CONVERSE:
            call = client.converse_stream if ask.streamed else client.converse
            events, request = ConverseEvents(), ask.body
        else:
            call = client.invoke_model_with_response_stream if ask.streamed else client.invoke_model
            events, request = InvokeEvents(ask.body["family"]), ask.body["request"]
        assert isinstance(exchange, (Exchange, BotocoreExchange))
        SENDING.set(Sending(exchange, leaves_body=not ask.streamed))
        try:
            response = call(**request)
        finally:
            SENDING.set(None)
        if isinstance(exchange, SdkExchange):
            exchange.body = response.get("stream") or response.get("body") or ParsedBody(response)
        return BedrockResponseStream(events, response["ResponseMetadata"], parsed=not fast, streamed=ask.streamed)

    def failure_of(self, error: BaseException) -> tuple[str, str]:
        return bedrock_failure_of(error, self.host or "")

    def refusal_of(self, error: BaseException) -> tuple[int | None, str | None]:
        return refusal_of(error)

    @classmethod
    def _client(cls, run_context: RunContext, host: str) -> Any:
        host = endpoint.clean_url(host) if host else ""

        def make() -> Any:
            session = cls.botocore_session()
            return make_client(run_context, host, session, attempts=cls.attempts, retry_mode=cls.retry_mode)

        return run_context.client((cls.__name__, host), make)
