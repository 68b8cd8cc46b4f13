"""Starting, ending, and never staying behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import llm_users
from llm_users.simulator.launch import SimulatorError, launch

from .wire import Client

ROOT = Path(llm_users.__file__).resolve().parents[1]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-m", "llm_users.simulator.main", "--port", "0"]


def run_python(code, *, timeout=15):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=timeout, check=False)


def start(*options, **more):
    process = subprocess.Popen([*COMMAND, *options], env=ENV, stdout=subprocess.PIPE, text=True, **more)
    ready = process.stdout.readline()
    match = re.fullmatch(r"llm-simulator listening on http://127\.0\.0\.1:(\d+)/v1\n", ready)
    assert match, ready
    return process, int(match[1])


def gone(pid, within_s=5.0):
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # A dead child of a dead parent can stay a zombie where nobody reaps.
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_with_totals(number):
    process, port = start("--ttft", "1ms", "--itl", "1ms", "--spec", "ttft=9s,tokens=4")
    with Client(port) as client:
        assert len(client.chat().text().split()) == 4  # the option won over the spec, or this would take 9 s
        process.send_signal(number)
        rest, _ = process.communicate(timeout=5)
    assert process.returncode == 0
    totals = json.loads(rest)
    assert (totals["requests"], totals["completed"], totals["tokens"]) == (1, 1, 4)
    assert {"late_p50_us", "late_p99_us", "cpu_s", "cpu_us_per_token"} <= totals.keys()


def test_what_is_under_way_at_the_end_is_aborted(tmp_path):
    log = tmp_path / "log.jsonl"
    with launch("ttft=1ms,itl=10ms", log=log) as sim, Client(sim.port) as client:
        client.send("POST", "/v1/chat/completions", {"messages": [], "stream": True})
        time.sleep(0.1)
        assert sim.stop()["aborted"] == 1
    assert json.loads(log.read_text())["outcome"] == "aborted"


def test_max_seconds():
    process, _ = start("--max-seconds", "0.3")
    begin_s = time.monotonic()
    process.communicate(timeout=5)
    assert 0.1 < time.monotonic() - begin_s < 2
    assert process.returncode == 0


def test_stdin_eof():
    process, _ = start("--stdin-eof", stdin=subprocess.PIPE)
    process.stdin.close()
    assert json.loads(process.stdout.readline())["requests"] == 0
    assert process.wait(5) == 0


def test_stdin_that_cannot_end_is_refused():
    done = subprocess.run([*COMMAND, "--stdin-eof"], env=ENV, stdin=subprocess.DEVNULL, timeout=10, check=False)
    assert done.returncode in (0, 2)  # refused, or ended at once where /dev/null can be polled


def test_the_parent_s_death_ends_it():
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process, _ = start("--parent-pid", str(parent.pid))
    assert process.poll() is None
    parent.kill()
    parent.wait()
    assert process.wait(5) == 0


def test_a_killed_launcher_leaves_no_orphan():
    code = """
import os, signal
from llm_users.simulator.launch import launch
sim = launch()
print(sim.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_python(code)
    assert done.returncode == -signal.SIGKILL
    assert gone(int(done.stdout))


def test_a_launcher_that_forgets_leaves_no_orphan_and_its_forks_spare_it():
    code = """
import os, sys
from llm_users.simulator.launch import launch
sim = launch()
if os.fork() == 0:
    sys.exit(0)
os.wait()
assert sim._process.poll() is None
print(sim.pid, flush=True)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert gone(int(done.stdout), 1.0)


def test_in_a_process_patched_by_gevent():
    code = """
from gevent import monkey
monkey.patch_all()
import gevent, http.client
from llm_users.simulator.launch import launch
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.005)
gevent.spawn(tick)
with launch("ttft=1ms,itl=1ms,tokens=3") as sim:
    assert len(ticks) > 3, "starting blocked the other greenlets"
    connection = http.client.HTTPConnection("127.0.0.1", sim.port, timeout=5)
    connection.request("POST", "/v1/completions", '{"prompt": "a b"}')
    assert connection.getresponse().status == 200
    totals = sim.stop()
assert totals["completed"] == 1, totals
print("fine")
"""
    done = run_python(code)
    assert done.stdout == "fine\n", done.stderr


def test_it_imports_no_framework():
    code = "import sys, llm_users.simulator.main, llm_users.simulator.launch; print(sorted(sys.modules))"
    modules = run_python(code).stdout
    for name in ("'locust'", "'gevent'", "'pandas'", "'openai'", "'asyncio'"):
        assert name not in modules


def test_launch_says_why_it_failed(tmp_path):
    with launch() as sim, pytest.raises(SimulatorError, match=f"cannot listen on 127.0.0.1 port {sim.port}"):
        launch(port=sim.port)
    with pytest.raises(SimulatorError, match="cannot write the log"):
        launch(log=tmp_path / "missing" / "log")
    with pytest.raises(ValueError, match="Known keys"):
        launch("colour=blue")


def test_a_bad_option_exits_2():
    command = [*COMMAND, "--ttft", "200"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 2
    assert "unit" in done.stderr


def test_the_key_is_not_on_the_command_line():
    with launch("api_key=sesame") as sim:
        listing = Path(f"/proc/{sim.pid}/cmdline")
        if not listing.exists():
            pytest.skip("no /proc")
        assert b"sesame" not in listing.read_bytes()


def test_stop_twice_and_a_crash():
    sim = launch()
    assert sim.url == f"http://127.0.0.1:{sim.port}/v1"
    assert sim.stop() == sim.stop()
    sim = launch()
    os.kill(sim.pid, signal.SIGKILL)
    with pytest.raises(SimulatorError, match="without its totals"):
        sim.stop()
