"""A locustfile that does its best to leak: every library below logs, exceptions carry keys, messages are written down.

Its keys come from the environment, as everybody's do. ``WIRETAP`` names a file for what goes between processes.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from locust import events, task
from locust.rpc import zmqrpc

from llm_users import OpenAIUser

CHATTY = ("openai", "httpx2", "httpcore2", "botocore", "boto3", "urllib3", "locust", "llm_users", "geventhttpclient")


@events.init.add_listener
def be_chatty(**_: Any) -> None:
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG)


def tap(method: str) -> None:
    """Write every message down that this process gives to its socket."""
    original = getattr(zmqrpc.BaseSocket, method)

    def tapped(self: Any, message: Any) -> Any:
        with Path(os.environ["WIRETAP"]).open("ab") as file:
            file.write(message.serialize() + b"\n")
        return original(self, message)

    setattr(zmqrpc.BaseSocket, method, tapped)


for name in ("send", "send_to_client"):
    tap(name)


class Leaky(OpenAIUser):
    host = os.environ.get("CLASS_HOST")

    def on_start(self) -> None:
        self.turns = 0

    @task
    def ask(self) -> None:
        self.turns += 1
        key = os.environ.get("OPENAI_API_KEY") or os.environ["GATEWAY_TOKEN"]
        logging.getLogger("somebody.else").debug("headers %r", {"Authorization": f"Bearer {key}"})
        self.raise_errors = self.turns % 2 == 0
        answer = self.chat("hello", max_tokens=8)
        if self.turns == 3:
            raise RuntimeError(f"the gateway refuses {key}, {answer.record.error_message}")
        if self.turns == 5 and "AWS_SECRET_ACCESS_KEY" in os.environ:
            self.ask_aws()

    def ask_aws(self) -> None:
        import boto3
        from botocore.config import Config

        config = Config(retries={"total_max_attempts": 1}, proxies={})
        client = boto3.client(
            "bedrock-runtime", region_name="eu-central-1", endpoint_url=os.environ["AWS_ECHO"], config=config
        )
        try:
            client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}])
        except Exception:
            logging.getLogger(__name__).exception("AWS says no with %s", os.environ["AWS_SESSION_TOKEN"])
