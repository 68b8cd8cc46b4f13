"""The search for a limit against curves whose limit is known: how near, how many stages, and that it always ends."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_users.load.coordinator.load_search import MOST_REPEATS, Judgement, LoadSearch, Range
from llm_users.verdict import Verdict

Curve = Callable[[float, float], float]

# (load, knee) -> the measured figure as a share of its limit; all cross 1 at the knee.
CURVES: dict[str, Curve] = {
    "proportional": lambda load, knee: load / knee,
    "flat, then proportional": lambda load, knee: 0.8 * max(1.0, load / (0.8 * knee)),
    "square": lambda load, knee: (load / knee) ** 2,
    "queue": lambda load, knee: 0.2 / (1 - 0.8 * load / knee) if load < 1.2 * knee else 1e3,
    "step": lambda load, knee: 0.3 if load < knee else 30.0,
    "exponential": lambda load, knee: math.exp(3 * (load - knee) / knee),
    "logarithm": lambda load, knee: math.log1p(load) / math.log1p(knee),
}


class Search:
    """A search whose stages give what a curve says."""

    def __init__(self, where: Range, figure: Callable[[float], float], most: int = 12, unsure: float = 0.0) -> None:
        self.loads: dict[int, float] = {}
        self._figure = figure
        self._unsure = unsure
        self.search = LoadSearch(where, most, self._judge)

    def run(self) -> Search:
        while (load := self.search.next()) is not None:
            stage = len(self.loads) + 1
            self.loads[stage] = load
            self.search.ended(load, stage)
            assert len(self.loads) <= 100, "it goes round"
        return self

    def _judge(self, stages: Sequence[int]) -> Judgement:
        values = [self._figure(self.loads[stage]) for stage in stages]
        value = math.fsum(values) / len(values)
        if abs(math.log(value)) < self._unsure / math.sqrt(len(stages)):
            return Judgement(Verdict.UNDECIDED, value < 1, margin=value)
        return Judgement(Verdict.PASSED if value < 1 else Verdict.FAILED, value < 1, margin=value)


def users(low: int = 1, high: int = 1024) -> Range:
    return Range(low, high, whole=True)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("whole", [True, False])
def test_every_curve_is_found_within_five_percent_in_twelve_stages(name: str, whole: bool) -> None:
    curve = CURVES[name]
    luck = random.Random(name)
    for _ in range(150):
        knee = math.exp(luck.uniform(math.log(1.2), math.log(900)))
        where = users() if whole else Range(1.0, 1000.0, whole=False)
        search = Search(where, lambda load, knee=knee: curve(load, knee)).run()  # type: ignore[misc]
        best, above = search.search.best, search.search.above
        assert len(search.loads) <= 12
        assert search.search.closed, (knee, search.loads)
        assert best is not None
        assert above is not None
        assert best.load < knee <= above.load
        # Whole users cannot come nearer than the next one.
        assert best.load >= knee / 1.05 or (whole and best.load == math.ceil(knee) - 1), (knee, search.loads)


def test_figures_save_stages() -> None:
    """A curve that is a power of the load tells where its limit is; a step tells nothing."""
    told = Search(users(), lambda load: load / 700).run()
    blind = Search(users(), lambda load: 0.3 if load < 700 else 30.0).run()
    assert len(told.loads) < len(blind.loads)


def test_the_lowest_fails() -> None:
    search = Search(users(4, 64), lambda load: load / 2).run()
    assert search.loads == {1: 4}
    assert search.search.best is None
    assert search.search.above is not None


def test_the_highest_passes() -> None:
    search = Search(users(1, 50), lambda load: load / 1000).run()
    assert list(search.loads.values()) == [1, 4, 16, 50]
    assert search.search.above is None
    assert search.search.best is not None
    assert search.search.best.load == 50


def test_one_level_is_a_range_too() -> None:
    assert Search(users(8, 8), lambda load: load / 10).run().loads == {1: 8}


def test_an_undecided_load_is_repeated_and_then_a_lower_load_is_confirmed() -> None:
    """20 stays undecided after all repetitions, so it is not the result; 18 is decided."""
    search = Search(users(1, 64), lambda load: load / 20.5, most=40, unsure=0.1).run()
    bracket = search.search
    assert bracket.best is not None
    assert bracket.above is not None
    assert bracket.confirmed is not None
    assert (bracket.confirmed.load, bracket.best.load, bracket.above.load) == (18, 20, 21)
    assert [point.load for point in bracket.undecided] == [20]
    assert len(bracket.best.stages) == len(bracket.above.stages) == MOST_REPEATS


@pytest.mark.parametrize("most", [1, 2, 3, 6, 12])
def test_without_a_decided_stage_nothing_is_confirmed(most: int) -> None:
    bracket = Search(users(), lambda load: load / 100, most=most, unsure=100).run().search
    assert bracket.confirmed is None
    assert bracket.best is not None
    assert bracket.undecided


def test_stages_are_left_for_the_confirmation() -> None:
    """Everything above 70 % of the limit is undecided, so the interpolation must end early enough."""

    def judge(stages: Sequence[int]) -> Judgement:
        share = tried[stages[-1] - 1] / 500
        verdict = Verdict.PASSED if share < 0.7 else Verdict.FAILED if share > 1 else Verdict.UNDECIDED
        return Judgement(verdict, share < 1, margin=0.3 if share < 1 else 30.0, more_helps=False)

    tried: list[float] = []
    search = LoadSearch(users(), 12, judge)
    while (load := search.next()) is not None:
        tried.append(load)
        search.ended(load, len(tried))
    assert search.confirmed is not None
    assert search.confirmed.load >= 0.6 * 500, tried
    assert len(tried) <= 12


def test_what_more_rows_cannot_decide_is_not_repeated() -> None:
    tried: list[float] = []

    def judge(stages: Sequence[int]) -> Judgement:
        load = tried[stages[-1] - 1]
        return Judgement(Verdict.UNDECIDED, load < 10, margin=load / 10, more_helps=False)

    search = LoadSearch(users(), 40, judge)
    while (load := search.next()) is not None:
        tried.append(load)
        search.ended(load, len(tried))
    assert len(tried) == len(set(tried))
    assert search.best is not None
    assert search.best.load == 9
    assert search.confirmed is None


def test_a_level_that_changes_its_mind_moves_the_bracket() -> None:
    """The first stage at 20 passes by chance; together with the second one it fails."""
    values = iter([0.9, 1.2])
    seen: dict[float, float] = {}

    def figure(load: float) -> float:
        if load == 20:
            return next(values, 1.2)
        return seen.setdefault(load, load / 19.5)

    search = Search(users(16, 40), figure, most=20, unsure=0.12).run()
    assert search.search.best is not None
    assert search.search.best.load == 19
    assert search.search.closed


def test_what_passes_above_a_failure_is_no_load_to_promise() -> None:
    """Good up to 10, bad up to 40, good again up to 200."""
    search = Search(users(), lambda load: 0.5 if load <= 10 or 40 < load <= 200 else 2.0).run()
    assert search.search.best is not None
    assert search.search.best.load == 10


@given(
    st.dictionaries(st.integers(1, 300), st.floats(0.01, 100), max_size=60),
    st.floats(0.0, 1.0),
    st.integers(1, 30),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_answers_whatever_end_the_search(noise: dict[int, float], unsure: float, most: int, whole: bool) -> None:
    count = iter(range(10_000))

    def figure(load: float) -> float:
        return load / 60 * noise.get(next(count), 1.0)

    search = Search(Range(1, 1024, whole=whole), figure, most=most, unsure=unsure).run()
    bracket = search.search
    assert len(search.loads) <= most
    assert bracket.stages == len(search.loads)
    assert all(1 <= load <= 1024 for load in search.loads.values())
    assert all(len(point.stages) <= MOST_REPEATS for point in bracket.points)
    if bracket.best is not None and bracket.above is not None:
        assert bracket.best.load < bracket.above.load
    assert bracket.closed or len(search.loads) == most


def test_noise_costs_nearness_not_stages() -> None:
    luck = random.Random(4)
    found = []
    for _ in range(100):
        noisy = Search(
            users(),
            lambda load: CURVES["flat, then proportional"](load, 100) * math.exp(luck.gauss(0, 0.02)),
            unsure=0.04,
        ).run()
        assert len(noisy.loads) <= 12
        assert noisy.search.best is not None
        found.append(noisy.search.best.load)
    assert sum(abs(load / 100 - 1) <= 0.07 for load in found) >= 80, sorted(found)
