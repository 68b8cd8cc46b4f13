"""Comparison of runs: per stage and figure the difference, the ratio, their intervals, and the significance.

The first run is compared with each of the others, or a group of runs with another group (``against``). Stages are
matched by load (and by model, when all runs have the same models). ``stats.block_resampling`` has the method for single
runs, ``estimates`` also the method for several runs per side; p-values are corrected over the whole table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pandas import DataFrame

from llm_reports.compare.difference import ERROR_RATIO, Difference, decides, despite_failures, judged
from llm_reports.compare.estimates import holm
from llm_reports.compare.figures import lines
from llm_reports.compare.pairing import at_once
from llm_reports.errors import InputError
from llm_reports.metrics.distinctions import ALIKE
from llm_reports.metrics.groups import Group, groups
from llm_reports.metrics.stage_load import loads_in_words
from llm_reports.run import Run, named_apart
from llm_reports.sections.table_notes import listed
from llm_reports.stats.block_resampling import jointly
from llm_reports.stats.intervals import student_t
from llm_users.record import COL, StageLoad
from llm_users.verdict import Verdict

ONE_RUN = (
    "Both sides are single runs: the intervals do not include the variation between runs (another machine, another "
    "hour). Before you trust a small difference, measure at least three runs per side in alternation and compare them "
    "with --against."
)
LEADERBOARD_HINT = (
    "To put files of LLMPerf beside runs, use llm-report leaderboard INPUT...; it names the conditions that differ."
)
_ENOUGH_ROUNDS = 24
_Key = tuple[str, StageLoad, int]
_Side = tuple[Group, ...]


@dataclass(frozen=True)
class Comparison:
    """All lines, and all stages of all runs. ``against`` contains the runs of the other side of a group comparison."""

    runs: tuple[Run, ...]
    differences: tuple[Difference, ...]
    threshold: float | None
    notes: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    against: tuple[Run, ...] = ()

    @property
    def title(self) -> str:
        """The title: the names of the runs on both sides."""
        bases = [run for run in self.runs if run not in self.against] if self.against else [self.runs[0]]
        others = self.against or self.runs[1:]
        return f"{', '.join(run.name for run in bases)} against {', '.join(run.name for run in others)}"

    @property
    def failed(self) -> tuple[Difference, ...]:
        """The failed lines: significantly worse by more than the threshold, or significantly more errors."""
        return tuple(line for line in self.differences if line.verdict is Verdict.FAILED)

    @property
    def undecided(self) -> tuple[Difference, ...]:
        """The deciding lines whose verdict is undecided."""
        return tuple(line for line in self.differences if line.verdict is Verdict.UNDECIDED)

    @property
    def passed(self) -> bool:
        """Whether all deciding lines passed and none failed; always true without a threshold."""
        return self.threshold is None or not (self.failed or self.undecided)

    def frame(self) -> DataFrame:
        """Return a DataFrame with one row per line."""
        return DataFrame(
            [
                {
                    "base": line.base_names,
                    "run": line.other_names,
                    COL.model: line.other.model,
                    COL.concurrency: line.other.concurrency,
                    COL.rate_per_s: line.other.load.rate_per_s,
                    **{name: getattr(line, name) for name in ("metric", "figure", "unit")},
                    **{name: getattr(line, name) for name in ("before", "after", "difference")},
                    "difference_ci_low": line.difference_interval.low,
                    "difference_ci_high": line.difference_interval.high,
                    "ratio": line.ratio,
                    "ratio_ci_low": line.ratio_interval.low,
                    "ratio_ci_high": line.ratio_interval.high,
                    "paired": line.estimate.paired,
                    "p_alone": line.estimate.chance.p,
                    "p": line.p,
                    "deciding": line.deciding,
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
    """Compare the first run with each of the others; with ``against``, compare all ``runs`` with all of ``against``.

    ``threshold``: the largest worsening that passes, as a share of 1. ``on``: comma-separated names of the lines that
    decide. Raises ``InputError`` when the runs do not have common stages, and for an unknown name in ``on``.
    """
    if not runs or len(runs) + len(against) < 2:
        raise InputError("compare needs two or more runs: first the baseline run, then the others")
    if on is not None and threshold is None:
        raise InputError("--on has no effect without --threshold; add a threshold, for example --threshold 5%")
    if empty := [run for run in (*runs, *against) if not run.measured and run.unmeasured_cause]:
        causes = dict.fromkeys(f"{run.source}: no request was measured. {run.unmeasured_cause}" for run in empty)
        raise InputError("; ".join(causes))
    named = named_apart([*runs, *against])
    runs, against = named[: len(runs)], named[len(runs) :]
    base_groups = [groups([run], count_connect=count_connect) for run in runs]
    against_groups = [groups([run], count_connect=count_connect) for run in against]
    differences: list[Difference] = []
    families: list[int] = []
    notes: list[str] = []
    if len({run.foreign for run in (*runs, *against)}) > 1:
        names = listed([run.name for run in (*runs, *against) if run.foreign])
        notes.append(f"Files of LLMPerf: {names}. {LEADERBOARD_HINT}")
    for bases, others in (
        [(base_groups, against_groups)] if against else [(base_groups[:1], [other]) for other in base_groups[1:]]
    ):
        notes.append(ONE_RUN if len(bases) == len(others) == 1 else _runs_note(len(bases), len(others)))
        for sides in _matched(bases, others, notes):
            stage_lines = list(lines(*sides, notes))
            families += [families[-1] + 1 if families else 0] * len(stage_lines)
            differences += stage_lines
            notes.extend(note for base in sides[0][:1] for other in sides[1] for note in _unlike(base, other))
    if any(line.by_runs for line in differences):
        corrected = holm([line.estimate.chance.p for line in differences])
    else:
        corrected = jointly([line.estimate.chance for line in differences], families)
    deciding = decides(on, differences)
    verdicts = [judged(line, p, threshold, own) for line, p, own in zip(differences, corrected, deciding, strict=True)]
    all_groups = tuple(group for run_groups in (*base_groups, *against_groups) for group in run_groups)
    return Comparison(
        (*runs, *against),
        tuple(despite_failures(verdicts)),
        threshold,
        tuple(dict.fromkeys(notes)),
        all_groups,
        tuple(against),
    )


def _runs_note(before: int, after: int) -> str:
    freedom = before + after - 2
    return (
        f"The run is the statistical unit ({before} and {after} runs), so the intervals include the variation between "
        f"runs: Student's t with {freedom} degree{'s' if freedom > 1 else ''} of freedom, {student_t(freedom):.3g} "
        "standard errors on each side (2 with many runs). p is corrected for all lines (Holm)."
    )


def _matched(
    bases: Sequence[Sequence[Group]], others: Sequence[Sequence[Group]], notes: list[str]
) -> Iterator[tuple[_Side, _Side]]:
    all_sides = [*bases, *others]
    models = [{group.model for group in run_groups} for run_groups in all_sides]
    keyed = [_keyed(run_groups, all(names == models[0] for names in models)) for run_groups in all_sides]
    common = [key for key in keyed[0] if all(key in keys for keys in keyed)]
    if not common:
        where = " and ".join(
            f"{_loads(run_groups)} in {run_groups[0].run.name}" for run_groups in all_sides if run_groups
        )
        foreign = any(run_groups[0].run.foreign for run_groups in all_sides if run_groups)
        hint = f" {LEADERBOARD_HINT}" if foreign else ""
        raise InputError(
            f"the runs have no stage in common: {where}. Run all of them with the same --llm-sweep or --llm-rate.{hint}"
        )
    for run_groups, keys in zip(all_sides, keyed, strict=True):
        unmatched = [keys[key] for key in keys if key not in common]
        if unmatched:
            notes.append(f"{_loads(unmatched)} of {run_groups[0].run.name} is not in all runs and is omitted.")
    for key in common:
        matched = [keys[key] for keys in keyed]
        yield tuple(matched[: len(bases)]), tuple(matched[len(bases) :])


def _keyed(run_groups: Sequence[Group], by_model: bool) -> dict[_Key, Group]:
    keyed: dict[_Key, Group] = {}
    occurrences: Counter[tuple[str, StageLoad]] = Counter()
    for group in run_groups:
        name = (group.model if by_model else "", group.load)
        keyed[*name, occurrences[name]] = group
        occurrences[name] += 1
    return keyed


def _loads(run_groups: Sequence[Group]) -> str:
    return loads_in_words(group.load for group in run_groups) or "an unknown load"


def _unlike(base: Group, other: Group) -> Iterator[str]:
    """Yield the reasons why two stages are hard to compare, as sentences."""
    level = base.load.at
    for name in (COL.input_tokens, COL.output_tokens):
        before, after = (float(group.ok[name].astype("float64").mean()) for group in (base, other))
        if before > 0 and abs(after / before - 1) > ALIKE:
            yield (
                f"Mean {name.replace('_', ' ')}{level}: {before:.0f} in {base.run.name}, {after:.0f} in "
                f"{other.run.name}. Different token counts alone change the times."
            )
    for group in (base, other):
        if group.health in ("strained", "disturbed"):
            yield f"The client of {group.run.name} was {group.health}{level}."
        counts = group.counts
        if counts.failed:
            throttled = f", {counts.throttled} of them throttled" if counts.throttled else ""
            yield (
                f"{counts.failed} of {counts.ended} requests of {group.run.name}{level} failed{throttled}. "
                f"Latencies include successful requests only; {ERROR_RATIO} counts the failed ones."
            )
        if not counts.ok:
            yield f"No request of {group.run.name}{level} succeeded, so there is no latency to compare."
    if base.load.is_open:
        yield (
            "The throughput of an open loop follows its schedule, so it does not affect the verdict unless --on "
            "names it."
        )
    rounds = min(len(base.measured), len(other.measured)) / at_once(base)
    unit = "request in flight" if base.load.is_open else "user"
    if rounds < _ENOUGH_ROUNDS:
        yield (
            f"Only {rounds:.0f} requests per {unit}{level}: time blocks are short compared with the correlation time "
            f"of the endpoint, so the intervals are widened. Measure at least {_ENOUGH_ROUNDS} requests per {unit}."
        )
