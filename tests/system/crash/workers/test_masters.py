"""Masters that are killed or restarted, and workers that belong to another run or another version."""

from __future__ import annotations

import csv
import os
import subprocess
import time
from pathlib import Path

import pytest

from llm_users import __version__
from llm_users.load.protocol import messages
from llm_users.load.protocol.messages import PROTOCOL
from llm_users.record import RequestRecord
from llm_users.simulator.launch import launch
from tests.ports import master_ports
from tests.system.crash.workers.cluster import wait_until
from tests.system.crash.workers.link import Stranger
from tests.system.crash.workers.nodes import ANSWERS, Nodes, agree
from tests.system.locust_runs import Locust

OTHER_VERSION = (
    "import llm_users._version\n"
    "llm_users._version.__version__ = '0.0.9'\n"
    "from locust import task\n"
    "from llm_users import OpenAIUser\n"
    "class SweepUser(OpenAIUser):\n"
    "    @task\n"
    "    def ask(self):\n"
    "        self.chat()\n"
)


def test_messages_and_rows_of_another_run_are_refused(nodes: Nodes) -> None:
    nodes.start(1, "--llm-sweep", "4,4", "--llm-requests", "60", *ANSWERS).await_rows(8, timeout_s=60)
    stranger = Stranger(nodes.port, "host_stranger")
    old = {"run": "0ld0ld00", "worker": 0}
    rows = [[RequestRecord(request_id=f"0ld0ld00-0-{n}", run_id=old["run"]).row(), []] for n in range(3)]  # type: ignore[arg-type]
    stranger.say(messages.Rows.kind, old | {"rows": rows})
    stranger.say(messages.Final.kind, old | {"sent": 0})
    stranger.say(messages.Refused.kind, old | {"reason": "nothing works"})
    stranger.say(messages.Note.kind, old | {"text": "a note of a stranger"})
    stranger.say(messages.Back.kind, old | {"number": 1, "stage": 1, "measured": 0})
    assert stranger.hear(messages.Leave.kind) == {"run": old["run"]}
    stranger.close()
    done = nodes.finish(40)
    assert done.code == 0, done.err
    assert [stage["requests_measured"] for stage in done.rows("stages")] == ["60", "60"]
    notes = [note for note in done.manifest["notes"] if "stranger" in note]
    assert len(notes) == 1, notes
    assert notes[0].startswith("4 messages and 3 rows of another run were rejected (from worker host_stranger)")
    agree(nodes, done)


def test_a_worker_of_another_version_is_refused_with_both_versions(nodes: Nodes) -> None:
    nodes.start(1, "--llm-sweep", "4", "--llm-requests", "60", *ANSWERS).await_rows(4, timeout_s=60)
    stranger = Stranger(nodes.port, "host_stranger")
    data = {messages.Hello.kind: {"version": "0.0.9", "protocol": PROTOCOL}, "user_classes_count": {}}
    stranger.connect()
    stranger.say("stats", data)
    refused = stranger.hear(messages.Welcome.kind)["refused"]
    stranger.say("quit", None)
    stranger.close()
    done = nodes.finish(40)
    assert "0.0.9" in refused
    assert __version__ in refused
    assert "Install the same version on all machines" in refused
    assert any("worker host_stranger is refused" in note for note in done.manifest["notes"])
    assert {row["worker"] for row in done.rows()} == {"0"}


@pytest.mark.slow
def test_a_master_does_not_wait_for_ever_for_a_worker_that_it_refuses(nodes: Nodes, tmp_path: Path) -> None:
    locustfile = tmp_path / "other_version.py"
    locustfile.write_text(OTHER_VERSION)
    nodes.start(1, "--llm-sweep", "4", "--llm-requests", "60", *ANSWERS, expected=2)
    worker = nodes.join(locustfile=str(locustfile))
    refused = worker.finish(40)
    done = nodes.finish(60)
    assert refused.code == 2, refused.err
    assert "0.0.9" in refused.err
    assert __version__ in refused.err
    assert done.code == 2, done.err
    assert "only 1 of the 2 expected workers can take part" in done.err


def test_a_worker_whose_master_was_started_anew_takes_part_in_its_run(nodes: Nodes) -> None:
    nodes.start(1, "--llm-sweep", "4", "--llm-requests", "2000", *ANSWERS).await_rows(8, timeout_s=60)
    nodes.master.process.kill()
    nodes.master.process.communicate()
    nodes.start(0, "--llm-sweep", "3,3", "--llm-requests", "30", *ANSWERS, expected=1, prefix="second")
    done = nodes.finish(60)
    worker = nodes.workers[0].finish(20)
    assert done.code == 0, done.err
    assert [stage["requests_measured"] for stage in done.rows("stages")] == ["30", "30"]
    assert len({row["run_id"] for row in done.rows()}) == 1
    assert "this worker ends the run and is ready for the next" in worker.err
    assert worker.code == 0, worker.err
    (told,) = [line for line in worker.err.splitlines() if "llm-report " in line]
    spool = Path(told.split()[-1])
    first_run = nodes.master.prefix.with_name("run")
    assert spool.parent == Path(f"{first_run}_llm_spool")
    assert str(first_run) in told
    came_in = nodes.simulator.stop()["requests"]
    spooled = len(spool.read_text().splitlines()) - 1
    # A request that is cut before it has arrived has a row as well: of four users at most one each.
    assert came_in <= spooled + len(done.rows()) <= came_in + 4


def test_workers_of_a_master_that_is_killed_stop_at_once(tmp_path: Path) -> None:
    locust = Locust(tmp_path)
    with launch("ttft=50ms,itl=10ms", max_seconds=90) as simulator:
        running = locust.start("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "3000", "--processes",
                               "2", *ANSWERS, *master_ports())  # fmt: skip
        running.await_rows(8, timeout_s=60)
        children = subprocess.run(
            ["pgrep", "-P", str(running.process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        running.process.kill()
        killed_at = time.monotonic()
        wait_until(lambda: not any(is_alive(int(child)) for child in children), "the workers end", 20)
        assert time.monotonic() - killed_at < 15
        err = running.process.communicate()[1]
        came_in = simulator.stop()["requests"]
    told = [line for line in err.splitlines() if "llm-report " in line]
    assert len(told) == 2, err
    assert "the process that started this worker is gone" in err
    assert "Unknown message type" not in err
    spools = [Path(line.split()[-1]) for line in told]
    assert sum(len(spool.read_text().splitlines()) - 1 for spool in spools) == came_in


@pytest.mark.slow
def test_workers_of_a_master_that_is_gone_start_nothing_more_and_say_how_to_recover(
    nodes: Nodes,
) -> None:
    nodes.start(2, "--llm-sweep", "4", "--llm-requests", "3000", *ANSWERS).await_rows(40, timeout_s=60)
    nodes.master.process.kill()
    killed_at = time.time()
    nodes.master.process.communicate()
    finished = [worker.finish(100) for worker in nodes.workers]
    assert 60 < time.time() - killed_at < 90
    came_in = nodes.simulator.stop()["requests"]
    spools = []
    for worker in finished:
        assert worker.code == 3, worker.err
        assert "the master has not answered for 65 s" in worker.err
        (told,) = [line for line in worker.err.splitlines() if "llm-report " in line]
        spools.append(Path(told.split()[-1]))
    rows = [row for spool in spools for row in csv.DictReader(spool.read_text().splitlines())]
    assert len(rows) == came_in
    assert max(float(row["started_at"]) for row in rows) < killed_at + 5.5


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
