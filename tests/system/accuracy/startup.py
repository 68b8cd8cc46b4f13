"""Measure what a start costs: short commands, and whole runs without their load, also against another checkout.

    python -m tests.system.accuracy.startup                   # this checkout
    python -m tests.system.accuracy.startup --only runs       # only the whole runs
    python -m tests.system.accuracy.startup --against PATH    # both, in turn; PATH has an environment in PATH/.venv

CPU time is user and system time of the command and of the processes that it starts, such as the simulator. The last
lines print how long the imports of Locust and of the openai SDK take on this machine: compare the runs with the bounds
scaled by that time. The first start of each command is not counted, because it compiles the modules. aiohttp, which
only development needs, is hidden from the commands: the openai SDK imports it if it is installed, in 0.1 s. Use a quiet
machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.accuracy import run_overhead
from tests.system.accuracy.run_overhead import BARE, CASES, REFERENCE_S, Overhead

RUN = "a run of 2 requests"
THIS, OTHER = "this checkout", "the other"
LOCUST, SDK = REFERENCE_S

COMMANDS: dict[str, list[str]] = {
    "llm-bench --help": ["llm-bench", "--help"],
    "llm-report --help": ["llm-report", "--help"],
    "import llm_users.record": ["python", "-c", "import llm_users.record"],
    "import llm_reports": ["python", "-c", "import llm_reports"],
    "from llm_users import OpenAIUser": ["python", "-c", "from llm_users import OpenAIUser"],
    RUN: [
        "llm-bench", "--headless", "--only-summary", "--llm-simulator", "ttft=5ms,itl=1ms", "--llm-sweep", "1",
        "--llm-requests", "2", "--llm-warmup", "0", "--csv", "run",
    ],
}  # fmt: skip
# As `llm-bench` imports them, without garbage collection. The end of the interpreter is not a part of the import.
IMPORTS = {name: ["python", "-c", f"import gc, os; gc.disable(); {name}; os._exit(0)"] for name in REFERENCE_S}


@dataclass
class Times:
    """The times of one command in one checkout, in seconds."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)

    def cells(self) -> str:
        if not self.cpu_s:
            return f"{'-':>8}{'-':>9}"  # the command fails there: an older checkout may not have the module
        return f"{statistics.median(self.cpu_s):8.3f}{statistics.median(self.wall_s):9.3f}"


class Checkouts:
    """The folders with the commands of the checkouts."""

    def __init__(self, folders: dict[str, Path], temporary: Path) -> None:
        """Create a list of checkouts. Compiled modules are kept in a folder of ``temporary``."""
        self._folders = folders
        (hidden := temporary / "hidden").mkdir()
        (hidden / "aiohttp.py").write_text("raise ModuleNotFoundError(name='aiohttp')\n")
        # As in any installation, but outside of the checkouts.
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "PYTHON"))}
        self._environment |= {"PYTHONPYCACHEPREFIX": str(temporary / "compiled"), "PYTHONPATH": str(hidden)}

    @property
    def names(self) -> list[str]:
        return list(self._folders)

    def run(self, name: str, words: list[str], working: Path) -> int:
        """Run a command of a checkout (bare Locust: of this one) and return its exit code."""
        return subprocess.run(
            [self._folders.get(name, self._folders[THIS]) / words[0], *words[1:]],
            cwd=working,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=False,
        ).returncode


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    folders = {THIS: Path(sys.executable).parent}
    if options.against is not None:
        folders = {OTHER: options.against.resolve() / ".venv" / "bin", **folders}
        if not (folders[OTHER] / "python").exists():
            print(f"--against: {folders[OTHER]} has no Python interpreter", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        (working := Path(folder, "runs")).mkdir()
        checkouts = Checkouts(folders, Path(folder))
        commands = {**(COMMANDS if options.only != "runs" else {}), **IMPORTS}
        times = measure(checkouts, commands, working, options.repeats)
        print(f"{'':34}" + "".join(f"{name:>17}" for name in folders))
        print(f"{'median, seconds':34}" + f"{'CPU':>8}{'wall':>9}" * len(folders))
        for command in commands:
            print(f"{command:34}" + "".join(times[command, name].cells() for name in folders))
        if options.only != "commands":
            overheads = run_overhead.measure(
                CASES, [*checkouts.names, BARE], checkouts.run, working, min(options.repeats, 3)
            )
            print_runs(
                overheads, checkouts.names, {name: statistics.median(times[name, THIS].wall_s) for name in IMPORTS}
            )
    if RUN in commands and not times[RUN, THIS].cpu_s:
        print(f"{RUN}: the command failed", file=sys.stderr)
        return 1
    return 0


def print_runs(
    overheads: dict[tuple[run_overhead.Case, str], Overhead], names: list[str], imports_s: dict[str, float]
) -> None:
    """Print the overheads of all runs, their bounds, and the bounds for the present speed of this machine."""
    factor = imports_s[SDK] / REFERENCE_S[SDK]
    columns = [*names, BARE]
    print(f"\n{'wall time minus load':38}" + "".join(f"{name:>22}" for name in columns))
    print(f"{'median, seconds':38}" + f"{'start':>8}{'end':>7}{'sum':>7}" * len(columns) + f"{'bound':>8}{'here':>7}")
    for case in CASES:
        cells = "".join(overheads[case, name].cells() for name in columns)
        print(f"{case.name:38}{cells}{case.bound_s:8.2f}{case.bound_s * factor:7.2f}")
    locust_s, both_s = imports_s[LOCUST], imports_s[SDK]
    print(f"The import of Locust takes {locust_s:.2f} s on this machine, and {both_s:.2f} s with the openai SDK.")
    print(
        f"The bounds are for {REFERENCE_S[LOCUST]:.2f} and {REFERENCE_S[SDK]:.2f} s. "
        f"The column `here` shows the bounds times {factor:.2f}."
    )
    run = overheads[CASES[0], THIS]
    if run.start_s:
        print(
            f"Of the overhead of {CASES[0].name}, the import of Locust is {locust_s / run.sum_s:.0%} and the import of "
            f"the openai SDK is {(both_s - locust_s) / run.sum_s:.0%}."
        )


def measure(
    checkouts: Checkouts, commands: dict[str, list[str]], working: Path, repeats: int
) -> dict[tuple[str, str], Times]:
    """Start every command in every checkout, in turn, so that a change of the machine's speed affects all alike."""
    names = checkouts.names
    times = {(command, name): Times() for command in commands for name in names}
    for repeat in range(repeats + 1):
        for command, words in commands.items():
            for name in names if repeat % 2 else reversed(names):
                with tempfile.TemporaryDirectory(dir=working) as folder:
                    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
                    code = checkouts.run(name, words, Path(folder))
                    wall_s, after = time.monotonic() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
                if repeat and code == 0:
                    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    times[command, name].cpu_s.append(cpu_s)
                    times[command, name].wall_s.append(wall_s)
    return times


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.accuracy.startup", description="Measure the CPU and wall time of a start."
    )
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout to compare with")
    parser.add_argument("--only", choices=("commands", "runs"), help="only the short commands, or only the whole runs")
    parser.add_argument(
        "--repeats", type=int, default=7, metavar="N", help="starts of each command (default: 7); at most 3 runs"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
