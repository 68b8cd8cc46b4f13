"""Workers that join, leave, die, freeze or lose the master: what the server saw, and what the run has of it.

`Comparison.check` holds in every case: each request that the server saw is one row or is counted as lost, no request,
answer or prompt is in two rows, no stage has more measured rows than were asked for, exit code 0 means that all of them
are there, and no process is left. `python -m tests.system.crash.workers.table` runs these tests and prints one
line for each.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.project import ROOT
from tests.system.crash.workers.cluster import Cluster, Comparison, report, wait_until

NOTHING_NEW_S = 5.0
"""A worker whose master is silent for so long starts nothing new."""

GIVES_UP_S = 60.0
"""After so much silence a worker ends, and a master whose workers are all silent."""


def all_measured(found: Comparison) -> None:
    """Every stage has exactly what was asked for, and the exit code says so."""
    found.check()
    assert found.exact, (found, found.logs)
    assert found.lost == 0, found
    assert found.exit == 0, (found, found.logs)


# Workers that die, leave and join.


@pytest.mark.slow
def test_a_worker_is_killed(cluster: Cluster) -> None:
    cluster.start(4, stages=[8, 8], requests=300)
    cluster.await_rows(60)
    cluster.workers[1].kill()
    found = cluster.end(90)
    found.check()
    assert found.exit == (3 if found.lost else 0), found
    assert found.missing <= (found.lost or 0), found
    assert (found.lost or 0) <= 2 + 20, "its two users' requests, and rows of its last half second"


@pytest.mark.slow
def test_a_worker_is_killed_and_another_joins(cluster: Cluster) -> None:
    cluster.start(4, stages=[8, 8, 8], requests=300)
    cluster.await_rows(60)
    cluster.workers[1].kill()
    time.sleep(1)
    cluster.join()
    found = cluster.end(90)
    found.check()
    assert found.exit == (3 if found.lost else 0), found
    assert [stage.measured for stage in found.stages[1:]] == [300, 300], found
    assert {row["worker"] for row in cluster.rows() if row["stage"] == "3"} == {"0", "1", "2", "3", "4"} - {
        str(dead) for dead in missing_ranks(cluster)
    }


@pytest.mark.slow
def test_all_workers_are_killed(cluster: Cluster) -> None:
    cluster.start(4, stages=[8, 8], requests=300)
    cluster.await_rows(60)
    for worker in cluster.workers:
        worker.kill()
    killed_at = time.monotonic()
    found = cluster.end(120)
    assert time.monotonic() - killed_at < GIVES_UP_S + 45, "the run ends when nobody came back"
    found.check()
    assert found.exit == 3, found


LOGIN = """
import gevent
from locust import task
from llm_users import OpenAIUser


class Chat(OpenAIUser):
    def on_start(self):
        gevent.sleep(1.5)

    @task
    def ask(self):
        self.chat()
"""


def one_leaves_in_the_first_stage(cluster: Cluster, stages: list[int], requests: int) -> None:
    """New users take 1.5 s to log in, so that the coordinator looks at a stage before it has begun."""
    cluster.locustfile = str(cluster.folder / "login.py")
    Path(cluster.locustfile).write_text(LOGIN)
    cluster.start(2, stages=stages, requests=requests)
    cluster.await_rows(requests // 10)
    cluster.workers[0].leave()
    found = cluster.end(90)
    all_measured(found)
    assert sorted(entry["state"] for entry in cluster.manifest["workers"].values()) == ["here", "left"]
    assert any("left in stage 1" in note for note in found.notes), found.notes


def test_a_worker_leaves_in_the_first_of_three_stages(cluster: Cluster) -> None:
    one_leaves_in_the_first_stage(cluster, [4, 8, 16], 120)


@pytest.mark.slow
def test_a_worker_leaves_in_the_first_of_five_stages(cluster: Cluster) -> None:
    one_leaves_in_the_first_stage(cluster, [8, 16, 24, 16, 32], 400)


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [True, False])
def test_a_worker_goes_while_the_users_of_a_stage_come(cluster: Cluster, leaves: bool) -> None:
    """The others have its users before the stage begins."""
    cluster.locustfile = str(cluster.folder / "login.py")
    Path(cluster.locustfile).write_text(LOGIN)
    cluster.start(3, stages=[3, 9], requests=60)
    cluster.await_text(cluster.master, "stage 1 done", 60)
    if leaves:
        cluster.workers[0].leave()
    else:
        cluster.workers[0].kill()
    found = cluster.end(90)
    found.check()
    assert [stage.measured for stage in found.stages] == [60, 60], found
    assert {row["concurrency"] for row in cluster.rows() if row["stage"] == "2"} == {"9"}, found.notes
    assert len({row["user_id"] for row in cluster.rows() if row["stage"] == "2"}) == 9


@pytest.mark.slow
def test_all_workers_leave(cluster: Cluster) -> None:
    cluster.start(2, stages=[8, 8], requests=200)
    cluster.await_rows(40)
    for worker in cluster.workers:
        worker.leave()
    found = cluster.end(60)
    found.check()
    assert found.exit == 3, found
    assert found.lost == 0, found


@pytest.mark.slow
def test_two_workers_join_late(cluster: Cluster) -> None:
    cluster.start(2, stages=[8, 8], requests=300)
    cluster.await_rows(60)
    cluster.join()
    cluster.join()
    all_measured(cluster.end(60))
    assert {row["worker"] for row in cluster.rows() if row["stage"] == "2"} == {"0", "1", "2", "3"}


# Networks.


def behind_a_link(
    cluster: Cluster, requests: int, *, stages: int = 3, workers: int = 3, stall_s: float = 0, cut_s: float = 0
) -> Comparison:
    """The last worker cannot reach the master for a while, in the first stage."""
    cluster.start_master(workers=workers, stages=[9] * stages, requests=requests)
    link = cluster.link()
    for _ in range(workers - 1):
        cluster.join()
    cluster.join(port=link.port)
    cluster.await_rows(40)
    if stall_s:
        link.stall(stall_s)
    else:
        link.cut(cut_s)
    found = cluster.end(240)
    found.check()
    for stage in found.stages:
        if stage.further:
            words = rf"\b{stage.further}\b|not measured|measured 0"
            assert any(re.search(words, note) for note in found.notes), (
                "a note says that requests were sent beyond what the stage wanted", found.notes,
            )  # fmt: skip
    return found


@pytest.mark.slow  # tests/system/crash/workers/test_silence.py cuts a link for a moment
def test_a_network_stalls_for_3_s(cluster: Cluster) -> None:
    all_measured(behind_a_link(cluster, 130, stages=1, workers=2, stall_s=3))


@pytest.mark.slow
def test_a_network_stalls_for_10_s(cluster: Cluster) -> None:
    all_measured(behind_a_link(cluster, 500, stall_s=10))


@pytest.mark.slow
def test_a_network_stalls_for_80_s(cluster: Cluster) -> None:
    """The worker gives up after a minute; its rows are in its spool, which the master reads."""
    found = behind_a_link(cluster, 1800, stall_s=80)
    assert found.exact, (found, found.logs)
    assert found.lost == 0, found


@pytest.mark.slow
def test_a_network_is_cut_for_1_s(cluster: Cluster) -> None:
    all_measured(behind_a_link(cluster, 300, cut_s=1))


@pytest.mark.slow
def test_a_network_is_cut_for_10_s(cluster: Cluster) -> None:
    all_measured(behind_a_link(cluster, 500, cut_s=10))


# Processes that stand still.


@pytest.mark.slow
def test_a_worker_is_frozen_for_20_s(cluster: Cluster) -> None:
    cluster.start(4, stages=[8, 8], requests=600)
    cluster.await_rows(60)
    cluster.freeze(cluster.workers[2:3], 20)
    all_measured(cluster.end(120))


@pytest.mark.slow
def test_all_workers_are_frozen_for_20_s(cluster: Cluster) -> None:
    """The run may end because nobody answers, or go on; both are exact, and only the second is exit code 0."""
    cluster.start(4, stages=[8, 8], requests=400)
    cluster.await_rows(60)
    cluster.freeze(cluster.workers, 20)
    found = cluster.end(120)
    found.check()
    assert found.exit == (0 if found.exact else 3), found


@pytest.mark.slow
def test_the_master_is_frozen_for_20_s(cluster: Cluster) -> None:
    cluster.start(4, stages=[8, 8], requests=600)
    cluster.await_rows(60)
    frozen_at = time.monotonic()
    cluster.freeze([cluster.master], 20)
    all_measured(cluster.end(120))
    started_while_silent(cluster, frozen_at, frozen_at + 20)


# A master that is gone.


def answers(rows: list[dict[str, str]]) -> set[str]:
    return {row["response_id"] for row in rows if row["response_id"]}


def without_row(cluster: Cluster, rows: list[dict[str, str]]) -> int:
    """How many requests the server saw that have no row; one that was cut before its answer has a row without id."""
    cut = len({row["request_id"] for row in rows if not row["response_id"]})
    known = answers(rows)
    return max(0, sum(entry["response_id"] not in known for entry in cluster.server_log()) - cut)


def started_while_silent(cluster: Cluster, from_s: float, until_s: float) -> None:
    """No request came to the server later than half a second after the workers had to stop."""
    came = [entry["received_ns"] / 1e9 - from_s for entry in cluster.server_log()]
    late = [round(at_s, 2) for at_s in came if NOTHING_NEW_S + 0.5 < at_s < until_s - from_s]
    assert not late, f"{len(late)} requests were started after {NOTHING_NEW_S:g} s of silence: {late[:5]} ..."


@pytest.mark.slow
def test_the_master_is_killed(cluster: Cluster) -> None:
    cluster.start(4, stages=[8, 8], requests=2000)
    cluster.await_rows(200)
    cluster.master.kill()
    killed_at = cluster.master.killed_at or 0.0
    found = cluster.end(10, workers_s=GIVES_UP_S + 20)
    assert None not in found.worker_exits, "all workers have ended"
    assert 0 not in found.worker_exits, found
    started_while_silent(cluster, killed_at, killed_at + 1000)
    spool = Path(f"{cluster.prefix}_llm_spool")
    advice = [worker.text for worker in cluster.workers if "llm-report" in worker.text and str(spool) in worker.text]
    assert len(advice) == 4, "every worker says how to recover the rows"
    # Every request has ended, so none is lost.
    assert not without_row(cluster, list(cluster.all_rows()))
    table = report(cluster.prefix, spool)
    assert table.returncode in (0, 3), table.stderr
    assert "| openai" in table.stdout


@pytest.mark.slow
def test_the_master_is_killed_and_another_starts_on_its_port(cluster: Cluster) -> None:
    """The workers of the first run speak to the second master, which has workers too: it counts only its own run."""
    cluster.start(3, stages=[9, 9], requests=2000)
    cluster.await_rows(150)
    cluster.master.kill()
    first = cluster.prefix
    cluster.start_master(workers=3, stages=[9, 9], requests=400, prefix="second")
    for _ in range(3):
        cluster.join()
    found = cluster.end(150, workers_s=GIVES_UP_S + 20)
    found.check()
    assert found.exit == 0, (found, found.logs)
    assert [stage.measured for stage in found.stages] == [400, 400], (found, found.logs)
    assert (found.lost, found.double) == (0, 0), found
    assert not found.processes_left, found
    # The rest of what the server saw is of the first run: in its file, or in its workers' spools.
    second = cluster.rows()
    assert len({row["run_id"] for row in second}) == 1
    first_rows = list(cluster.all_rows(first))
    assert not answers(first_rows) & answers(second)
    assert not without_row(cluster, first_rows + second)


def test_the_parent_of_forked_workers_is_killed(cluster: Cluster) -> None:
    port = cluster.port
    cluster.start_master(workers=0, stages=[8], requests=3000,
                         place=["--processes", "2", "--master-bind-port", port, "--master-port", port])  # fmt: skip
    cluster.await_rows(40)
    cluster.master.kill()
    killed_at = cluster.master.killed_at or 0.0
    wait_until(lambda: not cluster.master.session(), "the children have ended", 10)
    cluster.stop()
    came = [entry["received_ns"] / 1e9 - killed_at for entry in cluster.server_log()]
    assert max(came) < 2.5, "the children stop at once"
    missing = without_row(cluster, list(cluster.all_rows()))
    assert not missing, f"{missing} requests have no row, although the children ended by themselves"


# What a stage reports when its workers change.


def reported_against_server(cluster: Cluster) -> None:
    """Tokens per second and requests in flight of the only stage, against the server's log of the same window."""
    (stage,) = cluster.rows("stages")
    began = float(stage["measure_started_at"]) - time.time() + time.monotonic()
    length = float(stage["measure_s"])
    ended = began + length
    log = cluster.server_log()
    tokens = sum(began <= sent / 1e9 < ended for entry in log for sent in entry["sent_ns"]
                 if entry["outcome"] == "completed")  # fmt: skip
    busy_s = sum(max(0.0, min(entry["last_ns"] / 1e9, ended) - max(entry["received_ns"] / 1e9, began))
                 for entry in log if entry["last_ns"])  # fmt: skip
    assert float(stage["output_throughput_token_per_s"]) == pytest.approx(tokens / length, rel=0.03)
    assert float(stage["concurrency_actual"]) == pytest.approx(busy_s / length, rel=0.05)
    assert float(stage["concurrency_actual"]) <= 9.05


@pytest.mark.slow
def test_throughput_is_true_when_a_worker_leaves_in_mid_stage(cluster: Cluster) -> None:
    cluster.start(3, "--llm-stage-time", "20s", stages=[9])
    cluster.await_rows(200)
    cluster.workers[0].leave()
    found = cluster.end(60)
    found.check()
    # The only stage ran with 6 of its 9 users after the worker had left, so no stage ran as asked.
    assert found.exit == 3, found
    assert any("no stage ran with the requested number of users" in line for line in found.says), found.says
    reported_against_server(cluster)


@pytest.mark.slow
def test_throughput_is_true_when_two_workers_join_and_one_leaves_in_mid_stage(cluster: Cluster) -> None:
    cluster.start(2, "-u", "9", "-r", "9", "-t", "30s")
    cluster.await_rows(100)
    cluster.join()
    cluster.join()
    cluster.await_rows(500)
    cluster.workers[0].leave()
    found = cluster.end(60)
    found.check()
    assert found.exit == 0, found
    assert len({row["worker"] for row in cluster.rows()}) == 4
    reported_against_server(cluster)


# Workers that do not fit.


def other_version(folder: Path) -> Path:
    """A folder with a copy of the package that says it is version 9.9.9; for PYTHONPATH."""
    copy = folder / "other"
    shutil.copytree(ROOT / "llm_users", copy / "llm_users", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "reports" / "llm_reports", copy / "llm_reports", ignore=shutil.ignore_patterns("__pycache__")
    )
    init = copy / "llm_users" / "_version.py"
    text, count = re.subn(r'^__version__ = ".*"$', '__version__ = "9.9.9"', init.read_text(), flags=re.MULTILINE)
    assert count == 1
    init.write_text(text)
    metadata = copy / "locust_llm-9.9.9.dist-info" / "METADATA"  # for importlib.metadata
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: locust-llm\nVersion: 9.9.9\n")
    return copy


@pytest.mark.slow  # test_masters.py refuses one too
def test_a_worker_with_another_version_is_refused(cluster: Cluster) -> None:
    cluster.start_master(workers=3, stages=[4], requests=20)
    path = os.pathsep.join(filter(None, [str(other_version(cluster.folder)), os.environ.get("PYTHONPATH", "")]))
    cluster.join(env={"PYTHONPATH": path})
    cluster.join()
    cluster.join()
    found = cluster.end(60)
    found.check()
    said = cluster.master.text
    assert any("9.9.9" in line and current_version() in line for line in said.splitlines()), said[-3000:]
    assert found.exact or (found.exit == 2 and found.server_saw == 0), (found, found.logs)
    assert found.lost in (0, None), found
    assert len({row["worker"] for row in cluster.rows()}) <= 2


def current_version() -> str:
    from llm_users import __version__

    return __version__


def missing_ranks(cluster: Cluster) -> list[int]:
    return [entry["worker"] for entry in cluster.manifest["workers"].values() if entry["state"] == "missing"]
