"""The pairing of prompts in runs of the simulator: runs of equal lengths pair, runs of longer prompts do not.

The texts of all runs differ, and the simulator counts words, so the input tokens of equal prompts differ by chance. The
prompts of the longer runs are 3 and 10 % longer than the table of options in their manifest says, as if the server
added tokens to them. Each pair is also judged by its first 20 prompts, the fewest that a comparison takes.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pandas import DataFrame

import llm_reports
from llm_reports.compare.figures import FEWEST_REQUESTS
from llm_reports.compare.pairing import pairing
from llm_reports.metrics.groups import groups
from llm_reports.run import Run
from llm_users.record import COL
from llm_users.simulator.launch import launch
from tests.documented import ENVIRONMENT
from tests.system.truth.line import TruthLine, at_least, at_most

_REQUESTS = 100
_SPEC = "ttft=2ms,itl=1ms"
_LENGTHS = {"550,150": ("567,155", "605,165"), "30,5": ("31,5", "33,5")}
"""The lengths of the prompts, and those that are 3 and 10 % longer."""


def lines(full: bool) -> Iterator[TruthLine]:
    """The lines of this area: ten pairs of runs and 45 pairs of all of them; without ``full``, two runs and one."""
    with tempfile.TemporaryDirectory() as folder, launch(_SPEC, max_seconds=600) as simulator:
        for lengths, longer in _LENGTHS.items():
            if not full and lengths != "550,150":
                continue
            equal = [_run(Path(folder), simulator.url, lengths) for _ in range(10 if full else 2)]
            pairs = list(itertools.combinations(equal, 2))
            yield at_least(f"paired: {lengths} tokens, {_REQUESTS} prompts", 1.0, _paired(pairs, _REQUESTS), "always")
            few = _paired(pairs, FEWEST_REQUESTS)
            yield at_least(f"paired: {lengths} tokens, {FEWEST_REQUESTS} prompts", 0.95, few, "always")
            for other in longer:
                run = _run(Path(folder), simulator.url, other)
                pairs = [(base, replace(run, manifest=base.manifest)) for base in equal]
                name = f"paired: {lengths} tokens against {other}, {_REQUESTS} prompts"
                # In 100 prompts of 30 tokens, chance explains a difference of 2.5 %.
                yield at_most(name, 0.9 if other == "31,5" else 0.0, _paired(pairs, _REQUESTS), "never")


def _run(folder: Path, url: str, lengths: str) -> Run:
    """A run in its own process, as a user starts it; its texts differ from those of all other runs."""
    prefix = Path(tempfile.mkdtemp(dir=folder)) / "run"
    done = subprocess.run(
        [sys.executable, "-m", "llm_users.cli", "--headless", "--only-summary", "--host", url, "--llm-sweep", "8",
         "--llm-requests", str(_REQUESTS), "--llm-input-tokens", lengths, "--llm-output-tokens", "4,0",
         "--csv", str(prefix)],
        env=ENVIRONMENT, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return llm_reports.load(prefix)


def _paired(pairs: list[tuple[Run, Run]], prompts: int) -> float:
    """The share of these pairs whose first prompts are paired."""
    paired = 0
    for pair in pairs:
        base, other = (groups([replace(run, requests=_first(run, prompts))])[0] for run in pair)
        paired += pairing(base, other).rows is not None
    return paired / len(pairs)


def _first(run: Run, prompts: int) -> DataFrame:
    measured = run.requests[run.requests[COL.measured] == 1]
    return measured.sort_values(COL.prompt_index).head(prompts)
