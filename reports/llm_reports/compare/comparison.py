"""Run against run: per stage and figure the difference, the ratio, its interval, and whether it is more than noise.

The first run is compared with each of the others, or several runs with several (``against``). Stages are matched by
load (and model, when the runs share their models). ``stats.block_resampling`` has the method for single runs,
``run_estimates`` that for several; p-values are corrected over the whole table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pandas import DataFrame

from llm_reports.compare.comparability import unlike
from llm_reports.compare.decision import decides, despite_failures, judged
from llm_reports.compare.difference import Difference
from llm_reports.compare.figures import lines
from llm_reports.compare.run_estimates import holm
from llm_reports.errors import InputError
from llm_reports.metrics.groups import Group, groups
from llm_reports.metrics.stage_load import loads_in_words
from llm_reports.run import Run, named_apart
from llm_reports.stats.block_resampling import NO_CHANCE, jointly
from llm_reports.stats.intervals import student_t
from llm_users.record import StageLoad
from llm_users.verdict import Verdict

ONE_RUN = (
    "Both sides are single runs: what changes from run to run (another machine, another hour) is not in the intervals. "
    "Measure at least three runs per side in turn and compare them with --against before you trust a small difference."
)
_Key = tuple[str, StageLoad, int]
_Side = tuple[Group, ...]


@dataclass(frozen=True)
class Comparison:
    """All lines, and all stages of all runs. ``against`` are the runs of the other side, where there are sides."""

    runs: tuple[Run, ...]
    differences: tuple[Difference, ...]
    threshold: float | None
    notes: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    against: tuple[Run, ...] = ()

    @property
    def title(self) -> str:
        """Which runs were compared with which."""
        bases = [run for run in self.runs if run not in self.against] if self.against else [self.runs[0]]
        others = self.against or self.runs[1:]
        return f"{', '.join(run.name for run in bases)} against {', '.join(run.name for run in others)}"

    @property
    def failed(self) -> tuple[Difference, ...]:
        """The lines that fail: surely worse by more than the threshold, or surely more errors."""
        return tuple(line for line in self.differences if line.verdict is Verdict.FAILED)

    @property
    def undecided(self) -> tuple[Difference, ...]:
        """The lines that should decide and cannot."""
        return tuple(line for line in self.differences if line.verdict is Verdict.UNDECIDED)

    @property
    def passed(self) -> bool:
        """Whether a pipeline with a threshold may go on."""
        return self.threshold is None or not (self.failed or self.undecided)

    def frame(self) -> DataFrame:
        """One row for each line."""
        return DataFrame(
            [
                {
                    "base": line.base_names,
                    "run": line.other_names,
                    "model": line.other.model,
                    "concurrency": line.other.concurrency,
                    "rate_per_s": line.other.load.rate_per_s,
                    "metric": line.metric,
                    "figure": line.figure,
                    "unit": line.unit,
                    "before": line.before,
                    "after": line.after,
                    "difference": line.difference,
                    "difference_ci_low": line.difference_interval.low,
                    "difference_ci_high": line.difference_interval.high,
                    "ratio": line.ratio,
                    "ratio_ci_low": line.ratio_interval.low,
                    "ratio_ci_high": line.ratio_interval.high,
                    "paired": line.estimate.paired if line.estimate else False,
                    "p_alone": line.p_alone,
                    "p": line.p,
                    "outcome": line.outcome,
                    "verdict": line.verdict or "",
                    "needed": line.needed,
                    "reason": line.reason,
                }
                for line in self.differences
            ]
        )


def compare_runs(
    runs: Sequence[Run],
    *,
    against: Sequence[Run] = (),
    threshold: float | None = None,
    on: str | None = None,
    count_connect: bool = False,
) -> Comparison:
    """The first run with each of the others; with ``against`` all of ``runs`` together with all of these together.

    ``threshold``: the largest worsening that passes, as a share of 1. ``on``: comma-separated names of the lines that
    decide. Raises ``InputError`` when there is nothing to compare, and for an unknown name in ``on``.
    """
    if not runs or len(runs) + len(against) < 2:
        raise InputError("compare needs two runs or more: the one to compare with first, then the others")
    if on is not None and threshold is None:
        raise InputError("--on: without --threshold no line decides anything; add one, for example --threshold 5%")
    named = named_apart([*runs, *against])
    runs, against = named[: len(runs)], named[len(runs) :]
    made = [groups([run], count_connect=count_connect) for run in runs]
    opposite = [groups([run], count_connect=count_connect) for run in against]
    found: list[Difference] = []
    families: list[int] = []
    notes: list[str] = []
    for bases, others in [(made, opposite)] if against else [(made[:1], [other]) for other in made[1:]]:
        notes.append(ONE_RUN if len(bases) == len(others) == 1 else _runs_note(len(bases), len(others)))
        for sides in _matched(bases, others, notes):
            of_stage = list(lines(*sides, notes))
            families += [families[-1] + 1 if families else 0] * len(of_stage)
            found += of_stage
            notes.extend(note for base in sides[0][:1] for other in sides[1] for note in unlike(base, other))
    verdicts = [
        judged(line, p, threshold, deciding)
        for line, p, deciding in zip(found, _corrected(found, families), decides(on, found), strict=True)
    ]
    everything = tuple(group for of_run in (*made, *opposite) for group in of_run)
    return Comparison(
        (*runs, *against),
        tuple(despite_failures(verdicts)),
        threshold,
        tuple(dict.fromkeys(notes)),
        everything,
        tuple(against),
    )


def _corrected(found: Sequence[Difference], families: Sequence[int]) -> list[float]:
    if any(line.by_runs for line in found):
        return holm([line.p_alone for line in found])
    return jointly([line.estimate.chance if line.estimate else NO_CHANCE for line in found], families)


def _runs_note(before: int, after: int) -> str:
    freedom = before + after - 2
    return (
        f"The run is the unit ({before} and {after}), so the spread from run to run is in the intervals: Student's t "
        f"with {freedom} degree{'s' if freedom > 1 else ''} of freedom, {student_t(freedom):.3g} standard errors to "
        "each side (2 with many runs). p is corrected for all lines (Holm)."
    )


def _matched(
    bases: Sequence[Sequence[Group]], others: Sequence[Sequence[Group]], notes: list[str]
) -> Iterator[tuple[_Side, _Side]]:
    everything = [*bases, *others]
    models = [{group.model for group in of_run} for of_run in everything]
    keyed = [_keyed(of_run, all(each == models[0] for each in models)) for of_run in everything]
    common = [key for key in keyed[0] if all(key in keys for keys in keyed)]
    if not common:
        where = " and ".join(f"{_loads(of_run)} in {of_run[0].run.name}" for of_run in everything if of_run)
        raise InputError(
            f"the runs have no stage in common: {where}. Run all of them with the same --llm-sweep or --llm-rate."
        )
    for of_run, keys in zip(everything, keyed, strict=True):
        alone = [keys[key] for key in keys if key not in common]
        if alone:
            notes.append(f"{of_run[0].run.name} alone has {_loads(alone)}; it is left out.")
    for key in common:
        matched = [keys[key] for keys in keyed]
        yield tuple(matched[: len(bases)]), tuple(matched[len(bases) :])


def _keyed(found: Sequence[Group], by_model: bool) -> dict[_Key, Group]:
    keyed: dict[_Key, Group] = {}
    for group in found:
        model = group.model if by_model else ""
        again = sum(1 for key in keyed if key[:2] == (model, group.load))
        keyed[model, group.load, again] = group
    return keyed


def _loads(found: Sequence[Group]) -> str:
    return loads_in_words(group.load for group in found) or "an unknown load"
