"""Print where the load process spends its CPU time.

    python -m tests.system.accuracy.profile --truth PATH                          # 256 and 1,000 streams
    python -m tests.system.accuracy.profile --truth PATH --streams 512 --requests 3000

``profiled_sweep.py`` takes the samples, about 1,000 per second of CPU time. They slow the process by a few percent, so
the shares are meaningful and the sums are not figures of the product. The load is that of the accuracy table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llm_users.calibration import measured_run
from llm_users.calibration.measured_run import Load, MeasuredRun, SimulatorEndpoint
from tests.system.accuracy.circumstances import Start
from tests.system.accuracy.endpoints import NativeEndpoint, native_binary
from tests.system.accuracy.rows import RAMP, requests_of, timing_of

_LOCUSTFILE = Path(__file__).with_name("profiled_sweep.py")

PARTS = (
    ("read and stamp the responses", ("PlainConnection._on_readable",)),
    ("publish rows: files, live metrics, Locust's statistics", ("_publish",)),
    ("make rows", ("Request._make_row",)),
    ("decode the answers", ("SseResponseStream.take_texts", "Exchange.take", "Request._process_end")),
    ("build and send requests", ("OpenAIUser.open_response", "Request._build_ask")),
    ("process the first tokens", ("Request._process", "Request._read")),
    ("rest of a request", ("Request.run",)),
    ("users between requests", ("User.run",)),
)
"""The label of a part, and functions. A sample belongs to the first part that has one of the functions on its stack."""

EVENT_LOOP = "event loop: epoll_wait and dispatch"
MARKER = "event loop"  # profiled_sweep.py begins the stack of a sample in the event loop with it
OTHER = "rest of the main thread"
THREADS = "other threads (they count the tokens of prompts)"


@dataclass(frozen=True, slots=True)
class Profile:
    """The CPU time of a load, in seconds, by part."""

    run: MeasuredRun
    parts: dict[str, float]

    def lines(self) -> list[str]:
        whole_s = sum(self.parts.values())
        return [f"{seconds / whole_s:7.1%}  {label}" for label, seconds in self.parts.items()]


def measure(load: Load, start: Start = SimulatorEndpoint) -> Profile:
    """Run one load and return where its process spent CPU time. Raises ``RunError``."""
    with tempfile.TemporaryDirectory(prefix="profile-") as name:
        path = Path(name) / "result.json"
        os.environ["PROFILED_SWEEP"] = str(path)
        run = measured_run.measure(load, start)
        result = json.loads(path.read_text())
    samples: Counter[str] = Counter()
    for stack, count in result["stacks"].items():
        samples[part_of(stack)] += count
    per_sample_s = result["main_thread_s"] / samples.total()
    parts = {label: samples[label] * per_sample_s for label in (*(label for label, _ in PARTS), EVENT_LOOP, OTHER)}
    return Profile(run, parts | {THREADS: result["process_s"] - result["main_thread_s"]})


def part_of(stack: str) -> str:
    """Return the part of a stack: ``file:function`` from the innermost outward, joined by ``;``."""
    functions = [name.rpartition(":")[2] for name in stack.split(";")]
    if functions == ["Hub.run"] or functions[0] == MARKER:
        return EVENT_LOOP
    return next((label for label, names in PARTS if not set(names).isdisjoint(functions)), OTHER)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.accuracy.profile",
        description="Print where the load process spends its CPU time. Use a quiet machine.",
    )
    parser.add_argument("--truth", type=Path, metavar="PATH", help="a native server instead of the simulator")
    parser.add_argument("--streams", type=int, nargs="+", default=[256, 1000], metavar="N", help="default: 256 1000")
    parser.add_argument("--requests", type=int, metavar="N", help="default: those of the accuracy table")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="profile-") as name:
        binary = native_binary(options.truth, Path(name)) if options.truth is not None else None
        start: Start = SimulatorEndpoint if binary is None else partial(NativeEndpoint, binary)
        for streams in options.streams:
            timing, requests = timing_of(streams), options.requests or requests_of(streams, RAMP)
            profile = measure(Load(streams, requests, timing, _LOCUSTFILE, RAMP), start)
            print(f"{streams} streams, {requests} requests of {timing.tokens} tokens, client {profile.run.health}")
            for line in profile.lines():
                print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
