"""Which runs cost money, so that their expected usage is logged before they start."""

from __future__ import annotations

from typing import Any

import pytest

from llm_users.options import parsers
from llm_users.options.table import Options
from llm_users.wiring.paid_endpoints import is_paid


class AnyServer:
    host: str | None = None

    @classmethod
    def needs_host(cls) -> bool:
        return not cls.host


class Provider(AnyServer):
    @classmethod
    def needs_host(cls) -> bool:
        return False


class OwnHost(AnyServer):
    host = "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("user", "host", "given", "paid"),
    [
        (AnyServer, "https://api.openai.com/v1", {}, True),
        (AnyServer, "https://api.anthropic.com", {}, True),
        (AnyServer, "https://name.openai.azure.com", {}, True),
        (AnyServer, "http://127.0.0.1:8000/v1", {}, False),
        (AnyServer, "https://api.openai.com.example.org/v1", {}, False),
        (OwnHost, "http://127.0.0.1:8000/v1", {}, True),
        (Provider, None, {}, True),
        (Provider, "https://bedrock-runtime.us-east-1.amazonaws.com", {}, True),
        (Provider, "http://127.0.0.1:8000", {}, False),
        (Provider, None, {"simulator": "default"}, False),
        (AnyServer, None, {"targets": parsers.targets("m@https://api.openai.com/v1,m@http://127.0.0.1:1/v1")}, True),
        (AnyServer, None, {"targets": parsers.targets("m@http://127.0.0.1:1/v1")}, False),
    ],
)
def test_paid_endpoints(user: Any, host: str | None, given: dict[str, Any], paid: bool) -> None:
    assert is_paid(Options(**given), [user], host) is paid
