"""Signs requests with botocore's own signer and sends them with the standard library's HTTP client."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ...aws_environment import ACCESS_KEY, SECRET_KEY

REGION = "eu-west-1"
VERIFIED = f"sigv4={ACCESS_KEY}:{SECRET_KEY},region={REGION}"
CONVERSE = "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"
CHAT, RESPONSES, MESSAGES = "/openai/v1/chat/completions", "/openai/v1/responses", "/anthropic/v1/messages"
TEXT = "warum ist der Himmel so blau, 空?"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: Any


class _ShiftedAuth(SigV4Auth):
    """Signs as a client does whose clock is wrong by ``shift``."""

    shift = timedelta()

    def add_auth(self, request: AWSRequest) -> None:
        request.context["timestamp"] = (datetime.now(UTC) + self.shift).strftime("%Y%m%dT%H%M%SZ")
        self._modify_request_before_signing(request)
        text = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(text, request))


def body_of(path: str, **fields: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": [{"text": TEXT}] if "/model/" in path else TEXT}]
    if "/model/" in path:
        return {"messages": turns, "inferenceConfig": {"maxTokens": 4}}
    if path.endswith("/responses"):
        return {"model": "m", "input": TEXT, "max_output_tokens": 4, **fields}
    return {"model": "m", "messages": turns, "max_tokens": 4, **fields}


def ask(
    port: int,
    path: str,
    *,
    access_key: str = ACCESS_KEY,
    secret: str = SECRET_KEY,
    token: str | None = None,
    region: str = REGION,
    service: str = "bedrock",
    shift: timedelta = timedelta(),
    sent_path: str = "",
    sent_body: bytes | None = None,
    signed: bool = True,
    date_header: bool = False,
    changed: dict[str, str] | None = None,
    **fields: Any,
) -> Reply:
    """Sign a request for ``path`` and send it; ``sent_...`` and ``changed`` headers replace what was signed."""
    data = json.dumps(body_of(path.partition("?")[0], **fields), ensure_ascii=False).encode()
    headers = {"content-type": "application/json"}
    if path.startswith("/anthropic/"):
        headers["anthropic-version"] = "2023-06-01"
    if date_header:
        headers["date"] = "replaced by the signer"
    request = AWSRequest("POST", f"http://127.0.0.1:{port}{path}", headers=headers, data=data)
    if signed:
        auth = _ShiftedAuth(Credentials(access_key, secret, token), service, region)
        auth.shift = shift
        auth.add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        sent = data if sent_body is None else sent_body
        connection.request(
            "POST",
            sent_path or path,
            sent,
            {**{name.lower(): value for name, value in request.headers.items()}, **(changed or {})},
        )
        response = connection.getresponse()
        content = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, names, json.loads(content))
    finally:
        connection.close()
