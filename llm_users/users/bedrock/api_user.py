"""What the users of Bedrock's OpenAI- and Anthropic-shaped APIs share: endpoint, authentication, errors.

Their requests and answers are those of ``OpenAIUser`` and ``AnthropicUser``. A bearer key is a constant header.
Otherwise each request is signed for its own body, before its clock starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from botocore.session import Session

from llm_users import secrets
from llm_users.load.worker.context import RunContext
from llm_users.record import RequestRecord
from llm_users.transport import endpoint
from llm_users.users.bedrock.authentication import (
    HOST_VARIABLE,
    Authentication,
    authenticate,
    credentials_problem,
    region_of,
)
from llm_users.users.bedrock.errors import http_failure_of, http_refusal_of
from llm_users.users.bedrock.routes import SIGNING_SERVICE, check_endpoint, origin_of_region
from llm_users.users.bedrock.run_models import models_of_run
from llm_users.users.bedrock.sigv4 import Sigv4Signer
from llm_users.users.llm import LLMUser


@dataclass(frozen=True, slots=True, eq=False)
class BedrockEndpoint:
    """The endpoint of a run and the authentication of requests to it."""

    kind: str
    """``runtime`` or ``mantle``."""
    origin: str
    path: str
    """The path of ``--host``, which replaces the path of the model; "" if it has none."""
    region: str
    authentication: Authentication

    def base_url(self, path: str) -> str:
        """Return the base URL with the path of ``--host``, or else with this path."""
        return f"{self.origin}{self.path or path}"

    def signer(self) -> Sigv4Signer | None:
        """Return the signer of requests; None if requests have a bearer key or no authentication."""
        credentials = self.authentication.credentials
        return None if credentials is None else Sigv4Signer(credentials, SIGNING_SERVICE[self.kind], self.region)


class BedrockApiMixin(LLMUser):
    """Overrides of ``OpenAIUser`` and ``AnthropicUser`` for Bedrock. It comes first in the bases of a class."""

    abstract = True
    framework: ClassVar[str] = "bedrock"
    host_variable: ClassVar[str] = HOST_VARIABLE
    reserves_quota: ClassVar[bool] = True

    @classmethod
    def needs_host(cls) -> bool:
        return False  # AWS's endpoint of the region is known

    @classmethod
    def key_problem(cls, host: str, headers: Mapping[str, str]) -> str | None:  # noqa: ARG003 - the base's signature
        return credentials_problem(cls.botocore_session(), host)

    @classmethod
    def botocore_session(cls) -> Session:
        """Return the source of credentials, profile and settings. Override it to use your own chain."""
        return Session()

    @classmethod
    def check_run(cls, run_context: RunContext) -> list[str]:
        """Return the models of the run. Raises ValueError with a message for the user."""
        api = run_context.options.api
        if api not in (None, *cls.apis):
            raise ValueError(f"--llm-api {api} is not an API of {cls.__name__}; use {' or '.join(cls.apis)}")
        return models_of_run(cls, run_context)

    @classmethod
    def bedrock_endpoint(cls, run_context: RunContext, host: str) -> BedrockEndpoint:
        """Return the endpoint of the run, and note which authentication is in force. Raises ValueError."""

        def make() -> BedrockEndpoint:
            return _make_endpoint(run_context, cls.botocore_session(), endpoint.clean_url(host) if host else "")

        made: BedrockEndpoint = run_context.client(("endpoint", cls.__name__, host), make)
        return made

    def describe(self, record: RequestRecord) -> None:
        super().describe(record)
        record.endpoint = self.bedrock_endpoint(self.run_context, self.host or "").base_url("")

    def failure_of(self, error: BaseException) -> tuple[str, str]:
        return http_failure_of(error, self.bedrock_endpoint(self.run_context, self.host or "").base_url("/v1"))

    def refusal_of(self, error: BaseException) -> tuple[int | None, str | None]:
        return http_refusal_of(error) or super().refusal_of(error)


def _make_endpoint(run_context: RunContext, session: Session, host: str) -> BedrockEndpoint:
    options = run_context.options
    if options.simulator is not None:
        host = host.removesuffix("/v1")
    region = region_of(session, options.region, host)
    check_endpoint(options.bedrock_endpoint, host)
    origin = host or origin_of_region(session, options.bedrock_endpoint, region)
    path = urlsplit(origin).path.rstrip("/")
    origin = origin.rstrip("/").removesuffix(path)
    authentication = authenticate(run_context, session, host)
    secrets.redact_logs()
    run_context.note(
        f"Bedrock: {origin}, endpoint bedrock-{options.bedrock_endpoint}, region {region}, {authentication.about}"
    )
    return BedrockEndpoint(options.bedrock_endpoint, origin, path, region, authentication)


def without_authorization(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers. Raises ValueError if one of them would replace Bedrock's authentication."""
    if any(name.lower() == "authorization" for name in headers):
        raise ValueError(
            "Bedrock's users authenticate each request, so they cannot have a header Authorization of their own. "
            "Remove it, or use OpenAIUser or AnthropicUser for a gateway with its own keys"
        )
    return dict(headers)
