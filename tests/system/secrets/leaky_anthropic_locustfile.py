"""As the other leaky locustfile, with a user of Anthropic's API."""

from __future__ import annotations

import logging
import os

from locust import events, task

from llm_users import AnthropicUser
from tests.system.secrets.leaky_locustfile import be_chatty, tap

events.init.add_listener(be_chatty)
for name in ("send", "send_to_client"):
    tap(name)

SECRET_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


class LeakyAnthropic(AnthropicUser):
    def on_start(self) -> None:
        self.turns = 0

    @task
    def ask(self) -> None:
        self.turns += 1
        secrets = [os.environ[name] for name in SECRET_VARIABLES if name in os.environ]
        logging.getLogger("somebody.else").debug("headers %r", {"x-api-key": secrets})
        self.raise_errors = self.turns % 2 == 0
        answer = self.message("hello")
        if self.turns == 3:
            raise RuntimeError(f"Anthropic refuses {secrets}, {answer.record.error_message}")
