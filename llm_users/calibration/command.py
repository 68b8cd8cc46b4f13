"""The command ``llm-bench calibrate``: measures how many streams this machine's workers can measure accurately.

It parses the options, runs the ladder, and prints and stores the result.
"""

from __future__ import annotations

import argparse
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TypeVar

from llm_users.calibration import capacity, text
from llm_users.calibration.capacity import Capacity
from llm_users.calibration.ladder import FIRST, Climb, Rung, climb
from llm_users.calibration.load import Load, RunError
from llm_users.calibration.measured_run import measure
from llm_users.calibration.truth import Timing
from llm_users.number_words import parse_duration
from llm_users.options import parsers
from llm_users.options.table import CALIBRATION_VARIABLE
from llm_users.simulator.launch import SimulatorError

FINE, NO_RESULT, INTERRUPTED = 0, 3, 130

_TTFT_S = 0.2

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

T = TypeVar("T")


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

    old = signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        _print_line(text.header())
        result = climb(run, options.streams, lambda rung: _print_line(text.line(rung)))
    except OSError as error:
        print(f"llm-bench calibrate: {error}", file=sys.stderr)
        return NO_RESULT
    except KeyboardInterrupt:
        print("llm-bench calibrate: interrupted; nothing is stored", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, old)
    _print_line("")
    best = result.best
    if best is None or best.outcome is None:
        _print_line(text.no_result(result))
        return NO_RESULT
    load = Load(best.streams, best.outcome.requests, timing, locustfile, processes=options.processes)
    return _report(result, _capacity(load, best.outcome.tokens_per_s, options.error, at_least=result.at_least))


def _report(climbed: Climb, result: Capacity) -> int:
    _print_line(text.result(climbed, result))
    _print_line("")
    try:
        _print_line(f"Stored in {capacity.store(result)}")
    except OSError as error:
        print(f"llm-bench calibrate: the result is not stored: {error}", file=sys.stderr)
        return NO_RESULT
    return FINE


def _capacity(load: Load, tokens_per_s: float, error_s: float, *, at_least: bool) -> Capacity:
    return Capacity(
        host=socket.gethostname(),
        cores=capacity.cores(),
        python=platform.python_version(),
        version=version("locust-llm"),
        date=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        streams=load.streams,
        tokens_per_s=round(tokens_per_s, 1),
        processes=load.processes,
        at_least=at_least,
        gap_s=load.timing.gap_s,
        tokens=load.timing.tokens,
        error_s=error_s,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-bench calibrate",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--gap",
        type=_argument_type(partial(parse_duration, least_s=0.001, most_s=10)),
        default=0.02,
        metavar="TIME",
        help="time between two tokens of a stream; default 20ms",
    )
    parser.add_argument(
        "--tokens",
        type=_argument_type(_tokens),
        default=64,
        metavar="N",
        help="tokens of each answer, at least 2; default 64",
    )
    parser.add_argument(
        "--streams",
        type=_argument_type(parsers.sweep),
        metavar="N,N",
        help="only these numbers of streams, in ascending order, three requests per stream",
    )
    parser.add_argument(
        "--processes", type=_argument_type(parsers.positive), default=1, metavar="N",
        help="workers that share the streams; default 1",
    )  # fmt: skip
    parser.add_argument(
        "--error",
        type=_argument_type(partial(parse_duration, least_s=1e-9, most_s=10)),
        default=0.001,
        metavar="TIME",
        help="limit that errors must stay below; default 1ms",
    )
    return parser


def _argument_type(reader: Callable[[str], T]) -> Callable[[str], T]:
    """Wrap the parser of an option value, so that argparse shows its error message."""

    def read(value: str) -> T:
        try:
            return reader(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _tokens(value: str) -> int:
    tokens = parsers.positive(value)
    if tokens < 2:
        raise ValueError("an answer needs at least two tokens: a first and a last one")
    return tokens


def _print_line(line: str) -> None:
    print(line, flush=True)


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # SystemExit runs the finally blocks that end the runs
