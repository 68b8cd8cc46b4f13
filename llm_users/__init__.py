"""Load testing of LLM endpoints with Locust: User classes, one row per request, and LLMPerf's tables.

Access to a User class loads Locust and registers the options and listeners, once. The import of this package does not,
so you can use ``llm_users.record`` where you do not want Locust, which patches the interpreter.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from llm_users._version import __version__ as __version__

if sys.platform == "win32":
    raise ImportError(
        "locust-llm runs on Linux and macOS, not on Windows: it reads sockets with recvmsg, locks files with fcntl and "
        "starts workers with fork, and Windows has none of them. Use the Windows Subsystem for Linux (WSL 2) or a "
        "container"
    )

if TYPE_CHECKING:
    from llm_users.extension import attach
    from llm_users.prompts.images import image_part
    from llm_users.prompts.prompt import Prompt
    from llm_users.record import RequestRecord
    from llm_users.users.answer import Answer, AnswerCheck
    from llm_users.users.anthropic.user import AnthropicUser
    from llm_users.users.bedrock.anthropic_user import BedrockAnthropicUser
    from llm_users.users.bedrock.openai_user import BedrockOpenAIUser
    from llm_users.users.bedrock.user import BedrockUser
    from llm_users.users.conversation import ConversationMixin, ConversationUser
    from llm_users.users.llm import LLMUser
    from llm_users.users.openai.user import AzureOpenAIUser, OpenAIUser

__all__ = [
    "Answer",
    "AnswerCheck",
    "AnthropicUser",
    "AzureOpenAIUser",
    "BedrockAnthropicUser",
    "BedrockOpenAIUser",
    "BedrockUser",
    "ConversationMixin",
    "ConversationUser",
    "LLMUser",
    "OpenAIUser",
    "Prompt",
    "RequestRecord",
    "attach",
    "image_part",
]

_MODULE_OF = {
    "Answer": "llm_users.users.answer",
    "AnswerCheck": "llm_users.users.answer",
    "AnthropicUser": "llm_users.users.anthropic.user",
    "AzureOpenAIUser": "llm_users.users.openai.user",
    "BedrockAnthropicUser": "llm_users.users.bedrock.anthropic_user",
    "BedrockOpenAIUser": "llm_users.users.bedrock.openai_user",
    "BedrockUser": "llm_users.users.bedrock.user",
    "ConversationMixin": "llm_users.users.conversation",
    "ConversationUser": "llm_users.users.conversation",
    "LLMUser": "llm_users.users.llm",
    "OpenAIUser": "llm_users.users.openai.user",
    "Prompt": "llm_users.prompts.prompt",
    "RequestRecord": "llm_users.record",
    "attach": "llm_users.extension",
    "image_part": "llm_users.prompts.images",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'llm_users' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
