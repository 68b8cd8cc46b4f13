"""The bounds of the rows of the accuracy table, for a quiet machine with two cores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm_users.calibration.measured_run import SIMULATOR

NATIVE = "native"

CHAT, CONVERSE, INVOKE = "chat", "converse", "invoke"
"""The API of a row: OpenAI's chat completions, and Bedrock's ConverseStream and Invoke (with Anthropic's messages)."""
BEDROCK_CHAT, BEDROCK_RESPONSES, BEDROCK_MESSAGES = "bedrock-chat", "bedrock-responses", "bedrock-messages"
"""OpenAI's and Anthropic's APIs on Bedrock, with signed requests."""
RESPONSES, MESSAGES = "responses", "messages"
"""OpenAI's responses and Anthropic's own messages. They are measured on request, with the bounds of chat."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of errors and cost, the lower bound of the rate, and the allowed health. None: not judged."""

    ttft_p50_s: float
    ttft_p99_s: float
    span_p99_s: float | None
    rate: float
    cpu_per_token_s: float | None = None
    cpu_ratio: float | None = None
    """CPU per token divided by that of the row's reference: the control, or the product on plain chat."""
    health: tuple[str, ...] | None = None


# CPU per token has absolute bounds here, because the simulator takes a part of the cores from client and control.
SIMULATOR_BOUNDS = {
    1: Bounds(0.5e-3, 1e-3, 0.5e-3, 0.99),
    32: Bounds(0.3e-3, 1e-3, 0.3e-3, 0.99, cpu_per_token_s=100e-6),
    256: Bounds(0.3e-3, 1e-3, 0.5e-3, 0.97, cpu_per_token_s=50e-6),
}

# An event of Bedrock has checksums, headers and more JSON. With few streams, a large part of the cost is that of boto3,
# which builds each request.
SIMULATOR_BEDROCK_BOUNDS = {
    1: SIMULATOR_BOUNDS[1],
    32: replace(SIMULATOR_BOUNDS[32], cpu_per_token_s=None),
    256: replace(SIMULATOR_BOUNDS[256], cpu_per_token_s=60e-6),
}

# Each request has a new signature, which must not be visible in the times or in the cost of a token.
SIMULATOR_SIGNED_BOUNDS = {256: replace(SIMULATOR_BOUNDS[256], ttft_p99_s=0.5e-3, cpu_ratio=1.1)}

_OK = ("ok",)

# From 1,000 streams on the gap is 50 ms.
NATIVE_BOUNDS = {
    256: Bounds(0.1e-3, 0.3e-3, 0.5e-3, 0.99, cpu_ratio=0.90, health=_OK),
    512: Bounds(0.1e-3, 0.5e-3, 2e-3, 0.98, cpu_ratio=0.95, health=_OK),
    1000: Bounds(0.1e-3, 0.5e-3, None, 0.98, health=_OK),
    1500: Bounds(0.2e-3, 2e-3, None, 0.97, health=("ok", "strained")),
}
NATIVE_TLS_BOUNDS = {256: Bounds(0.2e-3, 0.5e-3, None, 0.99, cpu_ratio=1.2, health=_OK)}
NATIVE_SIGNED_BOUNDS = {256: Bounds(0.1e-3, 0.5e-3, None, 0.99, cpu_ratio=1.1, health=_OK)}
NATIVE_CONVERSE_BOUNDS = {256: Bounds(0.1e-3, 0.5e-3, None, 0.99, cpu_ratio=1.15, health=_OK)}
# Two workers and the server share two cores, so the workers wait for a core now and then.
NATIVE_BOUNDS_OF_TWO_PROCESSES = {1000: Bounds(0.5e-3, 10e-3, None, 0.95, cpu_ratio=1.6)}

_SIMULATOR_BOUNDS_OF = {
    CONVERSE: SIMULATOR_BEDROCK_BOUNDS,
    INVOKE: SIMULATOR_BEDROCK_BOUNDS,
    **dict.fromkeys((BEDROCK_CHAT, BEDROCK_RESPONSES, BEDROCK_MESSAGES), SIMULATOR_SIGNED_BOUNDS),
}

OK_MEANS_BELOW_S = 2e-3
"""If the client's health is ok, the p99 of the TTFT error is below this."""

SATURATED_FROM_S = 10e-3
"""If the p99 of the TTFT error is above this and the client uses its core, its health is saturated."""

SATURATED_CPU_SHARE = 0.8
"""The health of a client that uses less of its core than this is never saturated."""


def bounds_of(streams: int, server: str, processes: int = 1, api: str = CHAT, *, is_tls: bool = False) -> Bounds | None:
    """Return the bounds of a row, or None if it has none."""
    table: dict[int, Bounds] = {}
    if server == SIMULATOR:
        if processes == 1 and not is_tls:
            table = _SIMULATOR_BOUNDS_OF.get(api, SIMULATOR_BOUNDS)
    elif processes == 2:
        table = NATIVE_BOUNDS_OF_TWO_PROCESSES if api == CHAT and not is_tls else {}
    elif processes == 1 and api == CHAT:
        table = NATIVE_TLS_BOUNDS if is_tls else NATIVE_BOUNDS
    elif processes == 1 and api == BEDROCK_CHAT and not is_tls:
        table = NATIVE_SIGNED_BOUNDS
    elif processes == 1 and api == CONVERSE and not is_tls:
        table = NATIVE_CONVERSE_BOUNDS
    return table.get(streams)
