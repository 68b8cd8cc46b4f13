"""A worker that sends messages that are not valid does not disturb the run."""

from __future__ import annotations

from pathlib import Path

from llm_users.load.protocol.messages import MESSAGES, Live, WorkerMessage
from llm_users.simulator.launch import Simulator
from tests.ports import master_ports
from tests.system.locust_runs import Locust
from tests.tracebacks import tracebacks

JUNK_LOCUSTFILE = str(Path(__file__).with_name("junk_locustfile.py"))
KINDS = tuple(message.kind for message in MESSAGES if issubclass(message, WorkerMessage) and message is not Live)


def test_a_load_process_that_sends_junk_does_not_disturb_the_run(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "12", "--processes", "1",
                      *master_ports(), locustfile=JUNK_LOCUSTFILE, timeout_s=120)  # fmt: skip
    assert done.code == 0, done.err
    assert sum(row["phase"] == "measure" for row in done.rows()) == 12
    assert done.manifest["counts"]["sent"] == done.manifest["counts"]["received"]
    assert tracebacks(done.err) == []
    for kind in KINDS:
        complaints = [line for line in done.err.splitlines() if f"an invalid message {kind} from worker" in line]
        assert len(complaints) == 1, (kind, complaints)
