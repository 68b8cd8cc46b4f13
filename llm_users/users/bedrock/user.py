"""BedrockUser: ConverseStream and InvokeModelWithResponseStream through boto3, streamed.

boto3 does what users rely on it for (credentials, regions, endpoints, signing, validation, error types); its parsing of
the stream is left alone, since it costs more than half of the CPU of an event.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

# Locust patches the interpreter, and must have done so before botocore is loaded (else RecursionError in ssl).
import locust  # noqa: F401

# isort: split
import msgspec
from botocore.session import Session

from llm_users.load.worker.context import RunContext
from llm_users.prompts import Prompt
from llm_users.transport.botocore import SENDING, BotocoreExchange, Sending
from llm_users.transport.connection import origin_of
from llm_users.transport.exchange import Exchange
from llm_users.transport.sdk import SdkExchange
from llm_users.users.answer import Answer, Ask
from llm_users.users.bedrock.client import HOST_VARIABLE, client_of, make_client
from llm_users.users.bedrock.converse import ConverseEvents, converse_request
from llm_users.users.bedrock.errors import bedrock_failure_of, refusal_of
from llm_users.users.bedrock.events import BedrockEvents, BedrockResponseStream
from llm_users.users.bedrock.families import Family
from llm_users.users.bedrock.invoke import (
    PARAMETERS,
    InvokeEvents,
    InvokeFormat,
    cap_of,
    choose_family,
    invoke_body,
)
from llm_users.users.llm import LLMUser
from llm_users.users.response_reader import ResponseStream

CONVERSE, INVOKE = "bedrock-converse", "bedrock-invoke"
_OPERATIONS = {CONVERSE: "ConverseStream", INVOKE: "InvokeModelWithResponseStream"}

_PROMPT_FIELDS = ("messages", "prompt", "inputText", "message")


class BedrockUser(LLMUser):
    """A user of AWS Bedrock; ``host`` is only needed for an endpoint of one's own.

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
    host_variable: ClassVar[str] = HOST_VARIABLE
    reserves_quota: ClassVar[bool] = True

    invoke_format: ClassVar[InvokeFormat | None] = None
    """What ``invoke`` sends and reads: the name of a family, or a format of your own (``custom_family`` says how).
    None: ``--llm-invoke-format``, else what the model id says."""

    attempts: ClassVar[int] = 1
    """Attempts per request. More than 1: botocore retries, ``retries`` counts, and TTFT starts with the first."""

    retry_mode: ClassVar[str] = "standard"

    @classmethod
    def needs_host(cls) -> bool:
        return False  # boto3 knows where Bedrock is

    @classmethod
    def botocore_session(cls) -> Session:
        """Where credentials, profile and settings come from; override it for a chain of your own."""
        return Session()

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        model = cls.model or run_context.model
        if model is None:
            raise ValueError(
                "no model: give --llm-model, an id, inference profile or ARN as in `aws bedrock list-foundation-models`"
            )
        targets = run_context.options.targets if cls.model is None else ()
        if any(target.url for target in targets):
            raise ValueError("--llm-targets: on Bedrock name models only; where it is says --llm-region, or --host")
        if run_context.options.api not in (None, "converse", "invoke"):
            raise ValueError(f"--llm-api {run_context.options.api} is not Bedrock's: there are converse and invoke")
        if run_context.options.api == "invoke":
            for each in [target.model for target in targets] or [model]:
                cls._family(run_context, each)
        cls._client(run_context, host)

    def converse(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[dict[str, Any]] | None = None,
        system: str | Sequence[dict[str, Any]] | None = None,
        **body: Any,
    ) -> Answer:
        """One answer by ConverseStream.

        ``prompt`` is the user's text; ``messages`` a whole conversation, in Converse's shape or OpenAI's; with neither,
        the next prompt of the run's source is asked. Other keywords are Converse's parameters (``toolConfig``,
        ``guardrailConfig``, ``performanceConfig``, ``serviceTier``, ...) or sampling (``temperature=0``,
        ``maxTokens=64``).
        """
        return self._ask(lambda: self._converse_ask(self._prompt(prompt, messages), system, body), body)

    def invoke(self, prompt: str | None = None, **body: Any) -> Answer:
        """One answer by InvokeModelWithResponseStream, in the format of the model's family.

        Without ``prompt`` (or ``messages``, or the family's own field) the next prompt of the run's source is asked.
        Keywords go into the model's body, except the operation's own (``guardrailIdentifier``, ``serviceTier``, ...).
        """
        return self._ask(lambda: self._invoke_ask(prompt, body), body)

    def _converse_ask(self, prompt: Prompt, system: str | Sequence[dict[str, Any]] | None, body: dict[str, Any]) -> Ask:
        extra = {**self.run_context.options.extra_body, **body}
        model = extra.pop("modelId", None) or self._model()
        cap = prompt.max_tokens or self._default_cap()
        metadata = self._metadata()
        request = converse_request(model, prompt, cap, system, metadata, extra)
        return Ask(CONVERSE, model, _capped(prompt, request["inferenceConfig"]["maxTokens"]), request)

    def _invoke_ask(self, text: str | None, body: dict[str, Any]) -> Ask:
        extra = {**self.run_context.options.extra_body, **body}
        model = extra.pop("modelId", None) or self._model()
        given = next((name for name in _PROMPT_FIELDS if name in extra), None)
        if text is None and given is not None:
            turns = extra.pop("messages") if given == "messages" else []
            prompt = Prompt(-1, None, turns, None, None)
        else:
            prompt = self._prompt(text, None)
        family = self._family(self.run_context, model)
        parameters = {name: extra.pop(name) for name in PARAMETERS & set(extra)}
        document = invoke_body(family, model, prompt, prompt.max_tokens or self._default_cap(), extra)
        metadata = {**self._metadata(), **_as_tags(parameters.pop("requestMetadata", {}))}
        request: dict[str, Any] = {
            "modelId": model,
            "body": msgspec.json.encode(document),
            "contentType": "application/json",
            **parameters,
        }
        if metadata and self._takes(INVOKE, "requestMetadata"):
            request["requestMetadata"] = json.dumps(metadata)
        return Ask(INVOKE, model, _capped(prompt, cap_of(family, document)), {"family": family, "request": request})

    def _metadata(self) -> dict[str, str]:
        """What the account's invocation log will say about the request."""
        run_context = self.run_context
        return {"locust-run": run_context.run_id, "locust-stage": str(run_context.gate.plan.stage)}

    @classmethod
    def _family(cls, run_context: RunContext, model: str) -> Family:
        key = ("family", cls.__name__, model)
        family: Family | None = run_context.clients.get(key)
        if family is None:
            chosen = choose_family(model, cls.invoke_format or run_context.options.invoke_format)
            family = run_context.clients[key] = chosen
        return family

    def _takes(self, api: str, parameter: str) -> bool:
        """Older boto3 do not know every parameter."""
        model = self._client(self.run_context, self.host or "").meta.service_model.operation_model(_OPERATIONS[api])
        return parameter in model.input_shape.members

    # The wire.

    def _make_exchange(self) -> Exchange | SdkExchange:
        return Exchange(self.run_context.pool) if self.run_context.options.transport == "fast" else BotocoreExchange()

    def _open(self, ask: Ask, exchange: Exchange | SdkExchange) -> ResponseStream:
        client = self._client(self.run_context, self.host or "")
        fast = isinstance(exchange, Exchange)
        if isinstance(exchange, Exchange):
            exchange.reserve(origin_of(client.meta.endpoint_url))
        self.run_context.starts.wait()
        events: BedrockEvents
        call: Callable[..., dict[str, Any]]
        if ask.api == CONVERSE:
            events, call, request, stream = ConverseEvents(), client.converse_stream, ask.body, "stream"
        else:
            events, call = InvokeEvents(ask.body["family"]), client.invoke_model_with_response_stream
            request, stream = ask.body["request"], "body"
        assert isinstance(exchange, (Exchange, BotocoreExchange))
        SENDING.set(Sending(exchange))
        try:
            response = call(**request)
        finally:
            SENDING.set(None)
        if isinstance(exchange, SdkExchange):
            exchange.body = response[stream]
        return BedrockResponseStream(events, response["ResponseMetadata"], parsed=not fast)

    def _failure_of(self, error: BaseException) -> tuple[str, str]:
        return bedrock_failure_of(error, self.host or "")

    def _refusal_of(self, error: BaseException) -> tuple[int | None, str | None]:
        return refusal_of(error)

    @classmethod
    def _client(cls, run_context: RunContext, host: str) -> Any:
        def make(clean_host: str) -> Any:
            session = cls.botocore_session()
            return make_client(run_context, clean_host, session, attempts=cls.attempts, retry_mode=cls.retry_mode)

        return client_of(cls.__name__, run_context, host, make)


def _capped(prompt: Prompt, cap: int | None) -> Prompt:
    """The prompt with the cap that is really sent."""
    if cap == prompt.max_tokens:
        return prompt
    return Prompt(prompt.index, prompt.text, prompt.messages, prompt.input_tokens, cap)


def _as_tags(given: Any) -> dict[str, str]:
    """Request metadata as Invoke takes it, JSON in a string, or as Converse does."""
    tags: dict[str, str] = json.loads(given) if isinstance(given, str) else dict(given)
    return tags
