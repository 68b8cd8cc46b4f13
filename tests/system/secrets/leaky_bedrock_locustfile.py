"""As the other leaky locustfile, with a user of Bedrock."""

from __future__ import annotations

import logging
import os
from typing import Any

from locust import events, task

from llm_users import BedrockUser
from tests.system.secrets.leaky_locustfile import be_chatty, tap

events.init.add_listener(be_chatty)
for name in ("send", "send_to_client"):
    tap(name)

SECRET_VARIABLES = ("AWS_BEARER_TOKEN_BEDROCK", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class LeakyBedrock(BedrockUser):
    """Asks by both operations."""

    def on_start(self) -> None:
        self.turns = 0

    @task
    def ask(self) -> None:
        self.turns += 1
        secrets = [os.environ[name] for name in SECRET_VARIABLES if name in os.environ]
        logging.getLogger("somebody.else").debug("signing with %r", secrets)
        self.raise_errors = self.turns % 2 == 0
        call: Any = self.invoke if self.turns % 3 == 0 else self.converse
        answer = call("hello")
        if self.turns == 3:
            raise RuntimeError(f"AWS refuses {secrets}, {answer.record.error_message}")
