"""What a second run sends: the same lengths, caps and order, other texts; the same texts only where that was asked for.

Runs of the real `locust` over real sockets. A prefix cache would answer what two runs have in common.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_reports
from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import Tokenizer, load_tokenizer, make_source
from tests.ports import free_port
from tests.project import ROOT
from tests.system.locust_runs import Finished, Locust
from tests.unit.prompts.recorder import Recorder

pytestmark = pytest.mark.slow

ONE_USER = ("--llm-model", "m", "--llm-sweep", "1", "--llm-requests", "8", "--llm-warmup", "0",
            "--llm-input-tokens", "60,10", "--llm-output-tokens", "20,5")  # fmt: skip
MAY_ANSWER = "a prefix cache may answer them"
CONVERSATIONS = str(ROOT / "locustfiles" / "conversations.py")
CORRECTNESS = str(ROOT / "locustfiles" / "correctness.py")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(None)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as running:
        yield running


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder for what runs remember of each other."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def sent(locust: Locust, recorder: Recorder, prefix: str, *arguments: str, **more: str) -> tuple[Finished, list[str]]:
    """A run of one user, and the texts that it sent in their order."""
    before = len(recorder.bodies)
    done = locust.run("--host", recorder.url, *ONE_USER, *arguments, prefix=prefix, **more)
    assert done.code == 0, done.err
    return done, [str(body["messages"]) for body in recorder.bodies[before:]]


def repetition_notes(done: Finished) -> list[str]:
    return [note for note in done.manifest["notes"] if MAY_ANSWER in note]


def test_a_second_run_has_the_lengths_of_the_first_and_other_texts(
    locust: Locust, recorder: Recorder, tokenizer: Tokenizer
) -> None:
    runs = [sent(locust, recorder, name)[0] for name in ("one", "two")]
    bodies = recorder.bodies[:8], recorder.bodies[8:]
    texts = [[body["messages"][0]["content"] for body in part] for part in bodies]
    assert [body["max_tokens"] for body in bodies[0]] == [body["max_tokens"] for body in bodies[1]]
    counts = [[tokenizer.count(text) for text in part] for part in texts]
    assert counts[0] == counts[1] == [int(row["input_tokens"]) for row in runs[0].rows()]
    assert [row["prompt_index"] for row in runs[0].rows()] == [row["prompt_index"] for row in runs[1].rows()]
    longest = max(len(os.path.commonprefix([one, two])) for one in texts[0] for two in texts[1])  # noqa: RUF071 - texts
    assert longest <= 20  # letters: two words
    keys = [done.manifest["run_key"] for done in runs]
    assert keys[0] != keys[1]
    assert all(len(key) == 16 for key in keys)
    assert [repetition_notes(done) for done in runs] == [[], []]
    # What pairing by prompt index needs is in the manifest.
    options = [done.manifest["options"] for done in runs]
    assert options[0] == options[1]
    assert {"llm_seed": "11111", "llm_input_tokens": "60,10", "llm_output_tokens": "20,5", "llm_prompts": None,
            "llm_repeat_prompts": False, "llm_run_key": None}.items() <= options[0].items()  # fmt: skip


def test_workers_send_each_prompt_of_the_run_once_also_one_that_joins_late(
    locust: Locust, tokenizer: Tokenizer
) -> None:
    port = str(free_port())
    with Recorder(delay_s=0.1) as endpoint:
        master = locust.start("--host", endpoint.url, "--llm-model", "m", "-u", "6", "-r", "6", "-t", "60s", "--master",
                              "--expect-workers", "2", "--master-bind-port", port)  # fmt: skip
        for number in range(2):
            locust.start("--worker", "--master-port", port, prefix=f"worker{number}")
        master.await_rows(20)
        locust.start("--worker", "--master-port", port, prefix="late")
        limit = time.monotonic() + 40
        while time.monotonic() < limit and not any(row["worker"] == "2" for row in master.finished_rows("requests")):
            time.sleep(0.2)
        master.interrupt()
        done = master.finish(60)
    assert done.code == 0, done.err
    rows = done.rows()
    assert {row["worker"] for row in rows} == {"0", "1", "2"}
    indices = [int(row["prompt_index"]) for row in rows]
    assert len(set(indices)) == len(indices)
    length, cap = Distribution.parse("20,5", LENGTHS), Distribution.parse("8,2", LENGTHS)  # what the fixture gives
    run_key = done.manifest["run_key"]
    prompts = make_source(tokenizer=tokenizer, input_lengths=length, output_lengths=cap, seed=11111, run_key=run_key)
    assert sorted(endpoint.texts) == sorted(prompts.prompt(index).text or "" for index in indices)


def test_the_texts_of_a_run_are_sent_again_only_when_asked_for(locust: Locust, recorder: Recorder) -> None:
    first, texts = sent(locust, recorder, "one", "--llm-repeat-prompts", "--llm-report")
    second, again = sent(locust, recorder, "two", "--llm-repeat-prompts")
    assert texts == again
    said = "the prompts repeat those of earlier runs with this seed"
    assert repetition_notes(first) == [f"{said}; {MAY_ANSWER}"]
    (note,) = repetition_notes(second)
    assert note.startswith(f"{said}, last on 20")
    assert f"{said}; {MAY_ANSWER}" in " ".join(first.out.split())  # under the tables
    new, fresh = sent(locust, recorder, "three")
    assert set(fresh).isdisjoint(texts)
    repeated, same = sent(locust, recorder, "four", "--llm-run-key", new.manifest["run_key"])
    assert same == fresh
    assert repeated.manifest["run_key"] == repeated.manifest["options"]["llm_run_key"] == new.manifest["run_key"]
    (note,) = repetition_notes(repeated)
    assert note.startswith(f"{said} and --llm-run-key {new.manifest['run_key']}")


def test_given_texts_are_noted_when_this_machine_sent_them_to_this_endpoint_before(
    locust: Locust, recorder: Recorder, tmp_path: Path, state: Path
) -> None:
    (tmp_path / "p.csv").write_text("question\nName a river of Wales.\nName a sea.\n")
    given = ("--llm-prompts", f"{tmp_path / 'p.csv'}:question")
    assert repetition_notes(sent(locust, recorder, "one", *given)[0]) == []
    done, _ = sent(locust, recorder, "two", *given, "--llm-report")
    (note,) = repetition_notes(done)
    assert note.startswith("an earlier run on this machine sent the same prompts to this endpoint, last on 20")
    assert "--llm-cache-bust" in note
    assert "--enable-prompt-tokens-details" in note
    assert "sent the same prompts to this endpoint" in " ".join(llm_reports.report_run(str(done.prefix)).text.split())
    for name, other in {
        "bust": (*given, "--llm-cache-bust"),
        "model": (*given, "--llm-model", "other"),
        "text": ("--llm-prompt", "Name a river of Wales."),
        "prefix": (*given, "--llm-shared-prefix", "40x1"),  # the run's own text stands first
    }.items():
        assert repetition_notes(sent(locust, recorder, name, *other)[0]) == [], name
    with Recorder() as elsewhere:
        assert repetition_notes(sent(locust, elsewhere, "elsewhere", *given)[0]) == []
    assert len(repetition_notes(sent(locust, recorder, "text2", "--llm-prompt", "Name a river of Wales.")[0])) == 1
    (register,) = state.rglob("*.json")
    kept = json.loads(register.read_text())
    assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in kept["sent"])
    assert not any(word in register.read_text() for word in ("Wales", "127.0.0.1", "p.csv"))


def test_conversations_of_a_file_are_noted_and_made_ones_are_not(
    locust: Locust, recorder: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "talks.jsonl").write_text('{"turns": ["Name a river.", "How long is it?"]}\n')
    given = ("--llm-conversations", str(tmp_path / "talks.jsonl"), "--llm-think-time", "0")
    for name, arguments, notes in (
        ("one", given, 0), ("two", given, 1), ("three", given[2:], 0), ("four", given[2:], 0)
    ):  # fmt: skip
        done, _ = sent(locust, recorder, name, *arguments, locustfile=CONVERSATIONS)
        assert len(repetition_notes(done)) == notes, name
    assert len({str(body["messages"][0]) for body in recorder.bodies[16:]}) >= 4


def test_a_state_folder_that_cannot_be_written_costs_the_note_only(
    locust: Locust, recorder: Recorder, state: Path
) -> None:
    state.write_text("a file in its place")
    for name in ("one", "two"):
        done, _ = sent(locust, recorder, name, "--llm-prompt", "Why?")
        assert repetition_notes(done) == []
        assert "Traceback" not in done.err


def test_questions_of_the_correctness_test_differ_between_runs(locust: Locust, recorder: Recorder) -> None:
    runs = [
        sent(locust, recorder, name, *arguments, locustfile=CORRECTNESS)
        for name, arguments in (
            ("one", ()),
            ("two", ()),
            ("three", ("--llm-run-key", "k")),
            ("four", ("--llm-run-key", "k")),
        )
    ]
    texts = [part for _, part in runs]
    assert set(texts[0]).isdisjoint(texts[1])
    assert texts[2] == texts[3]
    assert [row["expected_answer"] for row in runs[2][0].rows()] == [
        row["expected_answer"] for row in runs[3][0].rows()
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--llm-repeat-prompts", "--llm-run-key", "k"], "--llm-repeat-prompts and --llm-run-key exclude each other"),
        (["--llm-run-key", "a b"], "--llm-run-key: 'a b' is not a run key; copy run_key from a manifest"),
    ],
)
def test_a_bad_key_ends_the_run_before_it_begins(locust: Locust, arguments: list[str], complaint: str) -> None:
    done = locust.run("--host", "http://127.0.0.1:9/v1", "--llm-model", "m", *arguments)
    assert done.code == 2
    assert complaint in done.err
