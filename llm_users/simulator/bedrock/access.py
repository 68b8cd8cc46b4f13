"""Access to the endpoint as on AWS: signatures, bearer keys, and credentials that expire.

Without the keys `sigv4` and `expire_credentials` of the spec, any credentials are accepted. The module
does not depend on the shape of errors.
"""

from __future__ import annotations

import hmac
import time

from llm_users.simulator.bedrock.errors import ERRORS, INVALID_API_KEY, BedrockError
from llm_users.simulator.bedrock.sigv4 import ALGORITHM, SignatureVerifier
from llm_users.simulator.http_wire import Request
from llm_users.simulator.spec import Spec

RUNTIME, MANTLE = "bedrock", "bedrock-mantle"
"""The names of the services in the scope of a signature, by which a request says which endpoint it means."""


def services_of(path: str) -> tuple[str, ...]:
    """Return the services that a signature for this path may name; the first is the one that errors name.

    The paths of Converse and Invoke are only on bedrock-runtime, and ``/v1`` is only on bedrock-mantle; the other
    paths are on both. bedrock-mantle also accepts signatures for ``bedrock`` (measured by users of AWS in 2026).
    """
    if "/model/" in path:
        return (RUNTIME,)
    return (MANTLE, RUNTIME) if path.startswith("/v1/") else (RUNTIME, MANTLE)


def is_signed(request: Request) -> bool:
    return request.headers.get("authorization", "").startswith(ALGORITHM)


def service_of(request: Request) -> str:
    """Return the service in the scope of a signature; empty without a signature."""
    credential = request.headers.get("authorization", "").partition("Credential=")[2].partition(",")[0].split("/")
    return credential[3] if is_signed(request) and len(credential) == 5 else ""


class Access:
    """Decides which requests may reach a model."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        access_key, _, secret = spec.sigv4.partition(":")
        self._verifier = SignatureVerifier(access_key, secret, spec.region) if spec.sigv4 else None
        self._first_use_s: dict[str, float] = {}  # by key, on the monotonic clock

    def refusal(self, request: Request) -> BedrockError | None:
        """Return the error of a request that may not reach a model, else None."""
        if self._verifier is not None:
            token = bearer_token(request)
            if not token:
                error = self._verifier.refusal(request, services_of(request.path))
            else:
                valid = hmac.compare_digest(token.encode(), self._spec.api_key.encode())
                error = None if valid else INVALID_API_KEY
            if error is not None:
                return error
        if self._spec.expire_credentials and self._expired(request):
            return ERRORS["expired_token"]
        return None

    def _expired(self, request: Request) -> bool:
        """Return whether the key of this request is expired; a request without a key never is."""
        authorization = request.headers.get("authorization", "")
        key = authorization.partition("Credential=")[2].partition("/")[0] or bearer_token(request) or authorization
        if not key:
            return False
        now_s = time.monotonic()
        return now_s - self._first_use_s.setdefault(key, now_s) > self._spec.expire_credentials


def bearer_token(request: Request) -> str:
    """Return the bearer token, or the key that Anthropic's API takes instead; empty without one."""
    if "anthropic-version" in request.headers and "x-api-key" in request.headers:
        return request.headers["x-api-key"]
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
