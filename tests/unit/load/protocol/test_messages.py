"""Messages from load processes that are not what they should be: left out with a line in the log, the run goes on."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_users.load.protocol import messages, validation
from llm_users.load.protocol.stage import StageTotals
from llm_users.load.protocol.validation import Gatekeeper, row_problem
from llm_users.record import RequestRecord

KINDS = tuple(validation._FIELDS)
HERE = {"run": "r", "worker": 1}
ROW = RequestRecord(request_id="a", run_id="r", worker=1, ttft_s=0.2, chunks=3).row()


def gate(strangers: list[Any] | None = None) -> Gatekeeper:
    """In front of a coordinator for which host_1 has rank 1 in the run r."""
    return Gatekeeper(
        lambda client_id: ("r", 1) if client_id == "host_1" else None,
        lambda *told: strangers.append(told) if strangers is not None else None,
    )


def hand_over(gatekeeper: Gatekeeper, kind: str, data: Any, taken: list[Any], sender: str = "host_1") -> None:
    """What Locust does with a message, by way of the wire's own packing."""
    arrived = msgpack.loads(msgpack.dumps(data), raw=False, strict_map_key=False)
    gatekeeper.listener(kind, taken.append)(environment=None, msg=SimpleNamespace(data=arrived, node_id=sender))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (messages.READY, {"stage": 1, "waiting": 4, "all_users_came": 1, "no_users_reason": None}),
        (messages.PREPARING, {"stage": 1, "built": 2, "wanted": 40}),
        (messages.FINAL, {"sent": 0}),
        (messages.BACK, {"number": 4, "stage": 1, "measured": 0}),
        (messages.COUNT, {"number": 3, "stage": 1, "started": 2, "measured": 1, "total": 9, "held": 0,
                          "shards": ["a"], "counts": None, "host": "h", "at": 1, "gone": True, "waiting": None,
                          "quota": 7, "over": False}),
        (messages.NOTE, {"text": "something"}),
        (messages.REFUSED, {"reason": "no"}),
        (messages.DONE, {name: getattr(StageTotals(1, 1, lag_counts={-1: 3}, given_up="refused"), name)
                         for name in StageTotals.__slots__}),
    ],
)  # fmt: skip
def test_what_is_right_is_handed_on_as_it_is(kind: str, data: dict[str, Any]) -> None:
    taken: list[Any] = []
    hand_over(gate(), kind, HERE | data, taken)
    assert taken == [HERE | data]


@pytest.mark.parametrize(
    ("data", "sender"),
    [({"run": "r", "worker": 0}, "host_1"), ({"run": "old", "worker": 1}, "host_1"), (HERE, "host_2")],
)
def test_a_message_of_another_run_or_another_process_is_refused(data: dict[str, Any], sender: str) -> None:
    taken: list[Any] = []
    strangers: list[Any] = []
    gatekeeper = gate(strangers)
    hand_over(gatekeeper, messages.FINAL, data | {"sent": 0}, taken, sender)
    row = RequestRecord(request_id="b", run_id=data["run"], worker=data["worker"]).row()
    hand_over(gatekeeper, messages.ROWS, data | {"rows": [[row, []], [row, []]]}, taken, sender)
    assert taken == []
    assert strangers == [(messages.FINAL, sender, data["run"], 0), (messages.ROWS, sender, data["run"], 2)]


def test_rows_of_another_run_are_refused_and_the_others_taken() -> None:
    strangers: list[Any] = []
    foreign = [RequestRecord(request_id="b", run_id="old", worker=1), RequestRecord(request_id="c", run_id="r")]
    rows = [[ROW, []], *([record.row(), []] for record in foreign)]
    assert gate(strangers).rows(rows, "host_1") == [[ROW, []]]
    assert strangers == [(messages.ROWS, "host_1", "r", 2)]


def test_of_a_batch_only_the_bad_rows_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    bad = [
        ROW[:-1], [*ROW, None], ["x" * 20_000, *ROW[1:]], [1, *ROW[1:]], [None, *ROW[1:]],
        RequestRecord(worker=-1).row(), RequestRecord(stage=True).row(), RequestRecord(chunks=2**60).row(),
        RequestRecord(ttft_s=float("inf")).row(), RequestRecord(ttft_s=float("nan")).row(),
        RequestRecord(ttft_s="soon").row(),  # type: ignore[arg-type]
    ]  # fmt: skip
    rows = [[ROW, []], *([row, []] for row in bad), [ROW], [ROW, [], []], None, [ROW, [0.1, "x"]], [ROW, [0.1, 1]]]
    taken: list[Any] = []
    with caplog.at_level(logging.WARNING):
        hand_over(gate(), messages.ROWS, HERE | {"rows": rows}, taken)
    assert taken == [[[ROW, []], [ROW, [0.1, 1]]]]
    assert "15 of its 17 rows are none" in caplog.text


def test_a_message_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[Any] = []
    gatekeeper = gate()
    hand_over(gatekeeper, messages.ROWS, HERE | {"rows": [None] * (validation.MOST_ROWS + 1)}, taken)
    hand_over(gatekeeper, messages.NOTE, HERE | {"text": "x" * 10**6}, taken)
    assert taken[0] == []
    assert len(taken[1]["text"]) == validation.NOTE_CHARACTERS


def test_a_load_process_is_complained_about_once(caplog: pytest.LogCaptureFixture) -> None:
    gatekeeper, taken = gate(), []  # type: ignore[var-annotated]
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            hand_over(gatekeeper, messages.READY, {"worker": "x"}, taken)
    assert (len(caplog.records), taken) == (1, [])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["worker", "stage", "waiting", "sent", "text", "reason", "rows", "gap_counts", "users"])
            | st.integers(-5, 5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(KINDS), VALUES)
def test_no_message_raises(kind: str, data: Any) -> None:
    hand_over(gate(), kind, data, [])


def test_checking_a_row_costs_little_beside_writing_it() -> None:
    rows = [[RequestRecord(request_id=str(i), ttft_s=0.2, end_to_end_latency_s=1.0).row(), []] for i in range(2000)]
    best_s = min(_cost_s(rows) for _ in range(5))
    assert best_s / len(rows) < 40e-6  # about 6 us on a quiet machine


def _cost_s(rows: list[Any]) -> float:
    before_s = time.process_time()
    assert not any(row_problem(packed) for packed in rows)
    return time.process_time() - before_s
