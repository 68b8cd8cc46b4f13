"""Runs whose requests all fail in the same way: they end in seconds, with the server's words and exit code 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trustme

from llm_reports.main import main
from llm_users.run_files import GATE_XML, REQUESTS_CSV, path_of
from llm_users.simulator.launch import launch
from tests.ports import free_port
from tests.stream_bytes import reply
from tests.system.locust_runs import Finished, Locust
from tests.wire_server import Wire

FAST = "ttft=5ms,itl=1ms"
SWEEP = ("--llm-model", "m", "--llm-sweep", "4,8", "--llm-requests", "400")


def check_ended_early(done: Finished, words: str) -> None:
    """Check the exit code, the reason, the time to the end, and that the files of the run are complete."""
    assert done.code == 2, done.err
    rows = done.rows()
    # Without the start of the interpreter and the report, which take long on a busy machine.
    assert done.manifest["finished_at"] - float(rows[0]["started_at"]) < 10
    assert 6 <= len(rows) < 60
    assert all(words in row["error_message"] for row in rows)
    assert re.search(rf"the run ends: the endpoint cannot be used: all \d+ requests so far failed\..*{words}", done.err)
    last = [line for line in done.err.splitlines() if line.startswith("The endpoint cannot be used: ")]
    assert len(last) == 1
    assert done.err.splitlines()[-1] == last[0], "the reason is the last thing printed"
    assert words in last[0]
    assert len(re.findall("first failure of this kind", done.err)) == 1
    assert len(done.rows("stages")) == 1  # the second stage was not started
    assert any(words in note for note in done.manifest["notes"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("api_key=correct-horse-battery", "provide an API key"),
        ("check_model=on", "does not exist"),
        ("check_model=on,model=mm", "did you mean 'mm'"),
    ],
)
def test_a_run_ends_when_its_first_requests_are_refused(locust: Locust, spec: str, words: str) -> None:
    with launch(f"{FAST},{spec}", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, *SWEEP, "--llm-report", "--llm-slo", "ttft_p95<1")
    check_ended_early(done, words)
    assert (done.prefix.parent / "run_report" / "report.html").exists()


def test_a_single_user_finds_out_in_seconds(locust: Locust) -> None:
    with launch(f"{FAST},error=401:1", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-model", "m", "--llm-sweep", "1,2")
    check_ended_early(done, "The server had an error")
    assert len(done.rows()) == 6


def test_a_run_ends_when_nothing_listens(locust: Locust) -> None:
    done = locust.run("--host", f"http://127.0.0.1:{free_port()}/v1", *SWEEP)
    check_ended_early(done, "Connection refused")
    assert "its first requests all failed to connect" not in done.err  # one reason is enough


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_the_root_of_a_server_is_completed(locust: Locust, processes: tuple[str, ...]) -> None:
    with launch(FAST, max_seconds=60) as simulator:
        root = simulator.url.removesuffix("/v1")
        done = locust.run("--host", root, "--llm-sweep", "2", "--llm-requests", "10", *processes)
        assert simulator.stop()["completed"] >= 10
    assert done.code == 0, done.err
    assert {row["endpoint"] for row in done.rows()} == {simulator.url}
    assert done.err.count(f"--host {root} is the root of a server; the run uses its API at {simulator.url}") == 1
    assert "/INFO/llm_users.load.coordinator.worker_pool: no OPENAI_API_KEY in the environment" in done.err
    assert "Ramping to" not in done.err
    assert "All users spawned" not in done.err or processes  # forked workers keep Locust's lines


def test_the_gate_gives_the_reason_when_nothing_listens(locust: Locust) -> None:
    """In the last lines, in the JUnit file, and in the job summary."""
    done = locust.run("--host", f"http://127.0.0.1:{free_port()}/v1", *SWEEP, "--llm-slo", "ttft_p95<1,errors<1%")
    assert done.code == 2
    gate, last = done.err.rstrip().splitlines()[-2:]
    assert gate.startswith("Gate undecided: all requests: ")
    assert last.startswith("The endpoint cannot be used: ")
    junit = path_of(done.prefix, GATE_XML).read_text()
    for text in (gate, last, junit, done.out):
        assert "Connection refused" in text
    assert junit.count("<error") == 2


@pytest.mark.parametrize("server_has_tls", [True, False])
def test_a_wrong_scheme_ends_the_run_with_the_right_one(locust: Locust, tmp_path: Path, server_has_tls: bool) -> None:
    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with Wire() as wire, launch(FAST, max_seconds=60) as simulator:
        if server_has_tls:
            address = f"127.0.0.1:{wire.serve(reply('200 OK', {}), tls=pem).port}"
            given, right = f"http://{address}", f"write https://{address}"
        else:
            address = simulator.url.removesuffix("/v1").removeprefix("http://")
            given, right = f"https://{address}", f"the URL begins with http://{address}"
        done = locust.run("--host", f"{given}/v1", *SWEEP)
    check_ended_early(done, right)


@pytest.mark.parametrize("option", ["--host", "--llm-targets"])
def test_the_url_of_a_request_is_refused_before_anything_is_sent(locust: Locust, option: str) -> None:
    with launch(FAST, max_seconds=60) as simulator:
        url = f"{simulator.url}/chat/completions"
        given = [option, url, "--llm-model", "m"] if option == "--host" else [option, f"m@{url}"]
        done = locust.run(*given, "--llm-sweep", "1")
        assert simulator.stop()["requests"] == 0
    assert done.code == 2
    assert f"{url}: it ends with /chat/completions" in done.err
    assert f"write {simulator.url}\n" in done.err


def test_a_run_without_a_sweep_ends_too(locust: Locust) -> None:
    with launch(f"{FAST},error=404:1", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-model", "m", "-u", "3", "-t", "60s")
    check_ended_early(done, "The server had an error")


def test_a_run_with_several_processes_ends_too(locust: Locust) -> None:
    with launch(f"{FAST},api_key=correct-horse-battery", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, *SWEEP, "--processes", "2")
    check_ended_early(done, "provide an API key")
    assert {row["worker"] for row in done.rows()} == {"0", "1"}
    assert not any(entry["lost"] for entry in done.manifest["workers"].values())


def test_a_worker_without_a_key_does_not_end_the_run_of_the_others(locust: Locust) -> None:
    port = str(free_port())
    with launch("ttft=3s,itl=1ms,api_key=correct-horse-battery", max_seconds=90) as simulator:
        master = locust.start("--host", simulator.url, "--llm-model", "m", "--llm-sweep", "8", "--llm-requests", "60",
                              "--llm-warmup", "0", "--master", "--expect-workers", "2",
                              "--master-bind-port", port)  # fmt: skip
        key = {"OPENAI_API_KEY": "correct-horse-battery"}
        workers = [locust.start("--worker", "--master-port", port, prefix="with", env=key),
                   locust.start("--worker", "--master-port", port, prefix="without")]  # fmt: skip
        done = master.finish(90)
        for worker in workers:
            worker.finish(20)
    assert done.code == 1, done.err
    assert len([row for row in done.rows() if row["measured"] == "1"]) == 60


@pytest.mark.parametrize("spec", ["error=404:0.5", "error=500:1", "error=429:0.2+400:0.8"])
def test_a_run_continues_after_other_answers(locust: Locust, spec: str) -> None:
    with launch(f"{FAST},{spec}", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-model", "m", "--llm-sweep", "8", "--llm-requests", "60",
                          "--llm-warmup", "0")  # fmt: skip
    assert done.code == 1, done.err
    assert len(done.rows()) == 60
    assert "cannot be used" not in done.err


def test_keep_going_measures_failures(locust: Locust) -> None:
    with launch(f"{FAST},error=400:1", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-model", "m", "--llm-sweep", "8", "--llm-requests", "40",
                          "--llm-warmup", "0", "--llm-keep-going")  # fmt: skip
    assert done.code == 1, done.err
    assert len(done.rows()) == 40


def test_a_run_that_is_shorter_than_the_first_answers_has_the_same_exit_code(locust: Locust) -> None:
    with launch(f"{FAST},error=401:1", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-model", "m", "--llm-sweep", "1", "--llm-requests", "2",
                          "--llm-warmup", "0")  # fmt: skip
    assert done.code == 2, done.err
    assert "the endpoint cannot be used: all 2 requests so far failed" in done.err


def test_failures_are_logged_at_once_and_counted_at_the_end(locust: Locust) -> None:
    with launch(f"{FAST},error=429:0.3+500:0.3", max_seconds=60) as faulty:
        done = locust.run("--host", faulty.url, "--llm-model", "m", "--llm-sweep", "4", "--llm-requests", "60",
                          "--llm-warmup", "0")  # fmt: skip
    codes = [row["error_code"] for row in done.rows()]
    lines = done.err.splitlines()
    for code in ("429", "500"):
        (first,) = [number for number, line in enumerate(lines) if f"first failure of this kind: {code}: " in line]
        (end,) = [number for number, line in enumerate(lines) if re.search(rf"failures in all: {code}: ", line)]
        done_at = next(number for number, line in enumerate(lines) if "stage 1 done" in line)
        assert first < done_at < end
        assert f"{codes.count(code)} failures in all: {code}" in lines[end]


def test_an_unreachable_server_is_the_cause_in_every_output(locust: Locust, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    done = locust.run("--host", url, "--llm-sweep", "4", "--llm-requests", "400", "--llm-slo", "ttft_p95<1")
    cause = f"cannot connect to {url.removesuffix('/v1')}: "
    assert done.code == 2, done.err
    assert f"the run is refused: {cause}" in done.err
    junit = Path(path_of(done.prefix, GATE_XML)).read_text()
    assert f'<error type="undecided" message="{cause}' in junit

    summary, xml = tmp_path / "summary.md", tmp_path / "report.xml"
    command = [str(done.prefix), "--slo", "ttft_p95<1", "--junit", str(xml), "--github-summary", str(summary)]
    assert main(command) == 3
    for text in (summary.read_text(), xml.read_text()):
        assert cause in text
        assert "Did the run end" not in text

    summary.unlink()
    other = tmp_path / "other_llm_requests.csv"
    other.write_bytes(Path(path_of(done.prefix, REQUESTS_CSV)).read_bytes())
    compared = ["compare", str(done.prefix), str(other), "--junit", str(xml), "--github-summary", str(summary)]
    assert main(compared) == 2
    for text in (summary.read_text(), xml.read_text()):
        assert cause in text
        assert "in common" not in text
