"""What Bedrock and boto3 raise, in the terms of the one classification: code and message of the row.

The same exception has the same code before the stream (``ThrottlingException``) and inside it
(``throttlingException``). Messages keep the service's own words; quotas are told apart by them.
"""

from __future__ import annotations

from typing import Any

from botocore import exceptions as boto

from llm_users.transport.errors import TransportError
from llm_users.transport.eventstream import BadEventStream
from llm_users.users.bad_events import StreamFailure
from llm_users.users.failures import CODE_CHARACTERS, failure_of

# What to do about the refusals that have a remedy.
_ADVICE = {
    "ExpiredTokenException": "the credentials have expired and were not renewed: renew them where they come from",
    "UnrecognizedClientException": "the access key is not known there; which one is in force was said at the start",
    "AccessDeniedException": "is bedrock:InvokeModelWithResponseStream allowed, and the model enabled in this region?",
    "ResourceNotFoundException": "is --llm-model spelled as Bedrock lists it, and offered in this region?",
}
_ON_DEMAND = "on-demand throughput"
_PROFILE_ADVICE = "this model is asked through an inference profile: put its region's prefix before the id, as in us.ID"


def bedrock_failure_of(error: BaseException, endpoint_url: str) -> tuple[str, str]:
    """(error_code, error_message) of anything that a request to Bedrock can raise."""
    if isinstance(error, boto.ClientError):  # EventStreamError is one
        return failure_of(_as_failure(error), endpoint_url)[0], _told(_as_failure(error), endpoint_url)
    if isinstance(error, StreamFailure):
        return failure_of(error, endpoint_url)[0], _told(error, endpoint_url, "inside the stream: ")
    if isinstance(error, BadEventStream):
        return "malformed", failure_of(error, endpoint_url)[1]
    if isinstance(error, boto.BotoCoreError):
        inner = error.kwargs.get("error")  # ours, by way of botocore: a lost connection, a deadline on its own path
        if isinstance(inner, TransportError):
            return failure_of(inner, endpoint_url)
        return _of_boto(error, endpoint_url)
    return failure_of(error, endpoint_url)


def refusal_of(error: BaseException) -> tuple[int | None, str | None]:
    """(HTTP status, request id) of an answer that was an error."""
    if not isinstance(error, boto.ClientError):
        return None, None
    metadata: dict[str, Any] = error.response.get("ResponseMetadata") or {}
    return metadata.get("HTTPStatusCode"), metadata.get("RequestId")


def _as_failure(error: boto.ClientError) -> StreamFailure:
    """Name and words of the service's exception."""
    fields: dict[str, Any] = error.response.get("Error") or {}
    code = str(fields.get("Code") or "error")
    message = str(fields.get("Message") or fields.get("message") or f"HTTP {refusal_of(error)[0]}")
    status = error.response.get("originalStatusCode")
    if status:
        original = error.response.get("originalMessage")
        message += f" (the model's own status: {status}{', ' + original if original else ''})"
    return StreamFailure(code[:1].upper() + code[1:] if not code.isdigit() else code, message)


def _told(failure: StreamFailure, endpoint_url: str, prefix: str = "") -> str:
    """The service's words, and what to do."""
    advice = _PROFILE_ADVICE if _ON_DEMAND in failure.message else _ADVICE.get(failure.code, "")
    text = prefix + failure.message + (f" ({advice})" if advice else "")
    return failure_of(StreamFailure(failure.code[:CODE_CHARACTERS], text), endpoint_url)[1].removeprefix(
        "the server reported an error inside the stream: "
    )


def _of_boto(error: boto.BotoCoreError, endpoint_url: str) -> tuple[str, str]:
    """What botocore raises by itself, on its own path or before anything is sent."""
    code, message = failure_of(error, endpoint_url)
    if isinstance(error, (boto.ConnectTimeoutError, boto.EndpointConnectionError, boto.ProxyConnectionError)):
        return "connect", f"{message} Is the address right, and the region one where Bedrock is?"
    if isinstance(error, boto.SSLError):
        return "connect", f"{message} For a private CA set AWS_CA_BUNDLE to its PEM file."
    if isinstance(error, boto.ReadTimeoutError):
        return "timeout", message
    if isinstance(error, boto.ResponseStreamingError):
        return "truncated", message
    if isinstance(error, boto.HTTPClientError):
        return "reset", message
    return code, message
