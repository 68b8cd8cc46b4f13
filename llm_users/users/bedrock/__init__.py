"""Users of AWS Bedrock: Converse and InvokeModel through boto3, and Bedrock's OpenAI- and Anthropic-shaped APIs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_users.users.bedrock.anthropic_user import BedrockAnthropicUser as BedrockAnthropicUser
    from llm_users.users.bedrock.openai_user import BedrockOpenAIUser as BedrockOpenAIUser
    from llm_users.users.bedrock.user import BedrockUser as BedrockUser

_MODULE_OF = {
    "BedrockAnthropicUser": "anthropic_user",
    "BedrockOpenAIUser": "openai_user",
    "BedrockUser": "user",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not at the top: they import boto3, and users of other APIs import modules of this package.
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
