"""A level of load in figures: all stages that were run at it taken together, judged like any other stage.

What the search for the highest load asks after every stage, and what a report makes of the finished search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_reports.errors import InputError
from llm_reports.metrics.groups import groups
from llm_reports.metrics.steadiness import steadiness_by_stage
from llm_reports.run import Run
from llm_reports.slo.gate import Judgement, judge, least_requests, shown
from llm_reports.slo.objectives import ERRORS, FAILURES_ALLOWED, Objectives, parse_objectives
from llm_reports.slo.unfit_stages import CLIENT_WAS_THE_LIMIT
from llm_users.record import STEADY, UNSTEADY
from llm_users.verdict import Verdict, worst

_HEALTHS = ("", "ok", "strained", *CLIENT_WAS_THE_LIMIT)


@dataclass(frozen=True)
class LevelFigures:
    """One level. ``judgements`` has one for each objective, of the model that is worst at it."""

    level: float
    stages: tuple[int, ...]
    requests: int
    failed: int
    judgements: tuple[Judgement, ...]
    tokens_per_s: float
    unsteady: bool = False
    """Whether the queue grew in at least half of the stages: their figures would be worse in longer ones."""

    @property
    def fails_too_often(self) -> bool:
        """Whether more requests fail than is let pass unasked."""
        if any(each.objective.name == ERRORS for each in self.judgements):
            return False
        return self.requests > 0 and self.failed > FAILURES_ALLOWED * self.requests

    @property
    def verdict(self) -> Verdict:
        """The verdict on all objectives together."""
        if self.fails_too_often or self.unsteady or not self._known:
            return Verdict.FAILED
        return worst(each.verdict for each in self.judgements)

    @property
    def holds(self) -> bool:
        """Whether the figures themselves keep to all limits."""
        return (
            not self.fails_too_often
            and not self.unsteady
            and all(each.objective.holds(each.estimate) for each in self.judgements)
        )

    @property
    def margin(self) -> float | None:
        """The figure nearest to its limit as a share of it: below 1 is on the right side. None when nothing says so."""
        if self.fails_too_often or self.unsteady or not self._known:
            return None
        shares = [_share_of_limit(each) for each in self.judgements]
        return max(shares) or None

    @property
    def reason(self) -> str:
        """Why it did not pass, or by what it did."""
        if self.fails_too_often:
            return (
                f"{self.failed} of {self.requests} requests failed, more than {shown(FAILURES_ALLOWED, '')}; "
                "errors<SHARE among the objectives allows more"
            )
        if self.unsteady:
            return "unsteady: the queue grew through the stage, so a longer one would be slower"
        wanted = self.verdict
        return "; ".join(dict.fromkeys(each.reason for each in self.judgements if each.verdict == wanted))

    def could_decide(self, stages: int) -> bool:
        """Whether so many stages in place of these would have requests enough to decide anything."""
        return all(
            each.n * stages / len(self.stages) >= least_requests(each.objective)
            for each in self.judgements
            if each.verdict is Verdict.UNDECIDED
        )

    @property
    def _known(self) -> bool:
        return all(each.n for each in self.judgements)


def level_figures(run: Run, level: float, stages: Sequence[int], objectives: Objectives) -> LevelFigures:
    """The stages of one level as one."""
    found = groups([_as_one_stage(run, stages)])
    judged = {each: [judge(group, each) for group in found] for each in objectives.all}
    return LevelFigures(
        level=level,
        stages=tuple(stages),
        requests=sum(group.counts.measured for group in found),
        failed=sum(group.counts.failed for group in found),
        judgements=tuple(_worst_of(each) for each in judged.values() if each),
        tokens_per_s=_tokens_per_s(run, stages),
        unsteady=any(group.steadiness == UNSTEADY for group in found),
    )


@dataclass(frozen=True)
class Search:
    """A finished search as the manifest has it, with its levels as the rows have them.

    ``counted``: per level, passed or failed, as which it counts, and whether its intervals decided that.
    """

    objectives: Objectives
    unit: str
    conclusion: str
    reservations: tuple[str, ...]
    found: float | None
    fails: float | None
    levels: tuple[LevelFigures, ...]
    counted: Mapping[float, tuple[Verdict, bool]]

    def word(self, level: LevelFigures) -> str:
        """The verdict on a level: by its intervals, or in brackets by its figures alone."""
        verdict, decided = self.counted[level.level]
        return verdict if decided else f"({verdict})"

    def mark(self, stage: int | None) -> str:
        """What a stage is to the result: ``limit`` or ``fails``, else ""."""
        level = next((each.level for each in self.levels if stage in each.stages), None)
        if level is None:
            return ""
        return {self.found: "limit", self.fails: "fails"}.get(level, "")


def search_of(run: Run) -> Search | None:
    """The search that a run was; None when it was none, or its manifest does not say."""
    found = run.manifest.get("find")
    if not isinstance(found, Mapping):
        return None
    try:
        objectives = parse_objectives(str(found["objectives"]))
        points = [(float(each["level"]), [int(stage) for stage in each["stages"]], each) for each in found["points"]]
        return Search(
            objectives,
            str(found["unit"]),
            str(found["conclusion"]),
            tuple(str(each) for each in found["reservations"]),
            _number(found["found"]),
            _number(found["fails"]),
            tuple(level_figures(run, level, stages, objectives) for level, stages, _ in points),
            {
                level: (Verdict.PASSED if each["passed"] else Verdict.FAILED, bool(each["decided"]))
                for level, _, each in points
            },
        )
    except (InputError, KeyError, TypeError, ValueError):
        return None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _as_one_stage(run: Run, stages: Sequence[int]) -> Run:
    """The run with these stages as its only one. Where the client was the limit they are left out, if others are.

    It is unsteady when at least half of them are.
    """
    about = run.stages[run.stages["stage"].isin(stages)]
    healths = {int(stage): str(health) for stage, health in zip(about["stage"], about["health"], strict=True)}
    usable = [stage for stage in stages if healths.get(stage) not in CLIENT_WAS_THE_LIMIT] or list(stages)
    rows = run.requests[run.requests["stage"].isin(usable)]
    of_usable = (healths.get(stage, "") for stage in usable)
    health = max(of_usable, key=lambda name: _HEALTHS.index(name) if name in _HEALTHS else 0)
    states = steadiness_by_stage(dataclasses.replace(run, requests=rows))
    unsteady = sum(states.get(stage) == UNSTEADY for stage in usable)
    steadiness = UNSTEADY if 2 * unsteady >= len(usable) else STEADY
    as_one = about[about["stage"].isin(usable)].head(1)
    as_one = as_one.assign(stage=usable[0], health=health, steadiness=steadiness)
    return dataclasses.replace(run, requests=rows.assign(stage=usable[0]), stages=as_one)


def _worst_of(judgements: Sequence[Judgement]) -> Judgement:
    verdict = worst(each.verdict for each in judgements)
    return max((each for each in judgements if each.verdict == verdict), key=_share_of_limit)


def _share_of_limit(judgement: Judgement) -> float:
    value, limit = judgement.estimate, judgement.objective.limit
    if math.isnan(value):
        return 0.0
    if judgement.objective.kind.less_is_better:
        return value / limit
    return limit / value if value else math.inf


def _tokens_per_s(run: Run, stages: Sequence[int]) -> float:
    about = run.stages[run.stages["stage"].isin(stages) & (run.stages["measure_s"] > 0)]
    seconds = float(about["measure_s"].sum())
    return float(about["window_tokens"].sum()) / seconds if seconds else math.nan
