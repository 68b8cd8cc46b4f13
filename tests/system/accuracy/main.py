"""How true are the numbers? Prints the accuracy table: this client's figures against the server's own send times.

    python -m tests.system.accuracy.main              # on the simulator: 1, 32 and 256 streams of each API
    python -m tests.system.accuracy.main --boto3      # besides, 256 streams of Bedrock on boto3's own path
    python -m tests.system.accuracy.main --truth truth_server.c  # a native server: 256 to 1,000 streams
    python -m tests.system.accuracy.main --truth truth_server.c --ladder  # up to the limit of the client
    python -m tests.system.accuracy.main --ladder --busy --tls   # the same, on a busy machine and over TLS

A benchmark for a quiet machine, not a test: it takes about five minutes. Exit code 1 when a judged line misses a bound.
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
from tests.system.accuracy.bounds import CHAT, CONVERSE, INVOKE, MESSAGES, NATIVE, RESPONSES, SIMULATOR, bounds_of
from tests.system.accuracy.endpoints import native_binary
from tests.system.accuracy.judging import Line, spoilt
from tests.system.accuracy.load_run import Plan, measure

_RAMP, _WAVE = "0.5s", "0"
_TWO_PROCESSES = Plan(1000, 3000, _RAMP, Timing(0.2, 0.05, 64), processes=2)
_LADDER = [64, 128, 256, 512, 768, 1024, 1536, 2000]
_BEDROCK = (CONVERSE, INVOKE)
_STREAMS_OF_BOTO3 = 256

# Enough for a p99 where there are many streams; few at one stream, where every request takes its 2.7 s alone.
_REQUESTS = {1: 6, 32: 256, 256: 1024, 512: 1536}

_NOTES = """
Errors are per request against the server's own send times, rows and server log joined by response id; measured
requests only. TTFT error = |ttft_s - (first token sent - request read)|; error of (last - first) = |(last_token_s -
ttft_s) - (last token sent - first token sent)|; quantiles by linear interpolation. CPU per token = CPU of the load
process inside MEASURE / tokens that arrived inside MEASURE. Rate / ideal = (TTFT + (tokens - 1) gaps) / mean(queue_s +
end_to_end_latency_s). Every token comes in an event of its own. Bounds in brackets; a ramp of 0 starts all users at one
instant and has none."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    timing = Timing(options.ttft_ms / 1e3, options.gap_ms / 1e3, options.tokens)
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="accuracy-") as folder:
        try:
            native = native_binary(options.truth, Path(folder)) if options.truth is not None else None
        except FileNotFoundError as error:
            print(f"--truth: {error}", file=sys.stderr)
            return 2
        streams = options.streams or ([256, 512] if native is not None else [1, 32, 256])
        ramps = options.ramps
        if options.ladder:
            streams, ramps = options.streams or _LADDER, [_RAMP]
        plans = [
            Plan(
                count,
                options.requests or _requests(count, ramp),
                ramp,
                timing,
                options.processes,
                busy=options.busy,
                tls=options.tls,
            )
            for count in streams
            for ramp in ramps
        ]
        if native is not None and not options.streams and not options.ladder:
            plans.append(replace(_TWO_PROCESSES, busy=options.busy, tls=options.tls))
        if native is None and not options.ladder:
            plans = _by_api(plans, options.apis, options.ramps, boto3=options.boto3)
        return _measure_all(plans, native, repeat=options.repeat, tries=options.tries)


def _by_api(plans: Sequence[Plan], apis: Sequence[str], ramps: Sequence[str], *, boto3: bool) -> list[Plan]:
    """The plans for each API that the simulator speaks. Bedrock's are one ramp long, as the wave has no bounds."""
    found = [replace(plan, api=api) for api in apis for plan in plans if api == CHAT or plan.ramp == ramps[0]]
    if boto3:
        requests = _requests(_STREAMS_OF_BOTO3, _RAMP)
        comparison = Plan(_STREAMS_OF_BOTO3, requests, _RAMP, plans[0].timing, sdk=True)
        found += [replace(comparison, api=api) for api in _BEDROCK]
    return found


def _measure_all(plans: Sequence[Plan], native: Path | None, *, repeat: int, tries: int) -> int:
    timing = plans[0].timing
    for text in machine.description():
        print(text)
    print(f"Server: {_server(timing)}; one Locust process unless said otherwise; a warm-up request per user")
    if plans[-1].timing != timing:
        print(f"Last row: {_server(plans[-1].timing)}")
    print()
    for text in markdown.header():
        print(text, flush=True)
    missed, unjudged = False, 0
    for plan in plans:
        try:
            line = _line(plan, native, repeat=repeat, tries=tries)
        except RunError as error:
            print(f"\n{plan.api}, {plan.streams} streams, ramp {plan.ramp}: {error}", file=sys.stderr)
            return 1
        print(markdown.line(line), flush=True)
        missed |= line.missed
        unjudged += line.bounds is not None and line.spoilt is not None
    print(_NOTES)
    if unjudged:
        print(f"\n{unjudged} of the lines with bounds could not be judged; repeat them when the machine is quiet.")
    return 1 if missed else 0


def _server(timing: Timing) -> str:
    return f"TTFT {timing.ttft_s * 1e3:g} ms, gap {timing.gap_s * 1e3:g} ms, {timing.tokens} tokens"


def _line(plan: Plan, native: Path | None, *, repeat: int, tries: int) -> Line:
    outcomes = tuple(_unspoilt(plan, native, tries) for _ in range(repeat))
    server = SIMULATOR if native is None else NATIVE
    judged = plan.ramp == _RAMP and not (plan.sdk or plan.busy or plan.tls)
    return Line(plan, outcomes, bounds_of(plan.streams, server, plan.processes, plan.api) if judged else None)


def _unspoilt(plan: Plan, native: Path | None, tries: int) -> MeasuredRun:
    """The first run in which server and machine did their part; the last one when there is none."""
    for attempt in range(1, tries + 1):
        outcome = measure(plan, native)
        reason = None if plan.busy else spoilt(outcome)
        if reason is None or attempt == tries:
            break
        print(f"{plan.api}, {plan.streams} streams, ramp {plan.ramp}: {reason}, once more", file=sys.stderr)
    return outcome


def _requests(streams: int, ramp: str) -> int:
    requests = _REQUESTS.get(streams, 4 * streams)
    return requests if ramp == _RAMP else max(3, requests // 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, metavar="PATH", help="a native truth server: its binary or its .c file")
    parser.add_argument("--streams", type=_counts, metavar="N,N", help="default: 1,32,256; with --truth: 256,512")
    parser.add_argument("--requests", type=_count, metavar="N", help="measured requests per line; default: by streams")
    parser.add_argument("--repeat", type=_count, default=1, metavar="N", help="runs per line, medians are shown")
    parser.add_argument(
        "--tries", type=_count, default=3, metavar="N", help="a run with a late server or a busy machine is repeated"
    )
    parser.add_argument(
        "--ramps", type=lambda text: text.split(","), default=[_RAMP, _WAVE], metavar="T,T",
        help=f"ramps per row; default: {_RAMP},{_WAVE} (only {_RAMP} has bounds)",
    )  # fmt: skip
    parser.add_argument(
        "--apis", type=_apis, default=[CHAT, *_BEDROCK], metavar="A,A",
        help="chat, converse, invoke (these by default), responses, messages. The native server speaks chat",
    )  # fmt: skip
    parser.add_argument("--boto3", action="store_true", help="Bedrock on boto3's own path too, for comparison")
    parser.add_argument("--processes", type=_count, default=1, metavar="N", help="workers")
    parser.add_argument(
        "--ladder", action="store_true", help="64 to 2,000 streams: is the client's verdict about itself right?"
    )
    parser.add_argument("--busy", action="store_true", help="beside a Python loop on each core; only health is judged")
    parser.add_argument("--tls", action="store_true", help="through a TLS proxy; only health is judged")
    parser.add_argument("--ttft-ms", type=float, default=200.0)
    parser.add_argument("--gap-ms", type=float, default=20.0)
    parser.add_argument("--tokens", type=_count, default=128)
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _apis(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= {CHAT, RESPONSES, MESSAGES, *_BEDROCK}:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of chat, responses, messages, converse and invoke")
    return names


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by way of the blocks that end the server


if __name__ == "__main__":
    sys.exit(main())
