"""What the accuracy of a row may be at worst, on a quiet machine with two cores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm_users.calibration.measured_run import SIMULATOR

NATIVE = "native"

CHAT, CONVERSE, INVOKE = "chat", "converse", "invoke"
"""What is asked: OpenAI's chat completions, ConverseStream, and Invoke with Anthropic's messages."""
RESPONSES, MESSAGES = "responses", "messages"
"""OpenAI's responses and Anthropic's own messages, which are asked on demand and held to chat's bounds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of errors and cost, lower bound of the rate. None: not judged."""

    ttft_p50_s: float
    ttft_p99_s: float
    span_p99_s: float | None
    cpu_per_token_s: float | None
    rate: float
    servers: tuple[str, ...]


BOUNDS = {
    1: Bounds(0.5e-3, 1e-3, 0.5e-3, None, 0.99, (SIMULATOR,)),
    32: Bounds(0.3e-3, 1e-3, 0.3e-3, 100e-6, 0.99, (SIMULATOR,)),
    256: Bounds(0.3e-3, 1e-3, 0.5e-3, 50e-6, 0.97, (SIMULATOR, NATIVE)),
    # The simulator shares two cores with the client and cannot keep its own schedule here.
    512: Bounds(0.5e-3, 5e-3, 2e-3, 42e-6, 0.95, (NATIVE,)),
}


# The same for Bedrock, except for the cost: an event has CRCs, headers and more JSON, and boto3 builds each request,
# which few streams with short answers feel most.
BEDROCK_BOUNDS = {
    1: BOUNDS[1],
    32: replace(BOUNDS[32], cpu_per_token_s=None),
    256: replace(BOUNDS[256], cpu_per_token_s=60e-6, servers=(SIMULATOR,)),
}

# Two workers, gap 50 ms, 64 tokens.
BOUNDS_OF_TWO_PROCESSES = {1000: Bounds(0.5e-3, 10e-3, None, 60e-6, 0.95, (NATIVE,))}

OK_MEANS_BELOW_S = 2e-3
"""Where the client calls itself ok, the p99 of the TTFT error is below this."""

SATURATED_FROM_S = 10e-3
"""Where the p99 of the TTFT error is above this, a client that uses its core calls itself saturated."""

SATURATED_CPU_SHARE = 0.8
"""A client that uses less of its core than this never calls itself saturated."""


def bounds_of(streams: int, server: str, processes: int = 1, api: str = CHAT) -> Bounds | None:
    """The bounds of a row; None when there are none for this number of streams on this server."""
    of_one = BEDROCK_BOUNDS if api in (CONVERSE, INVOKE) else BOUNDS
    bounds = (of_one if processes == 1 else BOUNDS_OF_TWO_PROCESSES).get(streams)
    return bounds if bounds is not None and server in bounds.servers else None
