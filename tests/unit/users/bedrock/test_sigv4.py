"""Signatures of cached heads, byte for byte against botocore's and the openai SDK's."""

from __future__ import annotations

import datetime
import random
import time
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from llm_users.transport.connection import origin_of
from llm_users.transport.exchange import head_bytes
from llm_users.users.bedrock.sigv4 import SignedHead, Sigv4Signer
from tests.aws_environment import ACCESS_KEY, SECRET_KEY
from tests.unit.users.bedrock.signatures import expected_signature, parts_of

RANDOM = random.Random(20)
BODIES = [b"", b"{}", "Où? ☃ %s %% %d".encode(), b"\r\n\0", *(RANDOM.randbytes(2**size) for size in (1, 8, 12, 17))]
TIMES = ["20260101T000000Z", "20240229T235959Z", "20261231T120000Z", "20300704T010203Z"]
TOKENS = [None, "FwoGZXIvYXdzE%EXAMPLE/TOKEN+==" * 20]
TARGETS = [
    "/openai/v1/chat/completions",
    "/anthropic/v1/messages",
    "/v1/responses?b=2&a=%2F1&a=0&c",
    "/vpc/a%20b/../x//v1/chat/completions",
    "/model/us.anthropic.claude:0/x",
]
HEADERS = {
    "accept": "application/json",
    "Content-Type": "application/json",
    "x-percent": "50 % %d %s",
    "X-Spaces": "  a   b  ",
    "user-agent": "locust-llm/1",
    "accept-encoding": "identity",
    "connection": "keep-alive",
}


def head_of(signer: Sigv4Signer, target: str, body: bytes, *, with_length: bool = True) -> bytes:
    """The head of a first request, as the transport writes it."""
    url = f"https://bedrock-runtime.eu-west-1.amazonaws.com{target}"
    length = {"content-length": str(len(body))} if with_length else {}
    headers = signer.sign_request("POST", url, {**HEADERS, "host": url.split("/")[2], **length}, body)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return head_bytes("POST", target.encode(), origin_of(url), raw)


def headers_of(head: bytes, body: bytes) -> dict[str, str]:
    lines = head.decode().removesuffix("\r\n").split("\r\n")[1:]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(headers) == len(lines)
    return {**headers, "content-length": str(len(body))}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("with_length", [True, False])
def test_signatures_are_botocores_for_all_bodies_times_and_tokens(target: str, with_length: bool) -> None:
    for first_token in TOKENS:
        signer = Sigv4Signer(Credentials(ACCESS_KEY, SECRET_KEY, first_token), "bedrock", "eu-west-1")
        signed = signer.sign_head(head_of(signer, target, b"first", with_length=with_length))
        for token in TOKENS:
            for secret in (SECRET_KEY, "another/secret+key"):
                signer.credentials = Credentials(ACCESS_KEY, secret, token)
                for timestamp in TIMES:
                    for body in BODIES:
                        headers = headers_of(signed.signed_at(timestamp, body), body)
                        assert headers["x-amz-date"] == timestamp
                        assert headers.get("x-amz-security-token") == token
                        found, expected = expected_signature("POST", target, headers, body, secret)
                        assert found == expected
                        parts = parts_of(headers["authorization"])
                        assert parts["region"] == "eu-west-1"
                        assert ("content-length" in parts["names"].split(";")) == with_length


def test_the_authorization_header_is_the_one_that_botocore_writes() -> None:
    """Also of a request that botocore signs at the present time, with all its steps."""
    credentials = Credentials(ACCESS_KEY, SECRET_KEY, TOKENS[1])
    signer = Sigv4Signer(credentials, "bedrock-mantle", "us-west-2")
    signed = signer.sign_head(head_of(signer, TARGETS[0], b"first"))
    url = f"https://bedrock-runtime.eu-west-1.amazonaws.com{TARGETS[0]}"
    for body in BODIES[1:]:
        own = headers_of(signed(body), body)
        given = {name: own[name] for name in own if not name.startswith("x-amz-") and name != "authorization"}
        request = AWSRequest(
            "POST", url, data=body, headers={**given, "x-amz-content-sha256": own["x-amz-content-sha256"]}
        )
        SigV4Auth(credentials, "bedrock-mantle", "us-west-2").add_auth(request)
        if request.headers["X-Amz-Date"] != own["x-amz-date"]:  # the second has changed in between
            continue
        assert request.headers["Authorization"] == own["authorization"]


def test_only_the_signature_changes() -> None:
    signer = Sigv4Signer(Credentials(ACCESS_KEY, SECRET_KEY, TOKENS[1]), "bedrock", "eu-west-1")
    first = head_of(signer, TARGETS[0], b"first")
    again = signer.sign_head(first).signed_at(headers_of(first, b"first")["x-amz-date"], b"first")
    assert headers_of(again, b"") == headers_of(first, b"") | {"x-amz-date": headers_of(again, b"")["x-amz-date"]}
    assert again.split(b"\r\n")[0] == first.split(b"\r\n")[0]
    assert again.endswith(b"\r\n")
    assert not again.endswith(b"\r\n\r\n")


def test_the_time_of_a_signature_is_the_present_time() -> None:
    signer = Sigv4Signer(Credentials(ACCESS_KEY, SECRET_KEY), "bedrock", "eu-west-1")
    signed = signer.sign_head(head_of(signer, TARGETS[0], b"first"))
    for _ in range(2):
        date = headers_of(signed(b"x"), b"x")["x-amz-date"]
        stamp = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
        assert abs(stamp.timestamp() - time.time()) < 2
        time.sleep(1.01)


def test_a_head_without_a_signature_is_refused() -> None:
    signer = Sigv4Signer(Credentials(ACCESS_KEY, SECRET_KEY), "bedrock", "eu-west-1")
    with pytest.raises(ValueError, match="no signature"):
        SignedHead(b"POST / HTTP/1.1\r\nHost: a\r\n", signer)


@pytest.mark.parametrize("endpoint", ["runtime", "mantle"])
@pytest.mark.parametrize("token", TOKENS)
def test_signatures_are_those_of_the_sdk(endpoint: Any, token: str | None) -> None:
    """The SDK signs a request; a signature of the same head, body and time is equal."""
    import httpx2
    import openai
    from openai.providers.bedrock import bedrock

    sent: list[httpx2.Request] = []

    class Kept(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            sent.append(request)
            return httpx2.Response(200, json={})

    credentials = Credentials(ACCESS_KEY, SECRET_KEY, token)
    base_url = "https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com/openai/v1"
    provider = bedrock(
        endpoint=endpoint, region="eu-west-1", base_url=base_url, credential_provider=lambda: credentials
    )
    client = openai.OpenAI(
        provider=provider,
        http_client=httpx2.Client(transport=Kept()),
        default_headers={"Accept-Encoding": "identity"},
    )
    for number in range(3):
        client.post("/chat/completions", cast_to=object, body={"model": "m", "n": number})
    first = sent[0]
    service = {"runtime": "bedrock", "mantle": "bedrock-mantle"}[endpoint]
    signer = Sigv4Signer(credentials, service, "eu-west-1")
    signed = signer.sign_head(head_bytes("POST", first.url.raw_path, origin_of(str(first.url)), first.headers.raw))
    for request in sent:
        body = request.read()
        own = headers_of(signed.signed_at(request.headers["x-amz-date"], body), body)
        assert own["authorization"] == request.headers["authorization"]
        assert own["x-amz-content-sha256"] == request.headers["x-amz-content-sha256"]
        assert own.get("x-amz-security-token") == request.headers.get("x-amz-security-token")
