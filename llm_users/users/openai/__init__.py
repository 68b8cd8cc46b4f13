"""Users of OpenAI's APIs: chat completions, completions, responses, and Azure's deployments of them."""

from llm_users.users.openai.user import OpenAIUser as OpenAIUser
