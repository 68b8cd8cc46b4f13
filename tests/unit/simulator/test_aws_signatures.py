"""Signatures on the routes of Bedrock: real signers of AWS and OpenAI, right and wrong, and the errors of AWS."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from llm_users.simulator.launch import Simulator, launch

from ...aws_environment import ACCESS_KEY, SECRET_KEY
from .families import CLAUDE_3
from .signing import CHAT, CONVERSE, MESSAGES, REGION, RESPONSES, TEXT, VERIFIED, Reply, ask

Endpoint = Callable[..., Simulator]
MANTLE_CHAT = "/v1/chat/completions"
SHAPES = (CONVERSE, CHAT, RESPONSES, MESSAGES, MANTLE_CHAT)
MISMATCH = "The request signature we calculated does not match the signature you provided."


def message_of(path: str, reply: Reply, code: str) -> str:
    """Return the message of a refused request, after a check of the shape in which the API sends it."""
    if "/model/" in path:
        assert (reply.status, reply.headers["x-amzn-errortype"]) == (403, code)
        return str(reply.body["message"])
    assert reply.status == 401
    if path == MESSAGES:
        assert reply.body["type"] == "error"
        assert reply.body["request_id"] == reply.headers["request-id"]
        assert reply.body["error"]["type"] == "authentication_error"
    else:
        error = reply.body["error"]
        assert (error["type"], error["code"], error["param"]) == ("permission_denied_error", "invalid_api_key", None)
    return str(reply.body["error"]["message"])


@pytest.mark.parametrize("path", SHAPES)
def test_a_valid_signature_is_accepted(endpoint: Endpoint, path: str) -> None:
    port = endpoint(VERIFIED).port
    assert ask(port, path).status == 200
    assert ask(port, path, token="session/token+=").status == 200
    assert ask(port, path, date_header=True).status == 200
    # A shift that stays far enough from the limit of five minutes for a slow machine.
    assert ask(port, path, shift=timedelta(minutes=-4)).status == 200
    assert ask(port, path, shift=timedelta(minutes=4)).status == 200


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize(
    ("wrong", "code", "text"),
    [
        ({"secret": "another"}, "InvalidSignatureException", MISMATCH),
        ({"access_key": "AKIAANOTHER"}, "UnrecognizedClientException", "The security token included in the request is"),
        ({"region": "us-east-1"}, "InvalidSignatureException", "scoped to a valid region, not 'us-east-1'"),
        ({"service": "s3"}, "InvalidSignatureException", "Credential should be scoped to correct service: 'bedrock"),
        ({"shift": timedelta(minutes=-6)}, "InvalidSignatureException", "Signature expired: "),
        ({"shift": timedelta(minutes=6)}, "InvalidSignatureException", "Signature not yet current: "),
        ({"signed": False}, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        ({"sent_body": b'{"messages": []}'}, "InvalidSignatureException", MISMATCH),
        ({"changed": {"content-type": "text/plain"}}, "InvalidSignatureException", MISMATCH),
        ({"changed": {"authorization": "AWS4-HMAC-SHA256 x"}}, "IncompleteSignatureException", "missing equal-sign"),
        ({"changed": {"x-amz-date": "today"}}, "IncompleteSignatureException", "'X-Amz-Date' or a 'Date' header"),
        ({"changed": {"authorization": "Bearer key"}}, "AccessDeniedException", "valid"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_signature_gets_the_error_of_aws(
    endpoint: Endpoint, path: str, wrong: dict[str, Any], code: str, text: str
) -> None:
    assert text in message_of(path, ask(endpoint(VERIFIED).port, path, **wrong), code)


def test_each_endpoint_has_the_name_of_its_service(endpoint: Endpoint) -> None:
    port = endpoint(VERIFIED).port
    for path in (CHAT, MESSAGES, MANTLE_CHAT):
        assert ask(port, path, service="bedrock-mantle").status == 200
    refused = ask(port, CONVERSE, service="bedrock-mantle")
    assert refused.body["message"] == "Credential should be scoped to correct service: 'bedrock'. "
    assert "correct service: 'bedrock-mantle'" in ask(port, MANTLE_CHAT, service="mantle").body["error"]["message"]


def test_the_query_belongs_to_the_signature(endpoint: Endpoint) -> None:
    port = endpoint(VERIFIED).port
    query = "b=2&a=%C3%A9+1&a=&c"
    assert ask(port, f"{CHAT}?{query}").status == 200
    assert ask(port, f"{CHAT}?{query}", sent_path=f"{CHAT}?c&a=&b=2&a=%C3%A9+1").status == 200
    assert ask(port, f"{CHAT}?{query}", sent_path=f"{CHAT}?b=3").status == 401
    assert ask(port, CHAT, sent_path=f"{CHAT}?b=3").status == 401


def test_the_error_shows_what_should_have_been_signed(endpoint: Endpoint) -> None:
    """As on AWS, the two texts tell where a signer differs; they contain the headers, but no secret key."""
    message = ask(endpoint(VERIFIED).port, CONVERSE, secret="another", token="the-token").body["message"]
    canonical, text = re.findall(r"should have been\n'(.*?)'\n", message, re.DOTALL)
    assert canonical.splitlines()[:2] == ["POST", CONVERSE.replace("%", "%25")]
    assert "x-amz-security-token:the-token" in canonical
    assert text.splitlines()[2].endswith(f"/{REGION}/bedrock/aws4_request")
    assert SECRET_KEY not in message


def test_without_the_key_any_signature_is_accepted(endpoint: Endpoint) -> None:
    port = endpoint("").port
    for path in SHAPES:
        assert ask(port, path, secret="another", region="nowhere", shift=timedelta(days=9)).status == 200
        assert ask(port, path, signed=False).status == 200
    # A signed request needs no API key either: the key is for those who send one.
    assert ask(endpoint("api_key=sesame").port, CHAT).status == 200
    assert ask(endpoint("api_key=sesame").port, CHAT, signed=False).status == 401


def test_a_bearer_key_and_signatures_can_be_valid_together(endpoint: Endpoint) -> None:
    port = endpoint(f"{VERIFIED},api_key=sesame").port
    for path in SHAPES:
        assert ask(port, path).status == 200
        assert ask(port, path, signed=False, changed={"authorization": "Bearer sesame"}).status == 200
        assert ask(port, path, signed=False, changed={"authorization": "Bearer other"}).status in (401, 403)
    assert ask(port, MESSAGES, signed=False, changed={"x-api-key": "sesame"}).status == 200


@pytest.mark.parametrize("path", SHAPES)
def test_credentials_expire_on_every_route(path: str) -> None:
    with launch("ttft=1ms,itl=100us,expire_credentials=200ms") as simulator:
        assert ask(simulator.port, path).status == 200
        time.sleep(0.25)
        refused = ask(simulator.port, path)
        expired = "The security token included in the request is expired"
        assert message_of(path, refused, "ExpiredTokenException") == expired
        assert ask(simulator.port, path, access_key="AKIARENEWED").status == 200


def test_boto3_signs_every_operation(endpoint: Endpoint) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    def client(secret: str) -> Any:
        config = Config(retries={"total_max_attempts": 1}, user_agent_extra="é")
        return boto3.client(
            "bedrock-runtime", region_name=REGION, endpoint_url=f"http://127.0.0.1:{endpoint(VERIFIED).port}",
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=secret, aws_session_token="token", config=config,
        )  # fmt: skip

    turns = [{"role": "user", "content": [{"text": TEXT}]}]
    asked = {"modelId": CLAUDE_3, "messages": turns, "inferenceConfig": {"maxTokens": 3}}
    body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 3, "messages": turns})
    signer = client(SECRET_KEY)
    assert signer.converse(**asked)["usage"]["outputTokens"] == 3
    assert len([event for event in signer.converse_stream(**asked)["stream"] if "contentBlockDelta" in event]) == 3
    assert json.loads(signer.invoke_model(modelId=CLAUDE_3, body=body)["body"].read())["usage"]["output_tokens"] == 3
    arn = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-3-haiku-20240307-v1:0"
    chunks = list(signer.invoke_model_with_response_stream(modelId=arn, body=body)["body"])
    assert b"message_stop" in chunks[-1]["chunk"]["bytes"]
    with pytest.raises(ClientError, match="does not match the signature you provided") as caught:
        client("another").converse(**asked)
    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("endpoint_name", "base"), [("runtime", "/openai/v1"), ("mantle", "/v1"), ("mantle", "/openai/v1")]
)
def test_the_openai_sdk_signs_and_parses(endpoint: Endpoint, endpoint_name: Any, base: str) -> None:
    import openai
    from openai.providers.bedrock import bedrock

    def client(secret: str) -> openai.OpenAI:
        provider = bedrock(
            endpoint=endpoint_name, base_url=f"http://127.0.0.1:{endpoint(VERIFIED).port}{base}", region=REGION,
            access_key_id=ACCESS_KEY, secret_access_key=secret, session_token="token/+=",
        )  # fmt: skip
        return openai.OpenAI(provider=provider, max_retries=0)

    signer = client(SECRET_KEY)
    turns: Any = [{"role": "user", "content": TEXT}]
    whole = signer.chat.completions.create(model="m", messages=turns, max_tokens=4)
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (len(TEXT.split()), 4)
    assert len(str(whole.choices[0].message.content).split()) == 4
    assert whole.choices[0].finish_reason == "length"
    *chunks, last = signer.chat.completions.create(
        model="m", messages=turns, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()) == 4
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 4
    answer = signer.responses.create(model="m", input=TEXT, max_output_tokens=4, extra_query={"b": "é 2", "a": "1"})
    assert len(answer.output_text.split()) == 4
    assert answer.usage is not None
    assert answer.incomplete_details is not None
    assert (answer.usage.output_tokens, answer.incomplete_details.reason) == (4, "max_output_tokens")
    events = list(signer.responses.create(model="m", input=TEXT, max_output_tokens=4, stream=True))
    assert len([event for event in events if event.type == "response.output_text.delta"]) == 4
    assert [model.id for model in signer.models.list()] == ["simulated"]
    with pytest.raises(openai.AuthenticationError, match="does not match the signature you provided"):
        client("another").chat.completions.create(model="m", messages=turns)
    with pytest.raises(openai.AuthenticationError, match="does not match the signature you provided"):
        client("another").models.list()


def test_the_log_names_the_error_of_a_refused_signature(tmp_path: Any) -> None:
    log = tmp_path / "log.jsonl"
    with launch(f"ttft=1ms,itl=1ms,{VERIFIED}", log=log) as simulator:
        for path in SHAPES:
            ask(simulator.port, path)
            ask(simulator.port, path, secret="another")
        simulator.stop()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(entry["outcome"], entry["reason"]) for entry in entries] == [
        ("completed", ""), ("error", "InvalidSignatureException"),
    ] * len(SHAPES)  # fmt: skip
