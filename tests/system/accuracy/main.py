"""Print the accuracy table: the figures of this client against the server's own send times.

    python -m tests.system.accuracy.main              # on the simulator: 1, 32 and 256 streams of each API
    python -m tests.system.accuracy.main --boto3      # also 256 streams of Bedrock on boto3's own path
    python -m tests.system.accuracy.main --truth truth_server.c  # on a native server: 256 to 1,500 streams, TLS
    python -m tests.system.accuracy.main --truth truth_server.c --streams 256,512 --ramps 0.5s  # only these rows
    python -m tests.system.accuracy.main --truth truth_server.c --ladder  # up to the limit of the client
    python -m tests.system.accuracy.main --ladder --busy --tls   # the same, on a busy machine and over TLS

This is a benchmark for a quiet machine, not a test. It takes about five minutes on the simulator and ten on a native
server. Each round measures every row once and next to it the control (``control.py``), and the table shows medians over
the rounds. The exit code is 1 if a judged row misses a bound.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from llm_users.calibration.measured_run import MeasuredRun, RunError, Timing
from tests.system.accuracy import machine, markdown
from tests.system.accuracy.bounds import (
    BEDROCK_CHAT,
    BEDROCK_MESSAGES,
    BEDROCK_RESPONSES,
    CHAT,
    CONVERSE,
    INVOKE,
    MESSAGES,
    NATIVE,
    RESPONSES,
    SIMULATOR,
    bounds_of,
)
from tests.system.accuracy.control_run import ControlPlan, ControlRun
from tests.system.accuracy.endpoints import native_binary
from tests.system.accuracy.judging import Line, spoilt
from tests.system.accuracy.load_run import Plan, measure_any
from tests.system.accuracy.rows import (
    BEDROCK,
    LADDER,
    RAMP,
    TIMING,
    WAVE,
    Row,
    boto3_plans,
    native_plans,
    requests_of,
    signed_plan,
    timing_of,
    with_references,
)  # fmt: skip

_ROUNDS_ON_NATIVE = 3
_APIS = (CHAT, RESPONSES, MESSAGES, CONVERSE, INVOKE, BEDROCK_CHAT, BEDROCK_RESPONSES, BEDROCK_MESSAGES)

_NOTES = """
Errors are per request against the server's own send times, with rows and server log joined by response id; measured
requests only. TTFT error = |ttft_s - (first token sent - request read)|; error of (last - first) = |(last_token_s -
ttft_s) - (last token sent - first token sent)|; quantiles by linear interpolation. CPU per token = CPU of the load
process inside MEASURE / tokens that arrived inside MEASURE. The reference of OpenAI chat is the control, an aiohttp
client with uvloop and orjson, with its CPU and tokens in the same window; the reference of the other rows is this
client on OpenAI chat with as many streams, without TLS. CPU ratio = median over the rounds of CPU per token / CPU per
token of the reference. Rate / ideal = (TTFT + (tokens - 1) gaps) / mean(queue_s + end_to_end_latency_s). Every token
comes in a separate event. Bounds are in brackets. A ramp of 0 starts all users at one instant and is not judged."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="accuracy-") as folder:
        try:
            native = native_binary(options.truth, Path(folder)) if options.truth is not None else None
        except FileNotFoundError as error:
            print(f"--truth: {error}", file=sys.stderr)
            return 2
        plans = _plans(options, on_simulator=native is None)
        rows = [Row(plan) for plan in plans] if options.ladder else with_references(plans, on_simulator=native is None)
        rounds = options.repeat or (1 if native is None or options.ladder else _ROUNDS_ON_NATIVE)
        return _measure_all(rows, native, rounds=rounds, tries=options.tries)


def _plans(options: argparse.Namespace, *, on_simulator: bool) -> list[Plan]:
    ramps, apis = options.ramps, options.apis or ([CHAT, *BEDROCK] if on_simulator else [CHAT])
    streams = options.streams or ([1, 32, 256] if on_simulator else [256, 512])
    if options.ladder:
        ramps, apis, streams = [RAMP], [CHAT], options.streams or LADDER
    plans = [
        Plan(
            count, options.requests or requests_of(count, ramp), ramp, _timing(options, count), options.processes, api,
            busy=options.busy, tls=options.tls,
        )
        for api in apis
        for count in streams
        for ramp in (ramps if api == CHAT else ramps[:1])
    ]  # fmt: skip
    if on_simulator:
        if not (options.apis or options.streams or options.ladder):
            plans.append(signed_plan())
        return plans + (boto3_plans(_timing(options, 256)) if options.boto3 and not options.ladder else [])
    if not options.streams and not options.ladder:
        plans += [replace(plan, busy=options.busy, tls=plan.tls or options.tls) for plan in native_plans()]
    # Rows that are compared with each other are next to each other.
    return sorted(dict.fromkeys(plans), key=lambda plan: plan.streams)


def _timing(options: argparse.Namespace, streams: int) -> Timing:
    default = TIMING if options.ladder else timing_of(streams)
    return Timing(
        default.ttft_s if options.ttft_ms is None else options.ttft_ms / 1e3,
        default.gap_s if options.gap_ms is None else options.gap_ms / 1e3,
        options.tokens or default.tokens,
    )


def _measure_all(rows: Sequence[Row], native: Path | None, *, rounds: int, tries: int) -> int:
    for text in machine.description():
        print(text)
    for timing in dict.fromkeys(row.plan.timing for row in rows):
        streams = dict.fromkeys(row.plan.streams for row in rows if row.plan.timing == timing)
        print(f"Server with {', '.join(map(str, streams))} streams: {_server(timing)}")
    print("One Locust process unless the row says otherwise; one warm-up request per user", flush=True)
    runs: dict[Plan | ControlPlan, list[MeasuredRun | ControlRun]] = {}
    failed = False
    try:
        for number in range(1, rounds + 1):
            for plan in dict.fromkeys(plan for row in rows for plan in (row.plan, row.reference) if plan is not None):
                print(f"round {number} of {rounds}: {_name(plan)}", file=sys.stderr)
                run = _unspoilt(plan, native, tries)
                runs.setdefault(plan, []).append(run)
    except RunError as error:
        print(f"\n{_name(plan)}: {error}", file=sys.stderr)
        failed = True
    lines = [_line(row, runs, native) for row in rows if row.plan in runs]
    print()
    for text in (*markdown.header(), *map(markdown.line, lines)):
        print(text)
    print(_NOTES)
    if unjudged := sum(line.bounds is not None and line.spoilt is not None for line in lines):
        print(f"\n{unjudged} of the lines with bounds could not be judged; repeat them when the machine is quiet.")
    return 1 if failed or any(line.missed for line in lines) else 0


def _server(timing: Timing) -> str:
    return f"TTFT {timing.ttft_s * 1e3:g} ms, gap {timing.gap_s * 1e3:g} ms, {timing.tokens} tokens"


def _name(plan: Plan | ControlPlan) -> str:
    if isinstance(plan, ControlPlan):
        return f"control, {plan.streams} streams"
    tls = ", TLS" if plan.tls else ""
    return f"{markdown.api_of(plan)}, {plan.streams} streams, ramp {plan.ramp}, processes {plan.processes}{tls}"


def _line(row: Row, runs: dict[Plan | ControlPlan, list[MeasuredRun | ControlRun]], native: Path | None) -> Line:
    plan = row.plan
    outcomes = tuple(run for run in runs[plan] if isinstance(run, MeasuredRun))
    references = tuple(runs.get(row.reference, ())) if row.reference is not None else ()
    server = SIMULATOR if native is None else NATIVE
    bounds = None
    if plan.ramp == RAMP and not (plan.sdk or plan.busy):
        bounds = bounds_of(plan.streams, server, plan.processes, plan.api, is_tls=plan.tls)
    return Line(plan, outcomes, bounds, references)


def _unspoilt(plan: Plan | ControlPlan, native: Path | None, tries: int) -> MeasuredRun | ControlRun:
    """Return the first run with a punctual server on a quiet machine, or the last run if there is none."""
    for attempt in range(1, tries + 1):
        run = measure_any(plan, native)
        reason = None if isinstance(plan, Plan) and plan.busy else spoilt(run)
        if reason is None or attempt == tries:
            break
        print(f"{_name(plan)}: {reason}; the run is repeated", file=sys.stderr)
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, metavar="PATH", help="a native truth server: its binary or its .c file")
    parser.add_argument(
        "--streams", type=_counts, metavar="N,N",
        help="default: 1,32,256; with --truth: 256, 512, and the rows with other APIs, with TLS and with more streams",
    )  # fmt: skip
    parser.add_argument("--requests", type=_count, metavar="N", help="measured requests per row; default: by streams")
    parser.add_argument(
        "--repeat", type=_count, metavar="N",
        help=f"rounds, whose medians are shown; default: 1, with --truth {_ROUNDS_ON_NATIVE}",
    )  # fmt: skip
    parser.add_argument(
        "--tries", type=_count, default=3, metavar="N", help="tries of a run with a late server or on a busy machine"
    )
    parser.add_argument(
        "--ramps", type=lambda text: text.split(","), default=[RAMP, WAVE], metavar="T,T",
        help=f"ramps per row; default: {RAMP},{WAVE} (only {RAMP} has bounds)",
    )  # fmt: skip
    parser.add_argument(
        "--apis", type=_apis, metavar="A,A",
        help=f"{', '.join(_APIS)}. Default on the simulator: chat, converse, invoke, and 256 streams of bedrock-chat. "
        "The native server speaks chat, bedrock-chat and converse",
    )  # fmt: skip
    parser.add_argument("--boto3", action="store_true", help="also measure Bedrock on boto3's own path, for comparison")
    parser.add_argument("--processes", type=_count, default=1, metavar="N", help="workers")
    parser.add_argument(
        "--ladder", action="store_true", help="64 to 2,000 streams, to check the health that the client reports"
    )
    parser.add_argument("--busy", action="store_true", help="beside a Python loop on each core; only health is judged")
    parser.add_argument("--tls", action="store_true", help="all rows through a TLS proxy")
    parser.add_argument("--ttft-ms", type=float, metavar="N", help="default: 200")
    parser.add_argument("--gap-ms", type=float, metavar="N", help="default: 20; with --streams from 1,000 on: 50")
    parser.add_argument("--tokens", type=_count, metavar="N", help="default: 128; with --streams from 1,000 on: 64")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _apis(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(_APIS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(_APIS)}")
    return names


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # runs the exit code of the context managers, which end the server


if __name__ == "__main__":
    sys.exit(main())
