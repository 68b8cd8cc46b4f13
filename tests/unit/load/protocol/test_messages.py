"""Messages between coordinator and workers: invalid ones are ignored with one line in the log, the run goes on."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_users.load.protocol import messages
from llm_users.load.protocol.arrivals import ArrivalShare
from llm_users.load.protocol.messages import CoordinatorInbox, Inbox, LiveMetrics, Message, WorkerMessage, row_problem
from llm_users.load.protocol.stage import StagePlan, StageTotals
from llm_users.record import RequestRecord, StageLoad

WORKER_MESSAGES = tuple(kind for kind in messages.MESSAGES if issubclass(kind, WorkerMessage))
ROW = RequestRecord(request_id="a", run_id="r", worker=1, ttft_s=0.2, chunks=3).row()


def coordinator_inbox(strangers: list[Any] | None = None) -> CoordinatorInbox:
    """Of a coordinator for which host_1 has rank 1 in the run r."""
    return CoordinatorInbox(
        lambda client_id: ("r", 1) if client_id == "host_1" else None,
        lambda *told: strangers.append(told) if strangers is not None else None,
    )


def deliver(inbox: Inbox, message_type: type[Message], data: Any, taken: list[Any], sender: str = "host_1") -> None:
    """What Locust does with a message, by way of the wire's own packing."""
    arrived = msgpack.loads(msgpack.dumps(data), raw=False, strict_map_key=False)
    inbox.listener(message_type, taken.append)(environment=None, msg=SimpleNamespace(data=arrived, node_id=sender))


@pytest.mark.parametrize(
    "message",
    [
        messages.Hello(version="1.0", protocol="abc"),
        messages.Welcome(refused=None),
        messages.Run("r", run_key="k", worker=1, workers=2, live=False, withhold_keys=False, distributed=True,
                     spool=None, prefix="out/run", rows_per_s=2500.0, first_prompt=1, prompt_step=2),
        messages.Stage("r", plan=StagePlan(1, StageLoad(rate_per_s=2.5), measure_s=3.0, requests=None)),
        messages.Go(
            "r", stage=1, quota=None, lead_s=-0.5, parts=[ArrivalShare(0, 2), ArrivalShare(1, 4, 0.5)], max_in_flight=3
        ),
        messages.Go("r", stage=1, quota=12, users=4),
        messages.ArrivalsChanged("r", stage=1, parts=[], max_in_flight=None),
        messages.Quota("r", stage=1, quota=3, number=None),
        messages.Ack("r", number=3),
        messages.End("r", stage=1),
        messages.Finish("r", abort=False, grace_s=10.0),
        messages.Resend("r"),
        messages.Settled("r"),
        messages.Leave("r"),
        messages.Ready("r", 1, stage=1, waiting=4, all_users_came=True, no_users_reason=None),
        messages.Preparing("r", 1, stage=1, built=2, wanted=40),
        messages.Final("r", 1, sent=0),
        messages.Back("r", 1, number=4, stage=1, measured=0),
        messages.Count("r", 1, number=3, stage=1, started=2, measured=1, total=9, held=0, shards=["a"], counts=None,
                       host="h", known_stage=1, admitted=True, waiting=None, quota=7, over=False),
        messages.Note("r", 1, text="something"),
        messages.Refused("r", 1, reason="no"),
        messages.Rows("r", 1, rows=[[ROW, [0.1, 0.2]]]),
        messages.Live("r", 1, metrics=LiveMetrics(phase="measure", done={1: 2}, ttft={-1: 3, 40: 1}, tokens=2.5)),
        messages.Done("r", 1, totals=StageTotals(1, 1, lag_counts={-1: 3}, given_up="refused", windows=[(0.5, 2.0)])),
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_a_valid_message_arrives_as_it_was_sent(message: Message) -> None:
    taken: list[Any] = []
    inbox = coordinator_inbox() if isinstance(message, WorkerMessage) else Inbox()
    deliver(inbox, type(message), message.encoded(), taken)
    assert taken == [message]


@pytest.mark.parametrize(("run", "rank", "sender"), [("r", 0, "host_1"), ("old", 1, "host_1"), ("r", 1, "host_2")])
def test_a_message_of_another_run_or_another_process_is_refused(run: str, rank: int, sender: str) -> None:
    taken: list[Any] = []
    strangers: list[Any] = []
    inbox = coordinator_inbox(strangers)
    final = messages.Final(run, rank, sent=0)
    deliver(inbox, messages.Final, final.encoded(), taken, sender)
    row = RequestRecord(request_id="b", run_id=run, worker=rank).row()
    deliver(inbox, messages.Rows, messages.Rows(run, rank, rows=[[row, []], [row, []]]).encoded(), taken, sender)
    assert taken == []
    assert strangers == [(final.kind, sender, run, 0), (messages.Rows.kind, sender, run, 2)]


def test_the_totals_of_another_worker_are_invalid(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[Any] = []
    done = messages.Done("r", 0, totals=StageTotals(1, 0))
    deliver(coordinator_inbox(), messages.Done, done.encoded() | {"worker": 1}, taken)
    assert taken == []
    assert "the totals belong to worker 0" in caplog.text


def test_rows_of_another_run_are_refused_and_the_others_taken() -> None:
    strangers: list[Any] = []
    foreign = [RequestRecord(request_id="b", run_id="old", worker=1), RequestRecord(request_id="c", run_id="r")]
    rows = [[ROW, []], *([record.row(), []] for record in foreign)]
    taken: list[Any] = []
    deliver(coordinator_inbox(strangers), messages.Rows, messages.Rows("r", 1, rows=rows).encoded(), taken)
    assert taken[0].rows == [[ROW, []]]
    assert strangers == [(messages.Rows.kind, "host_1", "r", 2)]


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
        deliver(coordinator_inbox(), messages.Rows, messages.Rows("r", 1, rows=rows).encoded(), taken)
    assert [message.rows for message in taken] == [[[ROW, []], [ROW, [0.1, 1]]]]
    assert "15 of its 17 rows are invalid" in caplog.text


def test_the_log_names_the_column_of_an_invalid_row() -> None:
    assert row_problem([RequestRecord(ttft_s="soon").row(), []]) == "Expected `float | null`, got `str` - at ttft_s"  # type: ignore[arg-type]
    assert row_problem([ROW, [0.1, "x"]]) == "Expected `float`, got `str` - at `arrivals[1]`"


def test_a_message_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[Any] = []
    inbox = coordinator_inbox()
    deliver(inbox, messages.Rows, {"run": "r", "worker": 1, "rows": [None] * (messages.MOST_ROWS + 1)}, taken)
    deliver(inbox, messages.Note, {"run": "r", "worker": 1, "text": "x" * 10**6}, taken)
    totals = {"stage": 1, "worker": 1, "given_up": "x" * 10**6}
    deliver(inbox, messages.Done, {"run": "r", "worker": 1, "totals": totals}, taken)
    note, done = taken
    assert len(note.text) == len(done.totals.given_up) == messages.TEXT_CHARACTERS
    assert messages.Rows.kind in caplog.text


def test_invalid_messages_of_a_worker_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    inbox, taken = coordinator_inbox(), []  # type: ignore[var-annotated]
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            deliver(inbox, messages.Ready, {"worker": "x"}, taken)
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
            st.sampled_from(
                ["run", "worker", "stage", "waiting", "sent", "text", "rows", "totals", "metrics", "plan", "gap_counts"]
            )
            | st.integers(-5, 5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(messages.MESSAGES), VALUES)
def test_no_message_raises(message_type: type[Message], data: Any) -> None:
    deliver(coordinator_inbox(), message_type, data, [])


def subclasses(message_type: type[Message]) -> set[type[Message]]:
    return {message_type}.union(*(subclasses(below) for below in message_type.__subclasses__()))


def test_every_message_is_listed_and_has_its_own_name() -> None:
    bases = {Message, messages.RunMessage, messages.WorkerMessage}
    assert subclasses(Message) - bases == set(messages.MESSAGES)
    assert len({message_type.kind for message_type in messages.MESSAGES}) == len(messages.MESSAGES)


def test_the_protocol_differs_when_a_field_does(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finish(messages.Finish, frozen=True, kw_only=True):
        why: str

    changed = tuple(Finish if kind is messages.Finish else kind for kind in messages.MESSAGES)
    monkeypatch.setattr(messages, "MESSAGES", changed)
    assert messages._identity() != messages.PROTOCOL


def test_checking_a_row_costs_little_beside_writing_it() -> None:
    rows = [[RequestRecord(request_id=str(i), ttft_s=0.2, end_to_end_latency_s=1.0).row(), []] for i in range(2000)]
    best_s = min(_cost_s(rows) for _ in range(5))
    assert best_s / len(rows) < 5e-6  # about 0.8 us on a quiet machine


def _cost_s(rows: list[Any]) -> float:
    before_s = time.process_time()
    assert not any(row_problem(packed) for packed in rows)
    return time.process_time() - before_s
