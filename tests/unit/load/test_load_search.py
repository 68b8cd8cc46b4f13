"""The search for a limit against curves whose limit is known: how near, how many stages, and that it always ends."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_users.load.coordinator.load_search import FAILED, MOST_REPEATS, PASSED, UNDECIDED, Judgement, LoadSearch, Range

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
        self.levels: dict[int, float] = {}
        self._figure = figure
        self._unsure = unsure
        self.finder = LoadSearch(where, most, self._judge)

    def run(self) -> Search:
        while (level := self.finder.next()) is not None:
            stage = len(self.levels) + 1
            self.levels[stage] = level
            self.finder.ended(level, stage)
            assert len(self.levels) <= 100, "it goes round"
        return self

    def _judge(self, stages: Sequence[int]) -> Judgement:
        values = [self._figure(self.levels[stage]) for stage in stages]
        value = math.fsum(values) / len(values)
        if abs(math.log(value)) < self._unsure / math.sqrt(len(stages)):
            return Judgement(UNDECIDED, value < 1, margin=value)
        return Judgement(PASSED if value < 1 else FAILED, value < 1, margin=value)


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
        best, above = search.finder.best, search.finder.above
        assert len(search.levels) <= 12
        assert search.finder.closed, (knee, search.levels)
        assert best is not None
        assert above is not None
        assert best.level < knee <= above.level
        # Whole users cannot come nearer than the next one.
        assert best.level >= knee / 1.05 or (whole and best.level == math.ceil(knee) - 1), (knee, search.levels)


def test_figures_save_stages() -> None:
    """A curve that is a power of the load tells where its limit is; a step tells nothing."""
    told = Search(users(), lambda load: load / 700).run()
    blind = Search(users(), lambda load: 0.3 if load < 700 else 30.0).run()
    assert len(told.levels) < len(blind.levels)


def test_the_lowest_fails() -> None:
    search = Search(users(4, 64), lambda load: load / 2).run()
    assert search.levels == {1: 4}
    assert search.finder.best is None
    assert search.finder.above is not None


def test_the_highest_passes() -> None:
    search = Search(users(1, 50), lambda load: load / 1000).run()
    assert list(search.levels.values()) == [1, 4, 16, 50]
    assert search.finder.above is None
    assert search.finder.best is not None
    assert search.finder.best.level == 50


def test_one_level_is_a_range_too() -> None:
    assert Search(users(8, 8), lambda load: load / 10).run().levels == {1: 8}


def test_edges_that_are_not_decided_are_repeated_and_then_count_by_their_figures() -> None:
    search = Search(users(1, 64), lambda load: load / 20.5, most=40, unsure=0.1).run()
    finder = search.finder
    assert finder.best is not None
    assert finder.above is not None
    assert (finder.best.level, finder.above.level) == (20, 21)
    assert not finder.best.decided
    assert len(finder.best.stages) == len(finder.above.stages) == MOST_REPEATS
    assert list(search.levels.values())[-4:] == [20, 21, 20, 21] or len(search.levels) < 40


def test_what_more_rows_cannot_decide_is_not_repeated() -> None:
    tried: list[float] = []

    def judge(stages: Sequence[int]) -> Judgement:
        load = tried[stages[-1] - 1]
        return Judgement(UNDECIDED, load < 10, margin=load / 10, more_helps=False)

    finder = LoadSearch(users(), 40, judge)
    while (level := finder.next()) is not None:
        tried.append(level)
        finder.ended(level, len(tried))
    assert len(tried) == len(set(tried))
    assert finder.best is not None
    assert finder.best.level == 9


def test_a_level_that_changes_its_mind_moves_the_bracket() -> None:
    """The first stage at 20 passes by chance; together with the second one it fails."""
    values = iter([0.9, 1.2])
    seen: dict[float, float] = {}

    def figure(load: float) -> float:
        if load == 20:
            return next(values, 1.2)
        return seen.setdefault(load, load / 19.5)

    search = Search(users(16, 40), figure, most=20, unsure=0.12).run()
    assert search.finder.best is not None
    assert search.finder.best.level == 19
    assert search.finder.closed


def test_what_passes_above_a_failure_is_no_load_to_promise() -> None:
    """Good up to 10, bad up to 40, good again up to 200."""
    search = Search(users(), lambda load: 0.5 if load <= 10 or 40 < load <= 200 else 2.0).run()
    assert search.finder.best is not None
    assert search.finder.best.level == 10


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
    finder = search.finder
    assert len(search.levels) <= most
    assert finder.stages == len(search.levels)
    assert all(1 <= level <= 1024 for level in search.levels.values())
    assert all(len(point.stages) <= MOST_REPEATS for point in finder.points)
    if finder.best is not None and finder.above is not None:
        assert finder.best.level < finder.above.level
    assert finder.closed or len(search.levels) == most


def test_noise_costs_nearness_not_stages() -> None:
    luck = random.Random(4)
    found = []
    for _ in range(100):
        noisy = Search(
            users(),
            lambda load: CURVES["flat, then proportional"](load, 100) * math.exp(luck.gauss(0, 0.02)),
            unsure=0.04,
        ).run()
        assert len(noisy.levels) <= 12
        assert noisy.finder.best is not None
        found.append(noisy.finder.best.level)
    assert sum(abs(level / 100 - 1) <= 0.07 for level in found) >= 80, sorted(found)
