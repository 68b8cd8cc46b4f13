"""Credentials that expire: the one thing about them that the endpoint looks at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from llm_users.simulator.launch import Simulator

from .families import BLOCKS, CLAUDE_3


def test_credentials_expire(endpoint: Callable[..., Simulator]) -> None:
    """The key that was used for so long; another one is as good as new."""
    import boto3
    from botocore.exceptions import ClientError

    url = f"http://127.0.0.1:{endpoint('expire_credentials=200ms').port}"

    def ask(key: str) -> Any:
        client = boto3.client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=url, aws_access_key_id=key,
            aws_secret_access_key="thing",
        )  # fmt: skip
        return client.converse(modelId=CLAUDE_3, inferenceConfig={"maxTokens": 2}, **BLOCKS)

    assert ask("first")["stopReason"] == "max_tokens"
    time.sleep(0.25)
    with pytest.raises(ClientError, match="security token included in the request is expired") as expired:
        ask("first")
    assert expired.value.response["Error"]["Code"] == "ExpiredTokenException"
    assert expired.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert ask("second")["stopReason"] == "max_tokens"
