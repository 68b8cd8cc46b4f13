"""``llm-bench calibrate``: how many streams can this machine's workers measure truly?

Reads the options, runs the ladder, prints and stores what came of it.
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
"""Requests of each stream; a p99 wants a hundred values where there are few streams."""

_ABOUT = f"""\
Finds how many streams, and how many tokens/s, the workers of this machine can measure with errors below
--error. It starts the simulated endpoint, which logs when each request came and each token left, and runs Locust
against it, with more streams each time; the errors are the differences between Locust's rows and that log. A rung
passes when the 99th percentiles of the errors of TTFT and of (last - first token) stay below --error, all answers
are complete, and Locust does not call itself saturated. One that does not pass is tried twice.

By default it starts with {FIRST} streams and doubles them until a rung fails, then tries finer ones: a minute or two.
The endpoint shares the machine; where it was late itself, or other programs kept the CPU from the worker, a rung
is not judged and the result is "at least".

The result is stored for this user ($XDG_STATE_HOME or ~/.local/state, locust-llm/calibration.json; the variable
{CALIBRATION_VARIABLE} names another file). Later runs on this machine that ask more of a worker say so, in
the log and under the tables. Exit code 3: there is no result, or it could not be stored."""

T = TypeVar("T")


def main(arguments: Sequence[str], locustfile: Path) -> int:
    """The exit code; ``locustfile`` is what the workers run."""
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

    old = signal.signal(signal.SIGTERM, _leave)
    try:
        _say(text.header())
        done = climb(run, options.streams, lambda rung: _say(text.line(rung)))
    except OSError as error:
        print(f"llm-bench calibrate: {error}", file=sys.stderr)
        return NO_RESULT
    except KeyboardInterrupt:
        print("llm-bench calibrate: interrupted; nothing is stored", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, old)
    _say("")
    best = done.best
    if best is None or best.outcome is None:
        _say(text.no_result(done))
        return NO_RESULT
    load = Load(best.streams, best.outcome.requests, timing, locustfile, processes=options.processes)
    return _conclude(done, _capacity(load, best.outcome.tokens_per_s, options.error, at_least=done.at_least))


def _conclude(done: Climb, found: Capacity) -> int:
    _say(text.result(done, found))
    _say("")
    try:
        _say(f"Stored in {capacity.store(found)}")
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
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--gap",
        type=_read(partial(parse_duration, least_s=0.001, most_s=10)),
        default=0.02,
        metavar="TIME",
        help="between two tokens of a stream; default 20ms",
    )
    parser.add_argument(
        "--tokens", type=_read(_tokens), default=64, metavar="N", help="tokens of each answer, at least 2; default 64"
    )
    parser.add_argument(
        "--streams",
        type=_read(parsers.sweep),
        metavar="N,N",
        help="these rungs only, upwards, three requests each",
    )
    parser.add_argument(
        "--processes", type=_read(parsers.positive), default=1, metavar="N",
        help="workers that share the streams; default 1",
    )  # fmt: skip
    parser.add_argument(
        "--error",
        type=_read(partial(parse_duration, least_s=1e-9, most_s=10)),
        default=0.001,
        metavar="TIME",
        help="what errors must be below; default 1ms",
    )
    return parser


def _read(reader: Callable[[str], T]) -> Callable[[str], T]:
    """The reader of an option's value, with its words where argparse wants them."""

    def read(value: str) -> T:
        try:
            return reader(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _tokens(value: str) -> int:
    tokens = parsers.positive(value)
    if tokens < 2:
        raise ValueError("an answer needs two tokens to have a first and a last one")
    return tokens


def _say(line: str) -> None:
    print(line, flush=True)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by way of the blocks that end the runs
