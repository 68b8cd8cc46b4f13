"""Users of AWS Bedrock: ConverseStream and InvokeModelWithResponseStream."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_users.users.bedrock.user import BedrockUser as BedrockUser


def __getattr__(name: str) -> Any:
    if name != "BedrockUser":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not at the top: it imports boto3, and users of other APIs import modules of this package.
    from llm_users.users.bedrock.user import BedrockUser

    return BedrockUser
