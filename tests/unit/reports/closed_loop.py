"""Runs of the simulated endpoint in virtual time: its own pace, a closed loop of users, and a neighbour.

The schedule is the simulator's (``Spec``, ``Pace``: token k leaves a gap after token k - 1, which grows with the number
of active answers), without sockets and without waiting, so that thousands of runs take minutes. A neighbour with users
of its own comes and goes, so that requests of one time are slow or fast together, as on a shared server.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame, Series

from llm_reports.input.rows import typed_frame
from llm_reports.run import Run
from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS
from llm_users.simulator.engine import Pace
from llm_users.simulator.spec import Spec

FAILING = 0.02
_STARTED_AT = 1_700_000_000.0
_TOKENS = (24.0, 6.0)  # mean and deviation: a schedule of tokens, so short answers keep it quick


@dataclass(frozen=True)
class Setting:
    """What all runs of one process have in common. ``neighbours`` are users of somebody else on the same endpoint."""

    spec: Spec
    levels: tuple[int, ...]
    requests: int
    neighbours: int

    def __str__(self) -> str:
        levels = ",".join(map(str, self.levels))
        return f"{self.spec}; users {levels}; {self.requests} requests per stage; {self.neighbours} neighbours"


@dataclass
class _Asked:
    """One request on its way."""

    number: int
    pace: Pace
    tokens: int
    started_s: float
    own: bool
    measured: bool
    first_s: float = 0.0
    sent: int = 0


def run_of(setting: Setting, seed: int) -> Run:
    """A run with these settings; another seed is another run of the same process."""
    rows: list[dict[str, object]] = []
    stages: list[dict[str, object]] = []
    for place, level in enumerate(setting.levels):
        dice = random.Random(f"loop {seed} {place}")
        made, window_s = _stage(setting, level, dice, first=1_000_000 * (seed * len(setting.levels) + place))
        common = {"stage": place + 1, "stage_end": place + 1, "concurrency": level, "model": "simulated"}
        rows += [{**common, **row} for row in made]
        stages.append({"stage": place + 1, "concurrency": level, "measure_s": window_s, "health": "ok"})
    return Run(f"run{seed}", Path(f"run{seed}"), _frame(rows, REQUEST_COLUMNS), _frame(stages, STAGE_COLUMNS))


def _stage(setting: Setting, users: int, dice: random.Random, first: int) -> tuple[list[dict[str, object]], float]:
    """The rows of one stage and its window (s): a request of warm-up per user, then so many measured ones."""
    spec = setting.spec
    heap: list[tuple[float, int, _Asked]] = []
    active, number, asked, ended = 0, first, 0, 0
    wanted = users + setting.requests
    rows: list[dict[str, object]] = []
    began_s = last_start_s = 0.0
    # (moment, tie breaker, own): when a user asks next
    waking = [(dice.random() * spec.ttft_s, user, True) for user in range(users)]
    waking += [(dice.expovariate(1 / _busy_s(spec)), users + user, False) for user in range(setting.neighbours)]
    heapq.heapify(waking)
    while ended < wanted:
        if waking and (not heap or waking[0][0] <= heap[0][0]):
            now_s, user, own = heapq.heappop(waking)
            if own and asked >= wanted:
                continue
            measured = own and asked >= users
            if own:
                asked += 1
                began_s = now_s if asked == users + 1 else began_s
                last_start_s = now_s
            tokens = max(2, round(dice.gauss(*_TOKENS)))
            pace = Pace(spec, number)
            request = _Asked(user, pace, tokens, now_s, own, measured)
            active += 1
            heapq.heappush(heap, (now_s + pace.first_ns() / 1e9, number, request))
            number += 1
            continue
        now_s, order, request = heapq.heappop(heap)
        request.sent += 1
        request.first_s = request.first_s or now_s
        if request.sent < request.tokens:
            heapq.heappush(heap, (now_s + request.pace.gap_ns(1, active) / 1e9, order, request))
            continue
        active -= 1
        if request.own:
            ended += 1
            heapq.heappush(waking, (now_s, request.number, True))
        else:
            heapq.heappush(waking, (now_s + dice.expovariate(1 / _busy_s(spec)), request.number, False))
        if request.measured:
            rows.append(_row(request, order, now_s, failed=dice.random() < FAILING))
    return rows, last_start_s - began_s


def _busy_s(spec: Spec) -> float:
    """How long a neighbour pauses between two requests, in the mean: about as long as one takes."""
    return spec.ttft_s + _TOKENS[0] * spec.itl_s


def _row(request: _Asked, order: int, ended_s: float, *, failed: bool) -> dict[str, object]:
    ttft_s, took_s = request.first_s - request.started_s, ended_s - request.started_s
    return {
        "request_id": f"r{order:012d}", "started_at": _STARTED_AT + request.started_s, "measured": 1,
        "phase": "measure", "error_code": "500" if failed else "", "ttft_s": ttft_s, "end_to_end_latency_s": took_s,
        "last_token_s": took_s, "tpot_s": (took_s - ttft_s) / (request.tokens - 1), "input_tokens": 550,
        "output_tokens": request.tokens, "window_tokens": float(request.tokens), "connect_s": 0.0,
    }  # fmt: skip


def _frame(rows: Sequence[dict[str, object]], columns: Sequence[object]) -> DataFrame:
    names = rows[0] if rows else {}
    values = {name: Series([row[name] for row in rows]) for name in names}
    return typed_frame(values, columns)  # type: ignore[arg-type]
