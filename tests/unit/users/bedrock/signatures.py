"""Checks the signature of a request as the server received it, with botocore's implementation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<names>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)


def parts_of(authorization: str) -> dict[str, str]:
    """Return key, day, region, service, names and signature of an Authorization header."""
    match = _AUTHORIZATION.fullmatch(authorization)
    assert match, authorization
    return match.groupdict()


def expected_signature(
    method: str, target: str, headers: Mapping[str, str], body: bytes, secret: str
) -> tuple[str, str]:
    """Return (signature in the header, botocore's signature) of a request whose header names are in lower case."""
    assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
    parts = parts_of(headers["authorization"])
    signed = {name: headers[name] for name in parts["names"].split(";")}
    request = AWSRequest(method=method, url=f"http://{headers['host']}{target}", data=body, headers=signed)
    request.context["timestamp"] = headers["x-amz-date"]
    assert headers["x-amz-date"].startswith(parts["day"])
    credentials = Credentials(parts["key"], secret, headers.get("x-amz-security-token"))
    auth = SigV4Auth(credentials, parts["service"], parts["region"])
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return parts["signature"], auth.signature(text, request)


def assert_signed(request: Any, secret: str) -> dict[str, str]:
    """Check the signature of a request of ``wire_server``, and return the parts of its Authorization header."""
    found, expected = expected_signature("POST", request.target, request.headers, request.body, secret)
    assert found == expected
    parts = parts_of(request.headers["authorization"])
    assert ("x-amz-security-token" in request.headers) == ("x-amz-security-token" in parts["names"])
    assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(parts["names"].split(";"))
    return parts
