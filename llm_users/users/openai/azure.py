"""AzureOpenAIUser: requests to the deployments of an Azure OpenAI resource, with a key or Entra ID.

``OpenAIUser`` supports hosts under Azure's domains too. This class is for other host names and for a custom token
provider.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import openai

from llm_users.load.worker.context import RunContext
from llm_users.transport import endpoint
from llm_users.users.openai.client import deployment_of, make_azure_client
from llm_users.users.openai.user import OpenAIUser


class AzureOpenAIUser(OpenAIUser):
    """A user of Azure OpenAI. ``host`` is the resource (``https://NAME.openai.azure.com``), ``model`` a deployment.

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
