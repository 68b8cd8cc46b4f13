"""Which workers a stage waits for."""

from __future__ import annotations

from llm_users.load.coordinator.worker_pool import WorkerRegistry
from llm_users.load.protocol.stage import StageTotals


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
