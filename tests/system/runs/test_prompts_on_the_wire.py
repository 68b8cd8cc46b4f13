"""What a server is asked when the options say so: runs of the real `locust`, over real sockets, in processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_reports
from llm_users.prompts import Prefixes, Tokenizer, load_tokenizer, make_source, parse_mix
from llm_users.simulator.launch import launch
from tests.ports import free_port
from tests.system.locust_runs import Locust
from tests.unit.prompts.recorder import Recorder

pytestmark = pytest.mark.slow

TWO_MODELS = """
from locust import task
from llm_users import OpenAIUser

class Small(OpenAIUser):
    weight = 3
    model = "small"
    host = "{small}"
    framework = "one"
    @task
    def ask(self):
        self.chat()

class Large(OpenAIUser):
    weight = 1
    model = "large"
    host = "{large}"
    framework = "other"
    @task
    def ask(self):
        self.chat()
"""

BY_TASK = """
from locust import task
from llm_users import OpenAIUser

class Mixed(OpenAIUser):
    @task(3)
    def small(self):
        self.chat(model="small")

    @task(1)
    def large(self):
        self.chat(model="large")
"""


@pytest.fixture(scope="module")
def default_tokenizer() -> Tokenizer:
    return load_tokenizer(None)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as running:
        yield running


def test_a_mix_with_shared_texts_from_two_processes(
    locust: Locust, recorder: Recorder, default_tokenizer: Tokenizer
) -> None:
    mix, port = "3:60/10,1:200/30", str(free_port())
    done = locust.run("--host", recorder.url, "--llm-model", "m", "--llm-sweep", "2", "--llm-requests", "20",
                      "--llm-warmup", "0", "--llm-length-mix", mix, "--llm-shared-prefix", "100x4", "--processes", "2",
                      "--master-bind-port", port, "--master-port", port)  # fmt: skip
    assert done.code == 0, done.err
    inputs, outputs = parse_mix(mix)
    prompts = make_source(
        tokenizer=default_tokenizer,
        input_lengths=inputs,
        output_lengths=outputs,
        seed=11111,
        run_key=done.manifest["run_key"],
        prefixes=Prefixes(100, 4),
    )
    expected = [prompts.prompt(index) for index in range(20)]
    rows = {int(row["prompt_index"]): row for row in done.rows()}
    assert sorted(rows) == list(range(20))
    assert sorted(recorder.texts) == sorted(prompt.text or "" for prompt in expected)
    for index, prompt in enumerate(expected):
        row = rows[index]
        assert (int(row["input_tokens"]), int(row["requested_output_tokens"])) in {(160, 10), (300, 30)}
        assert int(row["input_tokens"]) == prompt.input_tokens == default_tokenizer.count(prompt.text or "")
    assert Counter(text.split("\n\n")[0] for text in recorder.texts).most_common()[-1][1] == 5  # each of the four


def test_heads_differ_from_run_to_run(locust: Locust, recorder: Recorder, default_tokenizer: Tokenizer) -> None:
    for prefix in ("first", "second"):
        done = locust.run("--host", recorder.url, "--llm-model", "m", "--llm-sweep", "1", "--llm-requests", "5",
                          "--llm-warmup", "0", "--llm-cache-bust", "--llm-input-tokens", "fixed:50",
                          prefix=prefix)  # fmt: skip
        assert done.code == 0, done.err
        assert {row["input_tokens"] for row in done.rows()} == {"50"}
    assert len({text[:16] for text in recorder.texts}) == len(recorder.texts) == 10
    assert {default_tokenizer.count(text) for text in recorder.texts} == {50}


def test_a_table_shorter_than_the_run_is_noted(locust: Locust, recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("question,max_tokens\nName a river.,5\nName a sea.,6\nName a lake.,\n")
    arguments = ["--host", recorder.url, "--llm-model", "m", "--llm-sweep", "1", "--llm-warmup", "0",
                 "--llm-prompts", f"{tmp_path / 'p.csv'}:question", "--llm-prompts-order", "file"]  # fmt: skip
    done = locust.run(*arguments, "--llm-requests", "3")
    assert done.code == 0, done.err
    assert recorder.texts == ["Name a river.", "Name a sea.", "Name a lake."]
    assert [body["max_tokens"] for body in recorder.bodies[:2]] == [5, 6]
    assert "were repeated" not in json.dumps(done.manifest["notes"])
    done = locust.run(*arguments, "--llm-requests", "4", prefix="longer")
    assert recorder.texts[3:] == ["Name a river.", "Name a sea.", "Name a lake.", "Name a river."]
    assert "the dataset has 3 prompts and the run asked for more" in json.dumps(done.manifest["notes"])


def test_images_are_sent_and_left_uncounted(locust: Locust, recorder: Recorder) -> None:
    done = locust.run("--host", recorder.url, "--llm-model", "m", "--llm-sweep", "1", "--llm-requests", "4",
                      "--llm-warmup", "0", "--llm-images", "2x64x64")  # fmt: skip
    assert done.code == 0, done.err
    assert {row["input_tokens"] for row in done.rows()} == {""}
    contents = [body["messages"][0]["content"] for body in recorder.bodies]
    assert [[part["type"] for part in content] for content in contents] == [["text", "image_url", "image_url"]] * 4
    images = {part["image_url"]["url"] for content in contents for part in content[1:]}
    assert len(images) == 8


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--llm-length-mix", "80:500"],
            "--llm-length-mix: '80:500' is not a part of a mix of lengths; write WEIGHT:INPUT",
        ),
        (
            ["--llm-input-tokens", "zipf:5,1"],
            "--llm-input-tokens: 'zipf:5,1' is not a distribution of tokens",
        ),
        (["--llm-shared-prefix", "x8"], "--llm-shared-prefix: 'x8' is not TOKENSxCOUNT; write for example"),
        (["--llm-images", "no/folder"], "--llm-images: 'no/folder' is neither NxWIDTHxHEIGHT"),
        (["--llm-images", "1", "--llm-api", "completions"], "--llm-images: legacy completions accept only text"),
        (["--llm-prompts", "nix.csv:question"], "--llm-prompts: there is no file"),
        (["--llm-prompts", "hf:"], "--llm-prompts: 'hf:' is not the name of a dataset; write hf:ORG/NAME"),
    ],
)
def test_a_bad_option_ends_the_run_before_it_begins(locust: Locust, arguments: list[str], complaint: str) -> None:
    done = locust.run("--host", "http://127.0.0.1:9/v1", "--llm-model", "m", *arguments)
    assert done.code == 2
    assert complaint in done.err


# Several models or endpoints in one run.


def test_two_endpoints_by_weight_have_rows_and_tables_of_their_own(locust: Locust, tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    with launch("ttft=10ms,itl=2ms", max_seconds=60) as small, launch("ttft=40ms,itl=2ms", max_seconds=60) as large:
        file.write_text(TWO_MODELS.format(small=small.url, large=large.url))
        done = locust.run("--llm-sweep", "4,8", "--llm-requests", "40", "--llm-report", locustfile=str(file))
        assert done.code == 0, done.err
        served = small.stop()["requests"], large.stop()["requests"]
    rows = done.rows()
    assert Counter((row["user_class"], row["model"], row["framework"]) for row in rows).keys() == {
        ("Small", "small", "one"), ("Large", "large", "other"),
    }  # fmt: skip
    for stage, users in (("1", {"Small": 3, "Large": 1}), ("2", {"Small": 6, "Large": 2})):
        seen = {(row["user_class"], row["user_id"]) for row in rows if row["stage"] == stage}
        assert Counter(name for name, _ in seen) == users
    assert served == tuple(sum(row["model"] == model for row in rows) for model in ("small", "large"))
    assert len({row["prompt_index"] for row in rows}) == len(rows)  # no prompt is asked twice, not even of the other
    table = llm_reports.report_run(str(done.prefix)).text.split("## Output Tokens Throughput")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")][
        2:
    ]
    assert [line[:3] for line in lines] == [
        ["one", "small", "4"], ["other", "large", "4"], ["one", "small", "8"], ["other", "large", "8"],
    ]  # fmt: skip
    medians = {line[1]: float(line[3]) for line in lines}
    assert medians["small"] == pytest.approx(0.01, abs=0.01)
    assert medians["large"] == pytest.approx(0.04, abs=0.015)


def test_two_models_of_one_endpoint_by_task_weight(locust: Locust, recorder: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "tasks.py"
    file.write_text(BY_TASK)
    done = locust.run("--host", recorder.url, "--llm-model", "any", "--llm-sweep", "4", "--llm-requests", "80",
                      locustfile=str(file))  # fmt: skip
    assert done.code == 0, done.err
    counts = Counter(row["model"] for row in done.rows())
    assert counts == Counter(body["model"] for body in recorder.bodies)
    assert counts.keys() == {"small", "large"}
    assert 45 <= counts["small"] <= 78  # 63 expected of 84
