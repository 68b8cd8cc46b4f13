"""``llm-bench quick`` in whole runs: its figures against endpoints with known timing, its exit codes, its secrets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llm_users.simulator.launch import launch
from tests.ports import free_port
from tests.system.locust_runs import Finished

KEY = "sk-canary-0123456789abcdef"
SHORT = ("--llm-stage-time", "2s", "--llm-input-tokens", "50", "--llm-output-tokens", "50")


def command(*arguments: str, ports: dict[int, str] | None = None) -> list[str]:
    """The command, with other ports than the usual ones, which other programs of this machine may use."""
    if ports is None:
        return [sys.executable, "-m", "llm_users.cli", "quick", *arguments]
    code = "from llm_users.cli import locustfile; from llm_users.quick.command import main; import sys; "
    return [sys.executable, "-c", f"{code} sys.exit(main({[*arguments]!r}, locustfile(), {ports!r}))"]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LOCUST_"))}
    return {**kept, "LOCUST_LLM_RATE": "5", "LOCUST_USERS": "7", **more}  # options of the caller have no effect


def quick(folder: Path, *arguments: str, ports: dict[int, str] | None = None, **variables: str) -> Finished:
    (folder / "locust.conf").write_text("llm-rate = 5\n")  # this file has no effect either
    done = subprocess.run(
        command(*arguments, ports=ports), cwd=folder, env=environment(**variables), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    prefix = re.search(r"llm-report (out/\S+)", done.stdout)
    return Finished(done.returncode, done.stdout, done.stderr, folder / (prefix[1] if prefix else "none"))


def table(run: Finished) -> list[list[str]]:
    """The cells of the table; times with their unit are one cell."""
    lines = run.out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("users"))
    return [re.split(r" (?!m?s\b) *", line.strip()) for line in lines[start + 1 :] if re.match(r" *\d+ ", line)]


def result(run: Finished) -> str:
    text = " ".join(run.out.split())
    return text[text.index("One user:") : text.index("Next, ")]


def test_the_sentences_have_the_known_times_of_the_server_and_the_knee_of_its_capacity(tmp_path: Path) -> None:
    """60 ms to the first token and 10 ms per token; above 4 answers at a time, a token takes longer for all."""
    run = quick(tmp_path, "--llm-simulator", "ttft=60ms,itl=10ms,capacity=4", *SHORT)
    assert run.code == 0, run.err
    rows = table(run)
    assert [row[0] for row in rows] == ["1", "2", "4", "8"]
    text = result(run)
    single = re.match(r"One user: first token in ([\d.]+) ms, ([\d.]+) tokens/s\. With 8 users: first token", text)
    assert single is not None, text
    assert 60 <= float(single[1]) < 70
    eight = re.search(r", ([\d.]+) tokens/s each", text)
    assert eight is not None, text
    # The numbers of the table: with 8 users, who share the capacity of 4, an answer takes 60 + 49 x 20 ms.
    assert (single[2], eight[1]) == (rows[0][5], rows[3][5])
    assert float(eight[1]) == pytest.approx(48.1, rel=0.1)
    assert "beyond 4 users, each user gets less than 80 % of the tokens/s that a single user gets." in text
    # An answer of 50 tokens takes 60 + 49 x 10 ms, so a user gets 50 / 0.55 = 90.9 tokens/s; 4 users get 364.
    assert float(rows[0][5]) == pytest.approx(90.9, rel=0.03)
    assert float(rows[2][6]) == pytest.approx(364, rel=0.1)
    assert "--llm-sweep 1,2,4,8 --llm-report" in run.out
    assert max(map(len, run.out.splitlines())) <= 80

    # The files of the run are those of every other run, and their rows have the figures of the table.
    measured = [row for row in run.rows() if row["measured"] == "1" and not row["error_code"]]
    assert [str(sum(row["stage"] == stage["stage"] for row in measured)) for stage in run.rows("stages")] == [
        row[1] for row in rows
    ]


def test_a_server_without_a_limit_has_no_knee_and_the_next_sweep_goes_higher(tmp_path: Path) -> None:
    with launch("ttft=30ms,itl=4ms") as simulator:
        ports = {free_port(): "vLLM", simulator.port: "SGLang"}
        run = quick(tmp_path, "--llm-sweep", "1,4", *SHORT, ports=ports, OPENAI_API_KEY=KEY)
    assert run.code == 0, run.err
    assert f"Server: http://127.0.0.1:{simulator.port}/v1 (the usual port of SGLang)\nModel: simulated\n" in run.out
    assert "up to 4 users, each user gets at least 80 %" in result(run)
    assert f"--host http://127.0.0.1:{simulator.port}/v1" in run.out
    assert "--llm-sweep 1,2,4,8,16 --llm-report" in run.out
    assert "no OPENAI_API_KEY in the environment" in " ".join(run.manifest["notes"])  # the user did not name the server


def test_a_root_and_a_key_are_used_and_the_key_appears_nowhere(tmp_path: Path) -> None:
    with launch(f"ttft=5ms,itl=1ms,api_key={KEY}") as simulator:
        root = simulator.url.removesuffix("/v1")
        run = quick(tmp_path, root, "--llm-sweep", "1", *SHORT, OPENAI_API_KEY=KEY)
        refused = quick(tmp_path, root)
    assert run.code == 0, run.err
    assert f"Server: {root}/v1\n" in run.out
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if KEY in path.read_text(errors="replace")]
    assert KEY not in run.out + run.err
    assert refused.code == 2
    assert "requires a key (401). Set the key in the environment variable OPENAI_API_KEY." in _flat(refused.err)


def test_the_exit_code_is_0_whatever_the_client_s_health_is(tmp_path: Path) -> None:
    """One tenth of the requests fail, and each stage is too short for a verdict on the client."""
    run = quick(tmp_path, "--llm-simulator", "ttft=5ms,itl=1ms,error=500:0.1", "--llm-sweep", "2", *SHORT)
    assert run.code == 0, run.err
    assert re.search(r"Note: \d+ of \d+ requests failed, the first one with 500: ", _flat(run.out))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--llm-simulator", "error=400:1"), "every request failed: 400: "),
        (("http://127.0.0.1:1",), "GET http://127.0.0.1:1/models fails ([Errno 111] Connection refused). Check that"),
    ],
)
def test_without_a_result_the_exit_code_is_2_and_the_reason_is_printed(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    began_s = time.monotonic()
    run = quick(tmp_path, *arguments)
    assert run.code == 2
    assert said in _flat(run.err)
    assert "Traceback" not in run.err
    assert max(map(len, run.err.splitlines())) <= 80
    assert time.monotonic() - began_s < 40  # the stages after a failed one do not run


def test_no_local_server_is_exit_code_2_with_what_to_do(tmp_path: Path) -> None:
    port = free_port()
    run = quick(tmp_path, ports={port: "vLLM"})
    assert run.code == 2
    assert f"Tried ports {port} (vLLM). Start a server" in _flat(run.err)


def test_a_refused_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the run's folder must be")
    run = quick(tmp_path, "--llm-simulator")
    assert run.code == 2
    assert "llm-bench quick: the run has no result: " in _flat(run.err)
    assert "out" in run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_no_process(tmp_path: Path, number: int, code: int) -> None:
    process = psutil.Popen(
        command("--llm-simulator"), cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    limit_s = time.monotonic() + 30
    while len(children := process.children(recursive=True)) < 2 and time.monotonic() < limit_s:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert len(children) == 2  # Locust and the simulated endpoint
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--llm-sweep", "many"), "'many' is not a list of concurrencies"),
        (("--llm-simulator", "ttft=fast"), "ttft"),
        (("http://127.0.0.1:1", "--llm-simulator"), "not allowed with argument"),
        (("--llm-rate", "5"), "unrecognized arguments"),
    ],
)
def test_options_that_cannot_be_used_are_refused(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    run = quick(tmp_path, *arguments)
    assert run.code == 2
    assert complaint in run.err


def test_both_helps_mention_it(tmp_path: Path) -> None:
    text = quick(tmp_path, "--help").out
    assert "usual ports" in text
    assert max(map(len, text.splitlines())) <= 80
    whole = subprocess.run(
        [sys.executable, "-m", "llm_users.cli", "--help"], capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "llm-bench quick [URL]" in whole


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_a_price_file_adds_the_cost_of_all_requests(tmp_path: Path) -> None:
    """1 USD per 1,000 input tokens and 10 USD per 1,000 output tokens, for what the server's log counts."""
    (tmp_path / "prices.json").write_text(
        '{"currency": "USD", "models": {"simulated": {"input": 1000, "output": 10000}}}'
    )
    log = tmp_path / "log.jsonl"
    with launch("ttft=20ms,itl=2ms", log=log, max_seconds=60) as simulator:
        run = quick(tmp_path, simulator.url, *SHORT, "--llm-sweep", "1,2", "--llm-prices", "prices.json")
    assert run.code == 0, run.err
    found = re.search(
        r"Cost: ([\d,.]+) USD for ([\d,]+) requests with ([\d,]+) input and ([\d,]+) output tokens, warm-ups included; "
        r"([\d,.]+) USD per 1,000 requests",
        " ".join(run.out.split()),
    )
    assert found is not None, run.out
    cost, requests, given, received, each = (float(text.replace(",", "")) for text in found.groups())
    entries = [entry for entry in map(json.loads, log.read_text().splitlines()) if entry["tokens"]]
    # Requests that the end of a stage cut off are rows too, if they had output.
    assert requests == pytest.approx(len(entries), abs=3)
    assert given == pytest.approx(sum(entry["prompt_tokens"] for entry in entries), rel=0.05)
    assert cost == pytest.approx(given / 1000 + received / 100, abs=0.01)
    assert each == pytest.approx(1000 * cost / requests, rel=0.001)
    assert quick(tmp_path, simulator.url, "--llm-prices", "missing.json").code == 2
