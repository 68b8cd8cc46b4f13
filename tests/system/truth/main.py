"""``make truth``: all truth tests in their full versions, as one table. Exits with 1 when a figure is wrong."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.system.truth.line import TruthLine

_FOLDER = Path(__file__).parent
_OTHERS = {"__init__", "line", "main", "queue_models", "queues", "test_truth"}
AREAS = tuple(sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem not in _OTHERS))
"""The other modules of this folder, each with a function ``lines(full)``."""


def area_lines(area: str, full: bool) -> tuple[list[TruthLine], float]:
    """The lines of one area and the seconds that they took."""
    started = time.monotonic()
    lines = list(importlib.import_module(f"tests.system.truth.{area}").lines(full=full))
    return lines, time.monotonic() - started


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; areas run in two processes at a time."""
    parser = argparse.ArgumentParser(prog="make truth", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"areas to run (default: all): {', '.join(AREAS)}")
    parser.add_argument("--quick", action="store_true", help="run the quick versions that make test runs")
    options = parser.parse_args(argv)
    areas = options.areas or list(AREAS)
    wrong = 0
    print(f"{'figure':<70} {'right':>18} {'ours':>18} {'tolerance':>12}")
    with ProcessPoolExecutor(max_workers=2) as pool:
        running = {area: pool.submit(area_lines, area, not options.quick) for area in areas}
        for area, future in running.items():
            lines, seconds = future.result()
            print(f"\n{area} ({seconds:.0f} s)")
            for line in lines:
                wrong += not line.passed
                mark = "" if line.passed else "  WRONG"
                print(f"{line.figure:<70} {line.right:>18} {line.ours:>18} {line.tolerance:>12}{mark}", flush=True)
    print(f"\n{wrong} figures are wrong." if wrong else "\nAll figures are right.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
