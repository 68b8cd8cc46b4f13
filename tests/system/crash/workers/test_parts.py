"""The parts by themselves: numbers seen, line files, shards, start counts, changed quotas."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from llm_users.collect.id_ranges import SeenNumbers
from llm_users.collect.line_file import LineFile
from llm_users.collect.shards import ShardReader
from llm_users.collect.spool import Spool, StartCounts, mark_folder, read_counts
from llm_users.load.coordinator.worker_pool import WorkerRegistry
from llm_users.load.protocol.stage import StagePlan, StageTotals
from llm_users.load.worker import stall_guard
from llm_users.load.worker.admission_gate import AdmissionGate, Unlimited, UserState
from llm_users.load.worker.stall_guard import Lease, NoMaster
from llm_users.record import RequestRecord
from tests.project import ROOT


def record(number: int, **more: Any) -> RequestRecord:
    return RequestRecord(request_id=f"run-0-{number}", run_id="run", worker=0, stage=1, **more)


# Numbers.


def test_numbers_are_seen_once_in_any_order() -> None:
    numbers = [*range(500), *range(0, 500, 3)]
    random.Random(7).shuffle(numbers)
    seen, known = SeenNumbers(), set()
    for number in numbers:
        assert seen.add(number) == (number not in known)
        known.add(number)
    assert seen.count == 500
    assert seen.ranges == 1


def test_numbers_in_flight_are_all_that_is_kept() -> None:
    seen = SeenNumbers()
    for number in range(0, 100_000, 2):
        seen.add(number + 1)
        seen.add(number)
        assert seen.ranges <= 2


# Files.


class KilledInKill:
    """A thread pool whose end is never reached: a run is stopped while the files of the one before it are closed."""

    def __init__(self, pool: Any) -> None:
        self.apply = pool.apply

    def kill(self) -> None:
        raise gevent.GreenletExit


def test_a_file_whose_closing_was_killed_can_be_closed_again(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "rows", "a,b\n")
    file.flush()
    pool, file._pool = file._pool, KilledInKill(file._pool)
    with pytest.raises(gevent.GreenletExit):
        file.close()
    pool.kill()
    file.close()
    file.discard()
    assert (tmp_path / "rows").read_text() == "a,b\n"


def test_lines_are_in_the_file_after_a_flush_and_not_before_anyone_waited(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "rows", "a,b\n")
    for number in range(3):
        file.write(f"{number},x\n")
    assert (tmp_path / "rows").read_text() == ""
    assert file.flush()
    assert (tmp_path / "rows").read_text() == "a,b\n0,x\n1,x\n2,x\n"
    file.write("3,x\n")
    gevent.sleep(1.0)  # longer than a line waits
    assert (tmp_path / "rows").read_text().endswith("3,x\n")
    file.close()


def test_a_full_device_sends_lines_elsewhere(tmp_path: Path) -> None:
    full = tmp_path / "rows"
    full.symlink_to("/dev/full")
    told: list[str] = []
    file = LineFile(full, "a\n", elsewhere=lambda: tmp_path / "other", on_trouble=told.append)
    file.write("1\n")
    assert file.flush()
    file.write("2\n")
    file.close()
    assert (tmp_path / "other").read_text() == "a\n1\n2\n"
    assert file.unwritten == 0
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert str(tmp_path / "other") in told[0]


def test_what_fits_nowhere_is_counted(tmp_path: Path) -> None:
    full = tmp_path / "rows"
    full.symlink_to("/dev/full")
    told: list[str] = []
    file = LineFile(full, "a\n", on_trouble=told.append)
    for number in range(5):
        file.write(f"{number}\n")
    assert not file.flush(timeout_s=0.5)
    file.close(timeout_s=0.2)
    assert file.unwritten == 5
    assert any("5 lines could not be written" in text for text in told)


CUT = """
import resource, sys
from pathlib import Path
from llm_users.collect.line_file import LineFile
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = LineFile(Path(sys.argv[1]), "head\\n", elsewhere=lambda: Path(sys.argv[2]))
for number in range(20):
    file.write(f"{number:02d}" + "x" * 70 + "\\n")
file.close()
"""


def test_a_line_is_never_cut_by_a_full_disk(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    subprocess.run([sys.executable, "-c", CUT, str(first), str(second)], check=True, timeout=20, cwd=ROOT)
    lines = first.read_text().splitlines()[1:] + second.read_text().splitlines()[1:]
    assert first.read_text().endswith("\n")
    assert [int(line[:2]) for line in lines] == list(range(20))
    assert {len(line) for line in lines} == {72}


# Spools.


def test_a_spool_gives_back_what_was_put_in(tmp_path: Path) -> None:
    mark_folder(tmp_path / "spool", "run")
    spool = Spool("run", 0, str(tmp_path / "spool"), print)
    assert spool.shared
    first = record(0, error_message='two\nlines, "quoted"', ttft_s=0.25, http_status=200, model="=formula")
    spool.add(first.row())
    spool.flush()
    reader = ShardReader(spool.paths[0])
    (found,) = reader.rows()
    assert found == first
    spool.add(record(1).row())
    spool.flush()
    assert [row.request_id for row in reader.rows()] == ["run-0-1"], "it reads on from where it was"
    spool.close()


def test_a_cut_line_is_left_for_later(tmp_path: Path) -> None:
    mark_folder(tmp_path, "run")
    spool = Spool("run", 0, str(tmp_path), print)
    for number in range(2):
        spool.add(record(number, error_message="a\nb").row())
    spool.flush()
    two = spool.paths[0].stat().st_size
    spool.add(record(2, error_message="a\nb").row())
    spool.close()
    whole = spool.paths[0].read_bytes()
    for cut in range(two, len(whole)):
        spool.paths[0].write_bytes(whole[:cut])
        reader = ShardReader(spool.paths[0])
        assert [row.request_id for row in reader.rows()] == ["run-0-0", "run-0-1"]
        spool.paths[0].write_bytes(whole)
        assert [row.request_id for row in reader.rows()] == ["run-0-2"]


def test_a_file_with_other_columns_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        list(ShardReader(tmp_path / "x").rows())


COUNTING = """
import sys, time
from llm_users.collect.spool import StartCounts
counts = StartCounts("run", 3, shared=True)
for _ in range(7): counts.add(1, False)
for _ in range(5): counts.add(2, True)
print(counts.path, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no shared memory here")
def test_start_counts_outlive_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", COUNTING], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        os.kill(process.pid, signal.SIGKILL)
    assert read_counts(path) == {1: (7, 0), 2: (5, 5)}
    path.unlink()
    assert read_counts(path) is None


def test_counts_of_one_process_are_in_no_file() -> None:
    counts = StartCounts("run", 0, shared=False)
    counts.add(1, True)
    assert (counts.total, counts.path) == (1, None)


# Quotas that change.


class Control(Unlimited):
    allowed = True

    def may_start(self) -> bool:
        return self.allowed


class Users:
    """Users of a gate that do nothing for a few milliseconds, again and again."""

    def __init__(self, count: int) -> None:
        self.done: list[StageTotals] = []
        self.control = Control()
        self.gate = AdmissionGate(on_finished=self.done.append, control=self.control)
        self.measured = 0
        self._greenlets = [gevent.spawn(self._ask) for _ in range(count)]
        gevent.sleep(0)

    def _ask(self) -> None:
        user_state = UserState()
        while True:
            permit = self.gate.enter(user_state)
            self.measured += permit.measured
            gevent.sleep(0.002)
            self.gate.leave(permit, user_state, None)

    def begin(self, quota: int | None) -> None:
        self.gate.prepare(StagePlan(1, len(self._greenlets)))
        gevent.sleep(0.01)
        self.gate.go(quota)

    def end(self) -> None:
        gevent.killall(self._greenlets)


@pytest.fixture
def users() -> Any:
    made = Users(3)
    yield made
    made.end()


def test_more_to_do_while_the_stage_runs(users: Users) -> None:
    users.begin(10)
    users.gate.change_quota(25)
    gevent.sleep(0.2)
    assert users.measured == 25
    assert [totals.quota for totals in users.done] == [25]


def test_more_to_do_when_the_own_share_was_done(users: Users) -> None:
    users.begin(10)
    gevent.sleep(0.2)
    first = users.done[0].window_s
    users.gate.change_quota(14)
    gevent.sleep(0.2)
    assert users.measured == 14
    last = users.done[-1]
    assert (last.measured, last.quota) == (14, 14)
    assert len(last.windows) == 2
    assert last.windows[1][0] > 0.15, "the window goes on with the next start"
    assert first < last.window_s < first + 0.1, "the time without anything to do is not part of it"


def test_less_to_do_ends_the_stage(users: Users) -> None:
    users.begin(1000)
    gevent.sleep(0.05)
    users.gate.change_quota(2)
    gevent.sleep(0.1)
    assert 2 < users.measured < 1000
    assert users.done[-1].quota == 2


def test_a_user_that_goes_without_its_warm_up_does_not_keep_a_share_open_that_was_cut_and_grew_again() -> None:
    done: list[tuple[int | None, int]] = []
    gate = AdmissionGate(on_finished=lambda totals: done.append((totals.quota, totals.measured)))
    user_states = [UserState(), UserState()]
    users = [gevent.spawn(gate.enter, user_state) for user_state in user_states]
    gevent.sleep(0)
    gate.prepare(StagePlan(1, 2, ramp_s=60.0, warmup_requests=1))
    gate.go(5)
    gevent.sleep(0.01)
    gate.leave(users[0].get(timeout=1), user_states[0], None)  # its warm-up; the other one is still in the ramp
    gate.change_quota(0)  # this process was silent, and others have its share
    gate.change_quota(1)  # and now a part of that of yet others
    gate.gone(user_states[1])
    users[1].kill()
    permit = gate.enter(user_states[0])
    gate.leave(permit, user_states[0], None)
    assert permit.measured
    assert done == [(0, 0), (1, 1)]


def test_more_to_do_after_the_stage_was_ended_is_answered_but_not_done(users: Users) -> None:
    users.begin(1000)
    gevent.sleep(0.05)
    users.gate.end_measure()
    gevent.sleep(0.05)
    started = users.measured
    users.gate.change_quota(2000)
    gevent.sleep(0.05)
    assert users.measured == started
    assert users.done[-1].quota == 2000


def test_nothing_starts_without_the_word(users: Users) -> None:
    users.control.allowed = False
    users.begin(5)
    gevent.sleep(0.05)
    assert users.measured == 0
    users.control.allowed = True
    users.gate.change_quota(5)
    gevent.sleep(0.1)
    assert users.measured == 5


def test_shard_rows_and_rows_files_have_the_same_header(tmp_path: Path) -> None:
    from llm_users.collect.files import RunFiles

    RunFiles(str(tmp_path / "run"), offsets=False).close()
    mark_folder(tmp_path, "run")
    spool = Spool("run", 0, str(tmp_path), print)
    spool.close()
    with (tmp_path / "run_llm_requests.csv").open() as one, spool.paths[0].open() as other:
        assert next(csv.reader(one)) == next(csv.reader(other))


def test_a_worker_that_has_left_does_not_end_later_stages() -> None:
    roster = WorkerRegistry("run")
    workers = [roster.add(name) for name in ("left", "here")]
    for worker in workers:
        worker.new_assignment(1).admitted = True
        worker.assignment.totals = StageTotals(1, worker.rank)
    roster.leave(workers[0], 0, early=True)
    workers[0].assignment.reduced = True
    assert roster.all_done
    for worker in workers:
        worker.new_assignment(2)
    assert not roster.all_done
    workers[1].assignment.admitted = True
    assert not roster.all_done


def test_a_lease_runs_out_and_only_a_later_question_begins_another() -> None:
    lease = Lease()
    assert not lease.holds(100.0)
    first, second = lease.ask(100.0), lease.ask(101.0)
    assert lease.answered(first, 100.5)
    assert lease.holds(104.9)
    assert not lease.holds(105.0), "5 s after the question, however late the answer"
    assert lease.ended_at == 105.0
    assert not lease.answered(second, 105.1), "the answer to what was asked before has been on its way for long"
    question = lease.ask(110.0)
    assert not lease.answered(question, 110.1), "a COUNT that was heard says nothing about what is left to do"
    question = lease.ask(111.0)
    assert not lease.answered(question, 116.0, anew=True), "too late"
    assert lease.heard_at == 116.0, "but somebody is there"
    question = lease.ask(117.0)
    assert lease.answered(question, 117.2, anew=True)
    assert lease.holds(121.9)
    assert not lease.holds(122.0)


@pytest.mark.parametrize("answers_late", [True, False])
def test_a_coordinator_that_answers_late_is_not_gone(monkeypatch: pytest.MonkeyPatch, answers_late: bool) -> None:
    now, left, numbers = [100.0], list[str](), list[int]()
    monkeypatch.setattr(stall_guard, "_now", lambda: now[0])

    class Link(NoMaster):
        def on_alone(self, why: str) -> None:
            left.append(why)

    class Worker:
        def send(self, _message: Any) -> None:
            pass

        def count_message(self, number: int, _counts: StartCounts) -> Any:
            numbers.append(number)

        back_message = count_message

        def on_lease_ended(self, since_ns: int) -> None:
            pass

        def on_lease_held(self) -> None:
            pass

        def on_pause(self, silent_s: float) -> None:
            pass

    guard = stall_guard.StallGuard(Worker(), Link())

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if answers_late and len(numbers) > 6:
            guard.answered(numbers[-7])
        if left or now[0] > 300:
            raise gevent.GreenletExit

    at_once = SimpleNamespace(sleep=sleep, spawn=lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(stall_guard, "gevent", at_once)
    with contextlib.suppress(gevent.GreenletExit):
        guard._run()
    assert left == ([] if answers_late else ["the master has not answered for 65 s"])


def test_a_first_question_without_an_answer_is_a_lease_that_ran_out() -> None:
    lease = Lease()
    lease.ask(10.0)
    assert not lease.holds(14.0)
    assert lease.ended_at is None
    assert not lease.holds(15.0)
    assert lease.ended_at == 15.0
