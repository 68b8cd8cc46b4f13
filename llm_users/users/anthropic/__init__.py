"""Users for Anthropic's Messages API."""

from llm_users.users.anthropic.user import AnthropicUser as AnthropicUser
