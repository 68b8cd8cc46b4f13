"""Files that a run reads: a bad one ends it in one line with exit code 2, wherever it is read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator
from tests.ports import free_port, master_ports
from tests.project import ROOT
from tests.system.locust_runs import Finished, Locust
from tests.tracebacks import tracebacks
from tests.unit.prompts.recorder import Recorder

NOWHERE = ("--host", "http://127.0.0.1:9/v1", "--llm-model", "m")
CONVERSATIONS = str(ROOT / "locustfiles" / "conversations.py")


def assert_refused(run: Finished, said: str) -> None:
    assert run.code == 2, run.err
    assert tracebacks(run.err) == []
    lines = [line for line in run.err.splitlines() if said in line]
    assert len(lines) == 1, run.err
    assert lines[0].startswith("locust-llm: --llm-")
    assert "no test is running" not in run.err


def test_a_bad_file_is_one_line(locust: Locust, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 100)[:-12])
    assert_refused(locust.run(*NOWHERE, "--llm-prompts", str(path)), "data is damaged or incomplete")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "name", "content", "said"),
    [
        ("--llm-prompts", "p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', "p.jsonl', line 2: has text; an entry has"),
        ("--llm-conversations", "c.jsonl", "\n \n", "conversations file"),
        ("--llm-trace", "t.csv", "time,in,out\n1,2,3\n", "Timestamp, Request tokens, Response tokens (BurstGPT)"),
        ("--llm-tokenizer", "tokenizer.json", '{"a": 1}', "this file cannot be read as a tokenizer.json"),
    ],
)
def test_a_bad_file_is_one_line_with_processes(
    locust: Locust, tmp_path: Path, option: str, name: str, content: str, said: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    locustfile = CONVERSATIONS if option == "--llm-conversations" else str(ROOT / "locustfiles" / "chat.py")
    for processes in ([], ["--processes", "2", *master_ports()]):
        assert_refused(locust.run(*NOWHERE, option, str(path), *processes, locustfile=locustfile), said)


@pytest.mark.slow
def test_what_only_a_worker_cannot_read_ends_the_run_too(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    """The file has the same name on both machines and is empty on one of them."""
    (tmp_path / "prompts.txt").write_text("a\n")
    elsewhere = Locust(tmp_path / "elsewhere")
    elsewhere.folder.mkdir()
    (elsewhere.folder / "prompts.txt").write_text("\n")
    port = str(free_port())
    try:
        master = locust.start("--host", simulator.url, "--llm-sweep", "1", "--llm-prompts", "prompts.txt", "--master",
                              "--expect-workers", "1", "--master-bind-port", port)  # fmt: skip
        worker = elsewhere.start("--worker", "--master-port", port)
        done, other = master.finish(60), worker.finish(60)
    finally:
        elsewhere.stop_all()
    assert done.code == 2, done.err
    assert sum("prompts file 'prompts.txt' has no prompts" in line for line in done.err.splitlines()) == 1
    assert tracebacks(done.err) == tracebacks(other.err) == []


@pytest.mark.slow
def test_empty_entries_and_recorded_answers_are_counted_in_the_notes(locust: Locust, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    path = tmp_path / "p.jsonl"
    path.write_text(
        "".join(json.dumps(each) + "\n" for each in ({"prompt": ""}, {"messages": messages}, {"prompt": "b"}))
    )
    with Recorder() as endpoint:
        run = locust.run("--host", endpoint.url, "--llm-model", "m", "--llm-sweep", "1", "--llm-requests", "4",
                         "--llm-prompts", str(path))  # fmt: skip
    assert run.code == 0, run.err
    sent = {message["content"] for body in endpoint.bodies for message in body["messages"]}
    assert sent == {"hi", "b"}
    for words in ("1 of 3 prompts is empty and is skipped", "1 of 3 prompts end with a recorded answer, which is not"):
        assert any(words in note for note in run.manifest["notes"])
    assert "1 of 3 prompts is empty and is skipped" in " ".join(run.out.split())


@pytest.mark.slow
def test_the_unit_of_a_trace_is_said_or_given(locust: Locust, simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    times = (0, 0.5, 1.5)
    path.write_text(
        "".join(json.dumps({"timestamp": at, "input_length": 50, "output_length": 2}) + "\n" for at in times)
    )
    guessed = locust.run("--host", simulator.url, "--llm-trace", str(path))
    assert guessed.code == 0, guessed.err
    assert guessed.rows("stages")[0]["rate_per_s"] == "1.33333"  # two gaps in 1.5 s
    note = next(note for note in guessed.manifest["notes"] if "read as seconds" in note)
    assert "3 requests in 1.5 s, 1.33333 per second" in note
    given = locust.run("--host", simulator.url, "--llm-trace", str(path), "--llm-trace-unit", "ms", prefix="given")
    assert given.rows("stages")[0]["rate_per_s"] == "1333.33"
    assert not any("read as" in note for note in given.manifest["notes"])
