"""Measure what long answers cost: the longest pause of the event loop, the CPU per token, and the memory.

    python -m tests.system.accuracy.long_answers                # against the simulator
    python -m tests.system.accuracy.long_answers --truth PATH   # against a native server

One stream receives answers of 1,000, 10,000 and 100,000 tokens; then 64 streams receive 10,000 tokens each. The cost
per token must not depend on the length of the answer. ``watched_sweep.py`` measures the pauses. Use a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llm_users.calibration import measured_run
from llm_users.calibration.measured_run import Load, MeasuredRun, SimulatorEndpoint, Timing
from tests.system.accuracy.circumstances import Start
from tests.system.accuracy.endpoints import NativeEndpoint, native_binary

LONGEST_PAUSE_S = 0.005

_LOCUSTFILE = Path(__file__).with_name("watched_sweep.py")

ONE_STREAM_GAP_S, MANY_STREAMS_GAP_S = 0.0001, 0.002
LOADS = [(1, 1_000, 10), (1, 10_000, 2), (1, 100_000, 1), (64, 10_000, 64)]
"""Streams, tokens per answer, answers."""

_NO_WARMUP = ("--llm-warmup", "0")  # it would take as long as the measured answers


@dataclass(frozen=True, slots=True)
class LongAnswers:
    """The result of one load."""

    run: MeasuredRun
    pause_s: float
    own_pause_s: float
    memory_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.accuracy.long_answers", description="Measure what long answers cost."
    )
    parser.add_argument("--truth", type=Path, metavar="PATH", help="a native server instead of the simulator")
    options = parser.parse_args(argv)
    print(
        f"{'streams':>8}{'tokens':>9}{'answers':>9}{'CPU/token':>12}{'longest pause':>15}{'own part':>11}{'memory':>10}"
    )
    longest_s = 0.0
    with tempfile.TemporaryDirectory(prefix="long-answers-") as name:
        binary = native_binary(options.truth, Path(name)) if options.truth is not None else None
        start: Start = SimulatorEndpoint if binary is None else partial(NativeEndpoint, binary)
        for streams, tokens, answers in LOADS:
            result = measure(streams, tokens, answers, start)
            longest_s = max(longest_s, result.own_pause_s)
            print(
                f"{streams:>8}{tokens:>9,}{answers:>9}{result.run.cpu_per_token_s * 1e6:>9.1f} us"
                f"{result.pause_s * 1e3:>12.1f} ms{result.own_pause_s * 1e3:>8.1f} ms{result.memory_mb:>7.0f} MB"
            )
    return int(longest_s > LONGEST_PAUSE_S)


def measure(streams: int, tokens: int, answers: int, start: Start = SimulatorEndpoint) -> LongAnswers:
    """Run one load. Raises ``RunError``."""
    gap_s = ONE_STREAM_GAP_S if streams == 1 else MANY_STREAMS_GAP_S
    with tempfile.TemporaryDirectory(prefix="long-answers-") as name:
        path = Path(name) / "result.json"
        os.environ["WATCHED_SWEEP"] = str(path)
        load = Load(streams, answers, Timing(0.1, gap_s, tokens), _LOCUSTFILE, options=_NO_WARMUP)
        run = measured_run.measure(load, start)
        return LongAnswers(run, **json.loads(path.read_text()))


if __name__ == "__main__":
    sys.exit(main())
