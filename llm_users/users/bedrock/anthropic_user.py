"""BedrockAnthropicUser: streamed requests to Anthropic's Messages API on Bedrock.

The openai SDK does not have this API, so the requests are those of ``AnthropicUser``, signed with ``sigv4``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import ClassVar

import httpx2

from llm_users.load.worker.context import RunContext
from llm_users.users.anthropic.user import AnthropicUser, MessagesClient, make_messages_client
from llm_users.users.bedrock.api_user import BedrockApiMixin, BedrockEndpoint, without_authorization
from llm_users.users.bedrock.routes import ANTHROPIC_PATH
from llm_users.users.bedrock.sigv4 import Sigv4Signer


class BedrockAnthropicUser(BedrockApiMixin, AnthropicUser):
    """A user of Anthropic's Messages API on AWS Bedrock. ``host`` is only needed for a custom endpoint.

    ``--llm-bedrock-endpoint`` selects ``bedrock-runtime`` (the default) or ``bedrock-mantle``.

    Example::

        from locust import task
        from llm_users import BedrockAnthropicUser

        class Chat(BedrockAnthropicUser):
            @task
            def ask(self):
                answer = self.message("Why is the sky blue?")
    """

    abstract = True
    provider: ClassVar[str] = "bedrock"
    apis: ClassVar[Mapping[str, str]] = {"bedrock-messages": "message"}

    @classmethod
    def prepare_process(cls, run_context: RunContext, host: str) -> None:
        cls.check_run(run_context)
        cls.client_for(run_context, host)

    @classmethod
    def client_for(cls, run_context: RunContext, host: str) -> MessagesClient:
        bedrock = cls.bedrock_endpoint(run_context, host)
        make = partial(_make_client, run_context, bedrock)
        client: MessagesClient = run_context.client_of_class(
            cls, bedrock.base_url(ANTHROPIC_PATH), cls.default_headers, make
        )
        return client

    @classmethod
    def listed_models(cls, run_context: RunContext, host: str) -> list[str]:  # noqa: ARG003 - the base's signature
        """Return no models: Bedrock does not list them on this path."""
        return []


def _make_client(
    run_context: RunContext, bedrock: BedrockEndpoint, base_url: str, headers: Mapping[str, str]
) -> MessagesClient:
    own, bearer, signer = without_authorization(headers), bedrock.authentication.bearer, bedrock.signer()
    credentials = {"authorization": f"Bearer {bearer}"} if bearer else {}
    if signer is None:
        return make_messages_client(run_context, base_url, own, credentials)
    return make_messages_client(
        run_context, base_url, own, credentials, auth=_Sigv4Auth(signer), signer=signer.sign_head
    )


class _Sigv4Auth(httpx2.Auth):
    """Signs the requests of an HTTP client."""

    requires_request_body = True

    def __init__(self, signer: Sigv4Signer) -> None:
        self._signer = signer

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        signed = self._signer.sign_request(request.method, str(request.url), request.headers, request.content)
        request.headers.clear()
        request.headers.update(signed)
        yield request
