"""Measure what a start costs: medians of CPU and wall time of short commands, on request against another checkout.

    python -m tests.system.accuracy.startup                   # this checkout
    python -m tests.system.accuracy.startup --against PATH    # both, in turn; PATH has an environment in PATH/.venv

CPU time is user and system time of the command and of the processes that it starts, such as the simulator. The last
lines print how much of the run is the import of Locust and of the openai SDK. The first start of each command is not
counted, because it compiles the modules. Use a quiet machine.
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

RUN = "a run of 2 requests"
LOCUST, SDK = "import locust", "import locust, openai"

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
    LOCUST: ["python", "-c", LOCUST],
    SDK: ["python", "-c", SDK],
}  # fmt: skip


@dataclass
class Times:
    """The times of one command in one checkout, in seconds."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)

    def cells(self) -> str:
        if not self.cpu_s:
            return f"{'-':>8}{'-':>9}"  # the command fails there: an older checkout may not have the module
        return f"{statistics.median(self.cpu_s):8.3f}{statistics.median(self.wall_s):9.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.accuracy.startup", description="Measure the CPU and wall time of a start."
    )
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout to compare with")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="starts of each command (default: 7)")
    options = parser.parse_args(argv)
    folders = {"this checkout": Path(sys.executable).parent}
    if options.against is not None:
        folders = {"the other": options.against.resolve() / ".venv" / "bin", **folders}
        if not (folders["the other"] / "python").exists():
            print(f"--against: {folders['the other']} has no Python interpreter", file=sys.stderr)
            return 2
    times = measure(folders, options.repeats)
    print(f"{'':34}" + "".join(f"{name:>17}" for name in folders))
    print(f"{'median, seconds':34}" + f"{'CPU':>8}{'wall':>9}" * len(folders))
    for command in COMMANDS:
        print(f"{command:34}" + "".join(times[command, name].cells() for name in folders))
    if not times[RUN, "this checkout"].cpu_s:
        print(f"{RUN}: the command failed", file=sys.stderr)
        return 1
    run, locust, both = (statistics.median(times[name, "this checkout"].cpu_s) for name in (RUN, LOCUST, SDK))
    print(f"Of the CPU time of {RUN} in this checkout, the import of Locust is {locust / run:.0%}")
    print(f"and the import of the openai SDK is {(both - locust) / run:.0%}.")
    return 0


def measure(folders: dict[str, Path], repeats: int) -> dict[tuple[str, str], Times]:
    """Start every command in every checkout, in turn, so that a change of the machine's speed affects all alike."""
    times = {(command, name): Times() for command in COMMANDS for name in folders}
    with tempfile.TemporaryDirectory(prefix="startup-") as compiled:
        for repeat in range(repeats + 1):
            for command, words in COMMANDS.items():
                for name in folders if repeat % 2 else reversed(folders):
                    cpu_s, wall_s = start(folders[name], words, Path(compiled))
                    if repeat and cpu_s is not None:
                        times[command, name].cpu_s.append(cpu_s)
                        times[command, name].wall_s.append(wall_s)
    return times


def start(folder: Path, words: list[str], compiled: Path) -> tuple[float | None, float]:
    """Run a command of an environment. Return CPU and wall time in seconds; the CPU time is None if it fails."""
    # Compiled modules are kept, as in any installation, but outside of the checkouts.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "PYTHON"))}
    environment["PYTHONPYCACHEPREFIX"] = str(compiled)
    with tempfile.TemporaryDirectory(prefix="startup-") as working:
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            [folder / words[0], *words[1:]],
            cwd=working,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        wall_s, after = time.monotonic() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (cpu_s if done.returncode == 0 else None), wall_s


if __name__ == "__main__":
    sys.exit(main())
