"""Tables of Bedrock's errors: names, statuses and messages, before a stream and inside it.

It does not depend on HTTP or frames.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BedrockError:
    """An error. `code` is the exception's name outside a stream; inside a stream, its first letter is lower case."""

    code: str
    status: int
    message: str


_RUNTIME = "Bedrock is unable to process your request."

# Short name in the spec -> the error. Three quotas share one exception and differ in their message.
ERRORS: dict[str, BedrockError] = {
    "throttling": BedrockError("ThrottlingException", 429, "Too many requests, please wait before trying again."),
    "throttling_tokens": BedrockError("ThrottlingException", 429, "Too many tokens, please wait before trying again."),
    "throttling_day": BedrockError(
        "ThrottlingException", 429, "Too many tokens per day, please wait before trying again."
    ),
    "model_not_ready": BedrockError(
        "ModelNotReadyException", 429, "The model is not ready for inference. Wait and try your request again."
    ),
    "validation": BedrockError("ValidationException", 400, "The provided request is not valid."),
    "service_quota": BedrockError("ServiceQuotaExceededException", 400, "Your request exceeds the service quota."),
    "access_denied": BedrockError(
        "AccessDeniedException", 403, "You don't have access to the model with the specified model ID."
    ),
    "expired_token": BedrockError(
        "ExpiredTokenException", 403, "The security token included in the request is expired"
    ),
    "unrecognized_client": BedrockError(
        "UnrecognizedClientException", 403, "The security token included in the request is invalid."
    ),
    "resource_not_found": BedrockError("ResourceNotFoundException", 404, "Could not resolve the foundation model."),
    "model_timeout": BedrockError("ModelTimeoutException", 408, "The model took too long to process the request."),
    "model_error": BedrockError("ModelErrorException", 424, "The request failed while the model processed it."),
    "internal_server": BedrockError(
        "InternalServerException", 500, "The system encountered an unexpected error during processing. Try again."
    ),
    "service_unavailable": BedrockError("ServiceUnavailableException", 503, _RUNTIME),
}

# Errors of requests without valid authentication, which only the key `sigv4` switches on.
MISSING_AUTHENTICATION = BedrockError("MissingAuthenticationTokenException", 403, "Missing Authentication Token")
INVALID_API_KEY = BedrockError(
    "AccessDeniedException", 403, "Authentication failed: Please make sure your API Key is valid."
)

# A status of the key `error` -> the first error with this status.
BY_STATUS = {error.status: error for error in reversed(ERRORS.values())}

# Name of an exception frame -> its message.
STREAM_ERRORS: dict[str, str] = {
    "throttlingException": ERRORS["throttling"].message,
    "modelStreamErrorException": "The model stream broke off.",
    "internalServerException": ERRORS["internal_server"].message,
    "validationException": ERRORS["validation"].message,
    "serviceUnavailableException": _RUNTIME,
    "modelTimeoutException": ERRORS["model_timeout"].message,
}


def error_of(name: str) -> BedrockError:
    """Return the error with this short name or exception name. Raises KeyError for an unknown name."""
    for short, error in ERRORS.items():
        if name in (short, error.code):
            return error
    raise KeyError(name)


def of_status(status: int) -> BedrockError:
    """Return the error for an HTTP status; an unlisted status gets the validation or the internal server exception."""
    return BY_STATUS.get(status) or BedrockError(BY_STATUS[500 if status >= 500 else 400].code, status, _RUNTIME)
