"""Users of AWS Bedrock: ConverseStream and InvokeModelWithResponseStream."""

from llm_users.users.bedrock.user import BedrockUser as BedrockUser
