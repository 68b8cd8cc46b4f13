"""Users for OpenAI's APIs: chat completions, completions and responses, also on Azure's deployments."""

from llm_users.users.openai.user import OpenAIUser as OpenAIUser
