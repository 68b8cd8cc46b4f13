"""What can be reached from outside, and where files can come to lie: loopback and the chosen folder, unless told so."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llm_reports.errors import InputError
from llm_reports.output_folder import write_files
from llm_users.collect.files import RunFiles, move_aside
from llm_users.record import RequestRecord
from llm_users.simulator.launch import launch
from tests.ports import free_port
from tests.project import ROOT

LOOPBACK = ("127.0.0.1", "::1")
HOSTILE = ["../../x", "/etc/passwd", "..", "a/b", "a\\b", "x" * 2000, "é" * 300, "-rf", "a\nb", "a\x00b", "~", "C:\\x"]


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    """Where a process and its children listen for connections from elsewhere."""
    found = set()
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            for connection in each.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
    return found


def test_the_simulator_is_for_this_machine_unless_told_otherwise() -> None:
    with launch("ttft=1ms,itl=1ms") as simulator:
        assert listening(psutil.Process(simulator.pid)) == {("127.0.0.1", simulator.port)}
    with launch("ttft=1ms,itl=1ms", options=["--host", "0.0.0.0"]) as simulator:
        assert listening(psutil.Process(simulator.pid)) == {("0.0.0.0", simulator.port)}


def test_a_run_with_all_of_it_opens_no_port_but_locust_s_own_and_the_loopback(tmp_path: Path) -> None:
    """Our pages are on the address that Locust's --web-host names; everything else is for this machine."""
    port = free_port()
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfiles" / "sweep.py"), "--llm-simulator",
               "--web-host", "127.0.0.1", "--web-port", str(port), "--csv", str(tmp_path / "run"), "--llm-sweep", "1",
               "--llm-requests", "3", "--autostart"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "OPENAI_"))}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        found: set[tuple[str, int]] = set()
        end_s = time.monotonic() + 60
        rows = tmp_path / "run_llm_requests.csv"
        while time.monotonic() < end_s and not (rows.exists() and len(rows.read_text().splitlines()) > 3):
            found |= listening(psutil.Process(process.pid))
            time.sleep(0.2)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert ("127.0.0.1", port) in found
    assert len(found) >= 2  # the simulator's too
    assert {address for address, _ in found} <= set(LOOPBACK)


@pytest.mark.parametrize("model", HOSTILE)
def test_names_in_rows_lead_no_file_out_of_the_folder(model: str, tmp_path: Path) -> None:
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    prefix = inside / "run"
    files = RunFiles(str(prefix), offsets=False)
    for stage in (1, 2):
        record = RequestRecord(
            request_id=f"a{stage}", run_id="../../r", stage=stage, measured=1, model=model, framework=model,
            name=model, user_class=model, concurrency=stage, ttft_s=0.1, end_to_end_latency_s=1.0, output_tokens=5,
            chunks=5, expected_answer="1" if stage == 2 else None, answer_match=1 if stage == 2 else None,
        )  # fmt: skip
        files.write_request(record.row())
    files.write_manifest({"run_id": "../../r", "model": model, "framework": model, "options": {}})
    files.close()
    before = set(everything(tmp_path))
    out = inside / "out"
    done = subprocess.run(
        [sys.executable, "-m", "llm_reports.main", str(prefix), "--out", str(out), "--format",
         "md,csv,json,html,parquet", "--plots", "svg"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    new = set(everything(tmp_path)) - before - {out}
    assert new
    assert {path.parent for path in new} == {out}
    assert any(path.name.endswith("_summary.json") for path in new)
    assert "Traceback" not in done.stderr


def everything(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "..", ".", ""])
def test_no_report_is_written_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a valid file name"):
        write_files({name: "x"}, tmp_path / "out")
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize("name", ["run", "run[1]", "run*", "r?n", "[!a]"])
def test_an_earlier_run_is_moved_aside_whatever_its_name(name: str, tmp_path: Path) -> None:
    for content in ("first", "second", "third"):
        (tmp_path / f"{name}_llm_requests.csv").write_text(content)
        move_aside(str(tmp_path / name))
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["first", "second", "third"]


def test_llmperf_s_files_of_two_long_names_are_kept_apart(tmp_path: Path) -> None:
    for number in (1, 2):
        files = RunFiles(str(tmp_path / f"run{number}"), offsets=False)
        model = "arn:aws:bedrock:" + "x" * 1500 + str(number)
        files.write_request(
            RequestRecord(request_id="a", stage=1, measured=1, model=model, ttft_s=0.1, end_to_end_latency_s=1.0,
                          output_tokens=5).row()
        )  # fmt: skip
        files.write_manifest({"model": model})
        files.close()
    done = subprocess.run(
        [sys.executable, "-m", "llm_reports.main", str(tmp_path / "run1"), str(tmp_path / "run2"), "--out",
         str(tmp_path / "out"), "--format", "json"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*_summary.json")]
    assert len({summary["model"] for summary in summaries}) == 2


def test_secrets_of_the_simulator_s_spec_are_in_no_file(tmp_path: Path) -> None:
    """The endpoint of the run verifies signatures with a secret that the run's own placeholder key does not have."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfiles" / "bedrock.py"), "--headless",
               "--llm-simulator", "ttft=1ms,itl=1ms,sigv4=simulator:canary/Secret+1,api_key=canary-key-2",
               "--llm-model", "us.amazon.nova-lite-v1:0", "--llm-sweep", "1", "--llm-requests", "3",
               "--csv", str(tmp_path / "out" / "run")]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "InvalidSignatureException" in done.stdout + done.stderr
    written = {path: path.read_text(errors="replace") for path in (tmp_path / "out").iterdir()}
    assert "sigv4=simulator:[redacted],api_key=[redacted]" in written[tmp_path / "out" / "run_llm_run.json"]
    assert not [path for path, text in written.items() if "canary" in text]
    assert "canary" not in done.stdout + done.stderr
