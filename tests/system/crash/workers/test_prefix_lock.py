"""Two runs with one prefix: the second is refused and changes nothing. Files of an earlier run are moved aside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from llm_users.collect.prefix_lock import hold
from llm_users.simulator.launch import Simulator
from tests.project import ROOT
from tests.system.locust_runs import Locust

SWEEP = ("--llm-sweep", "4", "--llm-warmup", "0", "--llm-output-tokens", "5,0")

LIBRARY = """
    from argparse import Namespace
    from locust import task
    from locust.env import Environment
    import llm_users
    from llm_users import OpenAIUser
    import sys

    class Chat(OpenAIUser):
        @task
        def ask(self):
            self.chat("hello", max_tokens=5)

    options = Namespace(llm_requests=20, csv_prefix=sys.argv[1])
    environment = Environment(user_classes=[Chat], host="http://127.0.0.1:9/v1", parsed_options=options)
    llm_users.attach(environment)
    environment.create_local_runner()
"""


def test_a_prefix_is_for_one_run_at_a_time(tmp_path: Path, endpoint: Simulator) -> None:
    locust = Locust(tmp_path)
    first = locust.start("--host", endpoint.url, *SWEEP, "--llm-requests", "4000")
    try:
        first.await_rows(10)
        stats = first.prefix.with_name("run_stats.csv")
        inode = stats.stat().st_ino
        second = locust.run("--host", endpoint.url, *SWEEP, "--llm-requests", "5")
        assert second.code == 2
        assert f"in use by process {first.process.pid} on " in second.err
        assert f"{first.prefix}_llm_run.lock" in second.err
        assert "Traceback" not in second.err
        library = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(LIBRARY), str(first.prefix)],
            capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        )  # fmt: skip
        assert library.returncode == 2, library.stderr
        assert f"in use by process {first.process.pid} on " in library.stderr
        assert sorted(path.name for path in tmp_path.glob("out/*.1_*")) == []
        assert stats.stat().st_ino == inode
        first.await_rows(50)
    finally:
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.communicate()
    killed = first.finished_rows("requests")
    gate = first.prefix.with_name("run_llm_gate.xml")
    gate.write_text("of the first run")
    report = first.prefix.with_name("run_report")
    report.mkdir()
    (report / "report.md").write_text("of the first run")

    third = locust.run("--host", endpoint.url, *SWEEP, "--llm-requests", "5")
    assert third.code == 0, third.err
    assert len(third.rows()) == 5
    assert not Path(f"{third.prefix}_llm_run.lock").exists()
    assert "renamed the files of an earlier run with this prefix to" in third.err
    aside = first.prefix.with_name("run.1")
    assert len(Path(f"{aside}_llm_requests.csv").read_text().splitlines()) - 1 >= len(killed)
    for suffix in ("_llm_stages.csv", "_llm_gaps.csv", "_llm_run.json", "_llm_gate.xml", "_report", "_failures.csv"):
        assert Path(f"{aside}{suffix}").exists(), suffix
    assert not gate.exists()
    assert not report.exists()


@pytest.mark.slow
def test_a_prefix_that_the_web_interface_has_is_in_use(tmp_path: Path, endpoint: Simulator) -> None:
    from tests.ports import free_port

    locust = Locust(tmp_path)
    web = locust.start("--host", endpoint.url, "--web-port", str(free_port()), headless=False)
    try:
        lock = Path(f"{web.prefix}_llm_run.lock")
        for _ in range(200):
            if lock.exists():
                break
            assert web.process.poll() is None
            time.sleep(0.1)
        second = locust.run("--host", endpoint.url, *SWEEP, "--llm-requests", "5")
        assert second.code == 2
        assert f"in use by process {web.process.pid} on " in second.err
    finally:
        web.interrupt()
    web.finish()
    assert not lock.exists()


CHDIR = """
import os
from locust import events, task
from llm_users import OpenAIUser

class Asker(OpenAIUser):
    @task
    def ask(self):
        self.chat()

@events.test_start.add_listener
def go_elsewhere(**_):
    os.makedirs("deep/er", exist_ok=True)
    os.chdir("deep/er")
"""


@pytest.mark.slow
def test_a_locustfile_may_change_the_working_directory(tmp_path: Path, endpoint: Simulator) -> None:
    locustfile = tmp_path / "chdir.py"
    locustfile.write_text(CHDIR)
    done = Locust(tmp_path).run(
        "--host", endpoint.url, *SWEEP, "--llm-requests", "40", "--csv", "out/rel", "--llm-report", "--llm-slo",
        "errors<0.5", csv=False, prefix="rel", locustfile=str(locustfile),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(done.rows()) == 40
    assert "finished_at" in done.manifest
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"rel_report", "rel_llm_gate.xml"} <= names
    assert not [name for name in names if name.endswith((".part", ".lock"))]
    assert not list((tmp_path / "deep").rglob("*llm*"))


@pytest.mark.slow
def test_without_a_prefix_two_runs_of_one_second_have_two_names(
    tmp_path: Path, endpoint: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [time.strftime("out/%Y-%m-%d_%H-%M-%S", time.localtime(time.time() + ahead_s)) for ahead_s in range(60)]
    locks = []
    for name in names:
        Path(name).mkdir(parents=True)
        locks.append(hold(f"{name}/run"))
    try:
        done = Locust(tmp_path).run("--host", endpoint.url, *SWEEP, "--llm-requests", "5", csv=False)
    finally:
        for lock in locks:
            lock.release()
    assert done.code == 0, done.err
    (rows,) = tmp_path.glob("out/*/run_llm_requests.csv")
    assert rows.parent.name.endswith("-2")
