"""Names, units, buckets and attributes of OpenTelemetry's GenAI conventions, derived from the rows of requests.

The names are those of OpenTelemetry semantic conventions 1.41.0 (status: Development), the last version that contains
the GenAI conventions with these metrics. Since 1.42.0 they have a repository of their own (semantic-conventions-genai),
whose version 0.1.0 renames some of the client metrics.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from llm_users.record import RequestRecord

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
SCOPE = "llm_users"
"""The name of the instrumentation scope of all metrics and spans."""

Attributes = dict[str, str | int | float | bool]


class Histogram(NamedTuple):
    """A histogram of the conventions: its name, its unit, its description and its explicit bucket boundaries."""

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...]


_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(float(4**power) for power in range(14))

DURATION = Histogram("gen_ai.client.operation.duration", "s", "Duration of a GenAI operation.", _SECONDS)
TIME_TO_FIRST_CHUNK = Histogram(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    "Time from the request to the first chunk of a streamed answer.",
    _SECONDS,
)
TIME_PER_OUTPUT_CHUNK = Histogram(
    "gen_ai.client.operation.time_per_output_chunk",
    "s",
    "Time between two chunks of a streamed answer.",
    _SECONDS,
)
TOKEN_USAGE = Histogram("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", _TOKENS)

TOKEN_TYPE, INPUT, OUTPUT = "gen_ai.token.type", "input", "output"
ERROR_TYPE = "error.type"
MODEL = "gen_ai.request.model"
STAGE, MEASURED = "locust_llm.stage", "locust_llm.measured"

_PORTS = {"http": 80, "https": 443}
_PROVIDERS_BY_DOMAIN = {
    "openai.azure.com": "azure.ai.openai",
    "openai.azure.us": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.openai",
    "api.x.ai": "x_ai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.deepseek.com": "deepseek",
    "api.perplexity.ai": "perplexity",
}
"""Providers with an OpenAI-compatible API for which the conventions have a name."""
_PROVIDERS_BY_API = {"anthropic": "anthropic", "bedrock": "aws.bedrock"}
_TEXT_COMPLETION, _CHAT = "text_completion", "chat"


@lru_cache(maxsize=256)
def operation_attributes(api: str, model: str, endpoint: str | None) -> Attributes:
    """Return the attributes of an operation: its name, its provider, its model and its server.

    The arguments are the columns of a row. Do not change the result, which is shared.
    """
    address, port = _server_of(endpoint)
    attributes: Attributes = {
        "gen_ai.operation.name": _TEXT_COMPLETION if api.endswith("-completions") else _CHAT,
        "gen_ai.provider.name": _provider_of(api, address),
    }
    if model:
        attributes[MODEL] = model
    if address:
        attributes["server.address"] = address
        attributes["server.port"] = port
    return attributes


def error_type_of(record: RequestRecord) -> str | None:
    """Return the value of ``error.type``: the error code of a request that did not succeed, else None."""
    return None if record.ok else record.error_code


def duration_of(record: RequestRecord) -> float | None:
    """Return the duration of a request in seconds: its latency, or the time of the attempt to connect.

    None for a request that was not sent.
    """
    if record.end_to_end_latency_s is not None:
        return record.end_to_end_latency_s
    return record.connect_s if record.started_at is not None else None


def span_name(attributes: Attributes) -> str:
    """Return the name of the span of an operation, for example ``chat gpt-4o``."""
    return f"{attributes['gen_ai.operation.name']} {attributes.get(MODEL, '')}".rstrip()


def span_attributes(record: RequestRecord) -> Attributes:
    """Return the attributes of a span that are known at the end of the request, without texts of the request.

    The message of an error is not among them, because servers repeat prompts in it.
    """
    values: dict[str, str | int | float | bool | None] = {
        "gen_ai.request.stream": bool(record.streamed),
        "gen_ai.request.max_tokens": record.requested_output_tokens,
        "gen_ai.response.id": record.response_id,
        "gen_ai.response.time_to_first_chunk": record.ttft_s,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": record.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
        "gen_ai.conversation.id": record.conversation_id,
        "http.response.status_code": record.http_status,
        ERROR_TYPE: error_type_of(record),
        "locust_llm.request_id": record.request_id,
        "locust_llm.run_id": record.run_id,
        STAGE: record.stage,
        "locust_llm.phase": record.phase,
        MEASURED: bool(record.measured),
    }
    return {name: value for name, value in values.items() if value is not None}


def _provider_of(api: str, address: str) -> str:
    """Return the provider: that of the host if the conventions name it, else that of the format of the API."""
    for domain, provider in _PROVIDERS_BY_DOMAIN.items():
        if address == domain or address.endswith(f".{domain}"):
            return provider
    return _PROVIDERS_BY_API.get(api.partition("-")[0], "openai")


def _server_of(endpoint: str | None) -> tuple[str, int]:
    """Return the host and the port of a base URL; "" and 0 if the row has none."""
    try:
        parts = urlsplit(endpoint or "")
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", 0
