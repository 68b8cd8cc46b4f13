"""Figures of a load level: all stages at this level combined and evaluated like a single stage.

The load search uses this module after every stage, and a report uses it for the finished search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_reports.errors import InputError
from llm_reports.metrics.groups import Group, groups
from llm_reports.metrics.steadiness import UNKNOWN, steadiness_by_stage
from llm_reports.run import LOAD_SEARCH_KEY, Run
from llm_reports.sections.numbers import shown
from llm_reports.slo.evidence import least_requests
from llm_reports.slo.gate import ALL_STAGES, BEST_STAGE, Gate, Judgement, gate, judge
from llm_reports.slo.objectives import ERRORS, FAILURES_ALLOWED, Objectives, parse_objectives
from llm_reports.slo.stage_doubts import CLIENT_WAS_THE_LIMIT
from llm_users.record import COL, STEADY, UNSTEADY
from llm_users.verdict import Verdict, worst

_HEALTHS = ("", "ok", "strained", *CLIENT_WAS_THE_LIMIT)


@dataclass(frozen=True)
class LevelFigures:
    """One load level. ``judgements`` contains one per objective, for the model with the worst result."""

    level: float
    stages: tuple[int, ...]
    requests: int
    failed: int
    judgements: tuple[Judgement, ...]
    tokens_per_s: float
    unsteady: bool = False
    """Whether the queue grew in at least half of the stages: figures would be worse in longer stages."""

    @property
    def fails_too_often(self) -> bool:
        """Whether more requests fail than are allowed without an objective for errors."""
        if any(judgement.objective.name == ERRORS for judgement in self.judgements):
            return False
        return self.requests > 0 and self.failed > FAILURES_ALLOWED * self.requests

    @property
    def verdict(self) -> Verdict:
        """The verdict on all objectives together."""
        if self.fails_too_often or self.unsteady or not self._known:
            return Verdict.FAILED
        return worst(judgement.verdict for judgement in self.judgements)

    @property
    def holds(self) -> bool:
        """Whether the figures themselves are within all limits."""
        return not self.fails_too_often and not self.unsteady and self._within

    @property
    def margin(self) -> float | None:
        """The figure closest to its limit as a share of the limit: below 1 is within the limit. None when unknown."""
        if self.fails_too_often or self.unsteady or not self._known:
            return None
        shares = [_share_of_limit(judgement) for judgement in self.judgements]
        return max(shares) or None

    @property
    def reason(self) -> str:
        """The reason why the level passed or did not pass."""
        if self.fails_too_often:
            return (
                f"{self.failed} of {self.requests} requests failed, more than {shown(FAILURES_ALLOWED, '')}; "
                "to allow more, add the objective errors<SHARE"
            )
        if self.unsteady:
            figures = "within" if self._within else "beyond"
            return (
                f"the queue grew through the stage, so a longer stage would be slower; in this stage, the figures are "
                f"{figures} the limits"
            )
        reasons = [judgement.reason for judgement in self.judgements if judgement.verdict == self.verdict]
        return "; ".join(dict.fromkeys(reasons))

    def could_decide(self, stages: int) -> bool:
        """Return whether this number of stages would have enough independent requests for the undecided objectives."""
        return all(
            _independent(judgement) * stages / len(self.stages) >= least_requests(judgement.objective)
            for judgement in self.judgements
            if judgement.verdict is Verdict.UNDECIDED
        )

    @property
    def _within(self) -> bool:
        return all(judgement.objective.holds(judgement.estimate) for judgement in self.judgements)

    @property
    def _known(self) -> bool:
        return all(judgement.n for judgement in self.judgements)


def level_figures(run: Run, level: float, stages: Sequence[int], objectives: Objectives) -> LevelFigures:
    """Return the figures of all stages of one level combined."""
    of_level = level_groups(run, [stages])
    measured = run.stages[run.stages[COL.stage].isin(stages) & (run.stages[COL.measure_s] > 0)]
    seconds = float(measured[COL.measure_s].sum())
    judged = [[judge(group, objective) for group in of_level] for objective in objectives.all]
    return LevelFigures(
        level=level,
        stages=tuple(stages),
        requests=sum(group.counts.measured for group in of_level),
        failed=sum(group.counts.failed for group in of_level),
        judgements=tuple(_worst_of(judgements) for judgements in judged if judgements),
        tokens_per_s=float(measured[COL.window_tokens].sum()) / seconds if seconds else math.nan,
        unsteady=any(group.steadiness == UNSTEADY for group in of_level),
    )


@dataclass(frozen=True)
class Search:
    """A finished load search: the result from the manifest, and the figures of its levels from the rows.

    ``counted``: per level, whether it counts as passed or failed, and whether its intervals decided this.
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
        """Return the verdict on a level; for an undecided one, also whether its figures are within the limits."""
        verdict, decided = self.counted[level.level]
        if not decided:
            return f"undecided ({'within' if verdict is Verdict.PASSED else 'beyond'} limits)"
        if verdict is Verdict.FAILED and level.unsteady:
            return "failed (queue grew)"
        return verdict

    def mark(self, stage: int | None) -> str:
        """Return the role of a stage in the result: ``limit``, ``fails`` or ""."""
        level = next((figures.level for figures in self.levels if stage in figures.stages), None)
        if level is None:
            return ""
        return {self.found: "limit", self.fails: "fails"}.get(level, "")


def search_of(run: Run) -> Search | None:
    """Return the load search of a run; None if the run was not a load search, or its manifest does not contain it."""
    result = run.manifest.get(LOAD_SEARCH_KEY)
    if not isinstance(result, Mapping):
        return None
    try:
        objectives = parse_objectives(str(result["objectives"]))
        stages_by_level = _stages_by_level(run)
        found, fails = (None if result[name] is None else float(result[name]) for name in ("found", "fails"))
        return Search(
            objectives,
            str(result["unit"]),
            str(result["conclusion"]),
            tuple(str(text) for text in result["reservations"]),
            found,
            fails,
            tuple(level_figures(run, level, stages, objectives) for level, stages in stages_by_level.items()),
            {
                float(point["level"]): (Verdict.PASSED if point["passed"] else Verdict.FAILED, bool(point["decided"]))
                for point in result["points"]
            },
        )
    except (InputError, KeyError, TypeError, ValueError):
        return None


def judged_groups(all_groups: Sequence[Group]) -> list[Group]:
    """Return the groups that objectives judge: for a load search one per level, by load; otherwise one per stage."""
    judged: list[Group] = []
    runs = list(dict.fromkeys(group.run for group in all_groups))
    for run in runs:
        of_run = [group for group in all_groups if group.run is run]
        levels = _stages_by_level(run)
        if levels:
            of_run = level_groups(run, levels.values(), count_connect=of_run[0].count_connect)
            of_run.sort(key=lambda group: group.load.order)
        judged += of_run
    return judged


def gate_of_runs(all_groups: Sequence[Group], objectives: Objectives, stage: str = ALL_STAGES) -> Gate:
    """Return the SLO gate of runs. The levels of a load search are judged as the search judges them.

    Some levels of a search always fail, so the gate of searches requires the best level, not all of them. Raises
    ``InputError`` like ``gate``.
    """
    if stage.isdecimal():
        return gate(all_groups, objectives, stage)
    only_searches = bool(all_groups) and all(_stages_by_level(group.run) for group in all_groups)
    return gate(judged_groups(all_groups), objectives, BEST_STAGE if only_searches else stage)


def level_groups(run: Run, levels: Iterable[Sequence[int]], *, count_connect: bool = False) -> list[Group]:
    """Return the groups of levels, each a list of stages that are combined into one stage.

    Stages limited by the client are excluded if there are other stages. The combined stage is unsteady if at least half
    of the stages with a known steadiness are.
    """
    by_stage = steadiness_by_stage(run)
    health_of = {
        int(stage): str(health)
        for stage, health in run.stages[[COL.stage, COL.health]].dropna(subset=[COL.stage]).itertuples(index=False)
    }
    level_of: dict[int, int] = {}  # the first stage of the level by stage
    health: dict[int, str] = {}
    steadiness: dict[int, str] = {}
    for stages in levels:
        usable = [stage for stage in stages if health_of.get(stage) not in CLIENT_WAS_THE_LIMIT] or list(stages)
        first = usable[0]
        level_of |= dict.fromkeys(usable, first)
        of_usable = (health_of.get(stage, "") for stage in usable)
        health[first] = max(of_usable, key=lambda name: _HEALTHS.index(name) if name in _HEALTHS else 0)
        known = [state for stage in usable if (state := by_stage.get(stage, UNKNOWN)) in (STEADY, UNSTEADY)]
        unsteady = known.count(UNSTEADY)
        steadiness[first] = UNKNOWN if not known else UNSTEADY if 2 * unsteady >= len(known) else STEADY
    rows = run.requests[run.requests[COL.stage].isin(level_of)]
    lines = run.stages[run.stages[COL.stage].isin(level_of)]
    level = lines[COL.stage].map(level_of)
    seconds = lines[COL.measure_s].groupby(level.to_numpy()).sum()
    as_one = lines[(lines[COL.stage] == level).to_numpy(bool, na_value=False)]
    as_one = as_one.assign(
        health=as_one[COL.stage].map(health).astype(object),
        measure_s=as_one[COL.stage].map(seconds).astype("float64"),
    )
    combined = dataclasses.replace(
        run,
        requests=rows.assign(stage=rows[COL.stage].map(level_of).astype(rows[COL.stage].dtype)),
        stages=as_one,
        manifest={name: value for name, value in run.manifest.items() if name != LOAD_SEARCH_KEY},
    )
    # The rows of several stages together show no steadiness, because the stages have pauses between them.
    return [
        dataclasses.replace(group, steadiness=steadiness.get(group.stage or 0, UNKNOWN))
        for group in groups([combined], count_connect=count_connect)
    ]


def _stages_by_level(run: Run) -> dict[float, list[int]]:
    """Return the stages of each level of a load search; empty for other runs, and if the manifest is damaged."""
    result = run.manifest.get(LOAD_SEARCH_KEY)
    try:
        return {float(point["level"]): list(map(int, point["stages"])) for point in result["points"]} if result else {}
    except (KeyError, TypeError, ValueError):
        return {}


def _worst_of(judgements: Sequence[Judgement]) -> Judgement:
    verdict = worst(judgement.verdict for judgement in judgements)
    return max((judgement for judgement in judgements if judgement.verdict == verdict), key=_share_of_limit)


def _independent(judgement: Judgement) -> float:
    return judgement.n if math.isnan(judgement.effective) else judgement.effective


def _share_of_limit(judgement: Judgement) -> float:
    value, limit = judgement.estimate, judgement.objective.limit
    if math.isnan(value):
        return 0.0
    if judgement.objective.kind.less_is_better:
        return value / limit
    return limit / value if value else math.inf
