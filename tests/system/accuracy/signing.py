"""Print what the signatures of Bedrock's OpenAI- and Anthropic-shaped APIs cost, beside the same APIs without them.

    python -m tests.system.accuracy.signing                 # against the simulator, about two minutes
    python -m tests.system.accuracy.signing --rounds 5
    python -m tests.system.accuracy.signing --truth PATH    # against a native server; only chat completions

Answers of two tokens show the CPU time of a request, and answers of 128 tokens that of a token. Each round measures
every load once; the figures are medians over the rounds. The exit code is 1 if a signed request takes more than
``MOST_EXTRA_S`` of CPU time longer, or a token more than ``MOST_RATIO`` times as long. Use a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from llm_users.calibration import measured_run
from llm_users.calibration.measured_run import SimulatorEndpoint, Timing
from tests.system.accuracy.bounds import BEDROCK_CHAT, BEDROCK_MESSAGES, CHAT, MESSAGES
from tests.system.accuracy.circumstances import Start
from tests.system.accuracy.endpoints import NativeEndpoint, native_binary
from tests.system.accuracy.load_run import Plan
from tests.system.accuracy.rows import RAMP, requests_of, timing_of

MOST_EXTRA_S = 0.15e-3
MOST_RATIO = 1.1

PAIRS = ((CHAT, BEDROCK_CHAT), (MESSAGES, BEDROCK_MESSAGES))
"""An API, and the same API with signatures."""

SHORT = Plan(32, 3000, RAMP, Timing(0.05, 0.02, 2))
LONG = Plan(256, requests_of(256), RAMP, timing_of(256))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.accuracy.signing", description="Print what signatures cost."
    )
    parser.add_argument("--truth", type=Path, metavar="PATH", help="a native server instead of the simulator")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="signing-") as name:
        binary = native_binary(options.truth, Path(name)) if options.truth is not None else None
        start: Start = SimulatorEndpoint if binary is None else partial(NativeEndpoint, binary)
        return print_costs(PAIRS if binary is None else PAIRS[:1], options.rounds, start)


def print_costs(
    pairs: Sequence[tuple[str, str]], rounds: int, start: Start, *, short: Plan = SHORT, long: Plan = LONG
) -> int:
    """Measure and print the costs of each pair. Return 1 if one exceeds a bound, else 0. Raises ``RunError``."""
    print(f"{'API':<18}{'CPU per request':>17}{'more':>12}{'CPU per token':>17}{'ratio':>8}")
    exceeds = False
    for pair in pairs:
        per_request: dict[str, list[float]] = {api: [] for api in pair}
        per_token: dict[str, list[float]] = {api: [] for api in pair}
        for _round in range(rounds):
            for api in pair:
                per_request[api].append(_cpu_per_token_s(short, api, start) * short.timing.tokens)
                per_token[api].append(_cpu_per_token_s(long, api, start))
        plain, signed = pair
        more_s = statistics.median(per_request[signed]) - statistics.median(per_request[plain])
        ratio = statistics.median(per_token[signed]) / statistics.median(per_token[plain])
        exceeds |= more_s > MOST_EXTRA_S or ratio > MOST_RATIO
        for api in pair:
            request_us, token_us = (statistics.median(costs[api]) * 1e6 for costs in (per_request, per_token))
            compared = f"{more_s * 1e6:>+9.0f} µs" if api == signed else " " * 12
            ratio_cell = f"{ratio:>8.2f}" if api == signed else ""
            print(f"{api:<18}{request_us:>14.0f} µs{compared}{token_us:>14.1f} µs{ratio_cell}", flush=True)
    print(f"Bounds: {MOST_EXTRA_S * 1e6:.0f} µs more per request, {MOST_RATIO:g} times per token of 128 tokens")
    return int(exceeds)


def _cpu_per_token_s(plan: Plan, api: str, start: Start) -> float:
    run = measured_run.measure(Plan(plan.streams, plan.requests, plan.ramp, plan.timing, api=api).load, start)
    if run.failed:
        raise measured_run.RunError(f"{api}: {run.failed} requests failed")
    return run.cpu_per_token_s


if __name__ == "__main__":
    sys.exit(main())
