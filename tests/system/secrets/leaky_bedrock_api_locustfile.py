"""As the other leaky locustfile, with the users of Bedrock's OpenAI- and Anthropic-shaped APIs."""

from __future__ import annotations

import logging
import os
from typing import Any

from locust import events, task

from llm_users import BedrockAnthropicUser, BedrockOpenAIUser
from tests.system.secrets.leaky_locustfile import be_chatty, tap

events.init.add_listener(be_chatty)
for name in ("send", "send_to_client"):
    tap(name)

SECRET_VARIABLES = ("AWS_BEARER_TOKEN_BEDROCK", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def ask_and_complain(user: Any, *calls: Any) -> None:
    """Send a request with one of these calls; every third time, raise an error that has the secrets."""
    user.turns += 1
    secrets = [os.environ[name] for name in SECRET_VARIABLES if name in os.environ]
    logging.getLogger("somebody.else").debug("signing with %r", secrets)
    user.raise_errors = user.turns % 2 == 0
    answer = calls[user.turns % len(calls)]("hello")
    if user.turns == 3:
        raise RuntimeError(f"AWS refuses {secrets}, {answer.record.error_message}")


class LeakyOpenAI(BedrockOpenAIUser):
    def on_start(self) -> None:
        self.turns = 0

    @task
    def ask(self) -> None:
        ask_and_complain(self, self.chat, self.respond)


class LeakyAnthropic(BedrockAnthropicUser):
    def on_start(self) -> None:
        self.turns = 0

    @task
    def ask(self) -> None:
        ask_and_complain(self, self.message)
