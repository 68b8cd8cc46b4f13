"""The command ``llm-bench calibrate``: measures how many streams this machine's workers can measure accurately.

It parses the options, runs the ladder, prints a table and the result on 80 columns, and stores the result.
"""

from __future__ import annotations

import argparse
import platform
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llm_users.calibration.capacity import Capacity, cores, store
from llm_users.calibration.ladder import FIRST, Climb, Rung, climb
from llm_users.calibration.measured_run import Load, RunError, Timing, measure
from llm_users.number_words import parse_duration
from llm_users.options import parsers
from llm_users.options.table import CALIBRATION_VARIABLE
from llm_users.simulator.launch import SimulatorError

FINE, NO_RESULT, INTERRUPTED = 0, 3, 130

_TTFT_S = 0.2
_ROW = "{:>7}  {:>8}  {:>21}  {:>9}  {:<9}  {}"

_ROUNDS, _LEAST_REQUESTS = 3, 100
"""Rounds of requests per stream, and the minimum number of requests: a p99 needs a hundred values."""

_DESCRIPTION = f"""\
Measures how many streams, and how many tokens/s, the workers of this machine can measure with errors below
--error. It starts the simulated endpoint, which logs the arrival of each request and the send time of each token.
It runs Locust against the endpoint with an increasing number of streams (rungs); the errors are the differences
between Locust's rows and the log. A rung passes when the 99th percentiles of the errors of TTFT and of (last - first
token) stay below --error, all answers are complete, and the verdict of Locust on the client is not "saturated". A
rung that does not pass is repeated once.

By default, it starts with {FIRST} streams, doubles them until a rung fails, and then tries rungs in between: one to two
minutes. The endpoint runs on the same machine. If the endpoint itself was late, or if other programs kept the CPU
from the worker, a rung is not judged and the result is "at least".

The result is stored for this user in locust-llm/calibration.json in $XDG_STATE_HOME or ~/.local/state; the variable
{CALIBRATION_VARIABLE} sets another file. Later runs on this machine warn in the log and below the tables when their
load exceeds the result. Exit code 3: there is no result, or it cannot be stored."""


def main(arguments: Sequence[str], locustfile: Path) -> int:
    """Run the command and return the exit code; ``locustfile`` is the file that the workers run."""
    options = _parser().parse_args(arguments)
    timing = Timing(_TTFT_S, options.gap, options.tokens)

    def run(streams: int) -> Rung:
        requests = max(_ROUNDS * streams, 0 if options.streams else _LEAST_REQUESTS)
        load = Load(streams, requests, timing, locustfile, processes=options.processes)
        try:
            return Rung(streams, measure(load), options.error)
        except (RunError, SimulatorError) as error:
            print(f"llm-bench calibrate: {streams} streams: {error}", file=sys.stderr)
            return Rung(streams, None, options.error)

    # SystemExit runs the finally blocks that end the runs.
    old = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        print(header(), flush=True)
        climbed = climb(run, options.streams, lambda rung: print(line(rung), flush=True))
    except OSError as error:
        print(f"llm-bench calibrate: {error}", file=sys.stderr)
        return NO_RESULT
    except KeyboardInterrupt:
        print("llm-bench calibrate: interrupted; nothing is stored", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, old)
    best = climbed.best
    if best is None or best.outcome is None:
        print(f"\n{no_result(climbed)}")
        return NO_RESULT
    found = Capacity(
        host=socket.gethostname(),
        cores=cores(),
        python=platform.python_version(),
        version=version("locust-llm"),
        date=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        streams=best.streams,
        tokens_per_s=round(best.outcome.tokens_per_s, 1),
        processes=options.processes,
        at_least=climbed.at_least,
        gap_s=timing.gap_s,
        tokens=timing.tokens,
        error_s=options.error,
    )
    print(f"\n{result(climbed, found)}\n", flush=True)
    try:
        print(f"Stored in {store(found)}")
    except OSError as error:
        print(f"llm-bench calibrate: the result is not stored: {error}", file=sys.stderr)
        return NO_RESULT
    return FINE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-bench calibrate",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(flag: str, reader: Callable[[str], Any], metavar: str, text: str, default: Any = None) -> None:
        def read(value: str) -> Any:
            try:
                return reader(value)
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from None  # argparse shows only messages of this type

        parser.add_argument(flag, type=read, metavar=metavar, help=text, default=default)

    gap, error = (partial(parse_duration, least_s=least_s, most_s=10) for least_s in (0.001, 1e-9))
    add("--gap", gap, "TIME", "time between two tokens of a stream; default 20ms", 0.02)
    add("--tokens", _tokens, "N", "tokens of each answer, at least 2; default 64", 64)
    add(
        "--streams",
        parsers.sweep,
        "N,N",
        "only these numbers of streams, in ascending order, three requests per stream",
    )
    add("--processes", parsers.positive, "N", "workers that share the streams; default 1", 1)
    add("--error", error, "TIME", "limit that errors must stay below; default 1ms", 0.001)
    return parser


def _tokens(value: str) -> int:
    tokens = parsers.positive(value)
    if tokens < 2:
        raise ValueError("an answer needs at least two tokens: a first and a last one")
    return tokens


def header() -> str:
    """Return the header of the table."""
    return _ROW.format("streams", "tokens/s", "TTFT error p50/p99 ms", "CPU share", "verdict", "judged")


def line(rung: Rung) -> str:
    """Return the table row of one rung."""
    run = rung.outcome
    if run is None:
        return _ROW.format(rung.streams, *"----", rung.judged)
    errors = f"{run.ttft_p50_s * 1e3:.2f} / {run.ttft_p99_s * 1e3:.2f}"
    return _ROW.format(
        rung.streams, f"{run.tokens_per_s:.0f}", errors, f"{run.cpu_share:.0%}", run.health or "-", rung.judged
    ).rstrip()


def no_result(climb: Climb) -> str:
    """Return why the calibration has no result."""
    lowest = min(climb.rungs, key=lambda rung: rung.streams)
    stopped = climb.stopped_by
    reason = (
        "other programs or a CPU limit kept the CPU from the worker"
        if stopped is not None and stopped.was_disturbed
        else "the simulated endpoint itself was late"
        if climb.at_least
        else f"{lowest.streams} streams were too many ({', '.join(climb.rungs[-1].faults())})"
    )
    return _wrapped(f"No result: {reason}. {_disturbed(climb)}Nothing is stored.")


def result(climb: Climb, capacity: Capacity) -> str:
    """Return the capacity, the reason why the ladder ended, and the recommended number of processes."""
    several = capacity.processes > 1
    workers = f"{capacity.processes} workers" if several else "One worker"
    least = "at least " if capacity.at_least else ""
    found = (
        f"{workers} of this machine measure{'' if several else 's'} {least}{capacity.streams} streams, "
        f"{capacity.tokens_per_s:.0f} tokens/s, with errors below {capacity.error_s * 1e3:g} ms "
        f"(a token every {capacity.gap_s * 1e3:g} ms, {capacity.tokens} per answer)."
    )
    rung = climb.stopped_by
    if rung is None:
        end = "The ladder ended there; nothing failed."
    elif rung.outcome is not None and rung.server_was_late:
        end = (
            f"At {rung.streams} streams, the simulated endpoint itself was late "
            f"({rung.outcome.late_p99_s * 1e3:.0f} ms, p99), so that rung is not judged: the endpoint shares "
            "the machine with the worker."
        )
    elif rung.was_disturbed:
        end = (
            f"At {rung.streams} streams, other programs or a CPU limit kept the CPU from the worker, "
            "so that rung is not judged."
        )
    else:
        end = f"{rung.streams} streams were too many: {', '.join(rung.faults())}."
    lines = [_wrapped(f"{found} {end} {_disturbed(climb)}"), "", "Recommended:"]
    for factor in (1, 2, 4):
        streams = capacity.streams * factor
        needed = capacity.processes_for(streams)
        processes = min(needed, max(cores(), capacity.processes))
        rest = f" (all cores); {needed} workers needed: add machines" if processes < needed else ""
        lines.append(f"{streams:>7} streams  --processes {processes}{rest}")
    return "\n".join(lines)


def _disturbed(climb: Climb) -> str:
    if not climb.was_disturbed:
        return ""
    return (
        f"Other programs used up to {climb.others_cores:.1f} cores during the calibration. The result may be higher on "
        "a quiet machine: repeat the calibration there. "
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 80)
