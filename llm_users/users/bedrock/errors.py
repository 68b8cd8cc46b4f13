"""Convert errors of Bedrock and boto3 to the code and message of the row.

An exception has the same code before the stream (``ThrottlingException``) and inside it (``throttlingException``).
Messages keep the text of the service, because it distinguishes quotas. ``bedrock_failure_of`` is for boto3's errors,
``http_failure_of`` for those of the OpenAI- and Anthropic-shaped APIs.
"""

from __future__ import annotations

from typing import Any

from botocore import exceptions as boto

from llm_users.outcome import NOT_CONNECTED
from llm_users.transport.errors import TransportError
from llm_users.transport.eventstream import BadEventStream
from llm_users.users.bad_events import StreamFailure
from llm_users.users.bedrock.credentials import BEARER_VARIABLE
from llm_users.users.failures import CODE_CHARACTERS, error_response_of, failure_of

# Advice for refusals that have a remedy.
_ADVICE = {
    "ExpiredTokenException": "the credentials have expired and were not renewed: renew them at their source",
    "UnrecognizedClientException": "the access key is unknown to the service; a note names the credentials in use",
    "AccessDeniedException": "allow bedrock:InvokeModelWithResponseStream (without streaming bedrock:InvokeModel; on "
    "mantle bedrock-mantle:CreateInference). The first request subscribes the account to a model of another provider, "
    "which requires aws-marketplace:Subscribe and aws-marketplace:ViewSubscriptions and takes up to 15 minutes",
    "InvalidSignatureException": "check the secret key, the region, and the clock of this machine",
    "ResourceNotFoundException": "check that Bedrock lists --llm-model under this name and in this region",
}
_WRONG_ROUTE = ("supported on this route", "does not support the '")
_ROUTE_ADVICE = (
    "use another --llm-api or --llm-bedrock-endpoint, or give the base path of the model card in --host, for example "
    "https://bedrock-mantle.REGION.api.aws/openai/v1"
)
_ON_DEMAND = "on-demand throughput"
_PROFILE_ADVICE = "this model requires an inference profile: put the region's prefix before the id, as in us.ID"


def bedrock_failure_of(error: BaseException, endpoint_url: str) -> tuple[str, str]:
    """Return (error_code, error_message) of any exception that a request to Bedrock can raise."""
    if isinstance(error, boto.ClientError):  # includes EventStreamError
        return failure_of(_as_failure(error), endpoint_url)[0], _with_advice(_as_failure(error), endpoint_url)
    if isinstance(error, StreamFailure):
        return failure_of(error, endpoint_url)[0], _with_advice(error, endpoint_url, f"{error.place}: ")
    if isinstance(error, BadEventStream):
        return "malformed", failure_of(error, endpoint_url)[1]
    if isinstance(error, boto.BotoCoreError):
        # A transport error that botocore wraps: a lost connection, or a deadline on botocore's own path.
        inner = error.kwargs.get("error")
        if isinstance(inner, TransportError):
            return failure_of(inner, endpoint_url)
        # botocore's own errors, on its own path or before a request is sent.
        code, message = failure_of(error, endpoint_url)
        if isinstance(error, (boto.ConnectTimeoutError, boto.EndpointConnectionError, boto.ProxyConnectionError)):
            return NOT_CONNECTED, f"{message} Check the address, and that the region offers Bedrock."
        if isinstance(error, boto.SSLError):
            return NOT_CONNECTED, f"{message} If the server uses a private CA, set AWS_CA_BUNDLE to the CA's PEM file."
        codes = {
            boto.ReadTimeoutError: "timeout",
            boto.ResponseStreamingError: "truncated",
            boto.HTTPClientError: "reset",
        }
        return next((name for kind, name in codes.items() if isinstance(error, kind)), code), message
    return failure_of(error, endpoint_url)


def http_failure_of(error: BaseException, base_url: str) -> tuple[str, str]:
    """Return (error_code, error_message) of any exception that a request of OpenAI's or Anthropic's shape can raise."""
    code, message = failure_of(error, base_url, f"AWS_PROFILE or {BEARER_VARIABLE}")
    response = error_response_of(error)
    if response is None:
        return code, message
    name = response.headers.get("x-amzn-errortype", "").partition(":")[0]
    if name:
        return failure_of(StreamFailure(name[:CODE_CHARACTERS], ""), base_url)[0], _advised(name, message)
    if any(text in message for text in _WRONG_ROUTE):
        return code, f"{message} ({_ROUTE_ADVICE})"
    return code, message


def http_refusal_of(error: BaseException) -> tuple[int | None, str | None] | None:
    """Return (HTTP status, request id) of an error response; None if the error is not one with a request id of AWS."""
    response = error_response_of(error)
    identifier = response.headers.get("x-amzn-requestid") if response is not None else None
    return (response.status_code, identifier) if response is not None and identifier else None


def refusal_of(error: BaseException) -> tuple[int | None, str | None]:
    """Return (HTTP status, request id) of an error response; None for unknown values."""
    if not isinstance(error, boto.ClientError):
        return None, None
    metadata: dict[str, Any] = error.response.get("ResponseMetadata") or {}
    return metadata.get("HTTPStatusCode"), metadata.get("RequestId")


def _as_failure(error: boto.ClientError) -> StreamFailure:
    """Return the name and text of the service's exception."""
    fields: dict[str, Any] = error.response.get("Error") or {}
    code = str(fields.get("Code") or "error")
    message = str(fields.get("Message") or fields.get("message") or f"HTTP {refusal_of(error)[0]}")
    status = error.response.get("originalStatusCode")
    if status:
        original = error.response.get("originalMessage")
        message += f" (the model's own status: {status}{', ' + original if original else ''})"
    return StreamFailure(code[:1].upper() + code[1:] if not code.isdigit() else code, message)


def _advised(code: str, message: str) -> str:
    advice = _PROFILE_ADVICE if _ON_DEMAND in message else _ADVICE.get(code, "")
    return f"{message} ({advice})" if advice else message


def _with_advice(failure: StreamFailure, endpoint_url: str, prefix: str = "") -> str:
    """Return the service's message with advice."""
    text = prefix + _advised(failure.code, failure.message)
    return failure_of(StreamFailure(failure.code[:CODE_CHARACTERS], text), endpoint_url)[1].removeprefix(
        "the server reported an error inside the stream: "
    )
