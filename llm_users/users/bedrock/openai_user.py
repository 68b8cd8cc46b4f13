"""BedrockOpenAIUser: streamed chat completions and responses on Bedrock, through the openai SDK's provider for Bedrock.

The SDK builds and signs the first request of a client, and its errors. Later requests keep the head of the first one
and get a new signature (``sigv4``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from llm_users.load.worker.context import RunContext
from llm_users.prompts import Prompt
from llm_users.users.bedrock.api_user import BedrockApiMixin, BedrockEndpoint, without_authorization
from llm_users.users.bedrock.routes import MANTLE, openai_path
from llm_users.users.openai.client import SdkClient, make_bedrock_client, make_keyless_client
from llm_users.users.openai.user import OpenAIUser


class BedrockOpenAIUser(BedrockApiMixin, OpenAIUser):
    """A user of OpenAI's APIs on AWS Bedrock. ``host`` is only needed for a custom endpoint.

    ``--llm-bedrock-endpoint`` selects ``bedrock-runtime`` (the default) or ``bedrock-mantle``.

    Example::

        from locust import task
        from llm_users import BedrockOpenAIUser

        class Chat(BedrockOpenAIUser):
            @task
            def ask(self):
                answer = self.chat("Why is the sky blue?")
    """

    abstract = True
    provider: ClassVar[str] = "bedrock"
    apis: ClassVar[Mapping[str, str]] = {"bedrock-chat": "chat", "bedrock-responses": "respond"}

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        for model in cls.check_run(run_context):
            cls.client_for(run_context, host, model)

    def prompt_of(self, text: str | None, messages: Sequence[dict[str, Any]] | None) -> Prompt:
        """Return the prompt, always with a cap: Bedrock reserves quota for the largest possible answer without one."""
        prompt = super().prompt_of(text, messages)
        return prompt if prompt.max_tokens else prompt.capped(self.default_cap())

    @classmethod
    def client_for(cls, run_context: RunContext, host: str, model: str) -> SdkClient:
        bedrock = cls.bedrock_endpoint(run_context, host)
        base_url = bedrock.base_url(openai_path(bedrock.kind, model))
        make = partial(_make_client, run_context, bedrock)
        client: SdkClient = run_context.client_of_class(cls, base_url, cls.default_headers, make)
        return client

    @classmethod
    def listed_models(cls, run_context: RunContext, host: str) -> list[str]:
        """Return the models that the endpoint lists: ``bedrock-mantle`` lists its models, ``bedrock-runtime`` none."""
        if run_context.options.bedrock_endpoint != MANTLE:
            return []
        return super().listed_models(run_context, host)


def _make_client(
    run_context: RunContext, bedrock: BedrockEndpoint, base_url: str, headers: Mapping[str, str]
) -> SdkClient:
    headers, authentication = without_authorization(headers), bedrock.authentication
    signer = bedrock.signer()
    if signer is None and authentication.bearer is None:
        return SdkClient(make_keyless_client(run_context, base_url, headers))
    sdk = make_bedrock_client(
        run_context,
        base_url,
        headers,
        endpoint=bedrock.kind,
        region=bedrock.region,
        credentials=authentication.credentials,
        bearer=authentication.bearer,
    )
    return SdkClient(sdk, signer.sign_head if signer is not None else None)
