"""The endpoint that answers with digits: right, wrong and vague, and the log that says which."""

import json
import threading

from llm_users.simulator.launch import launch

from .wire import TEXT, Client

ASKED = "Which number is four thousand, three hundred and twenty-one?"


def test_it_answers_what_was_asked(connect):
    client = connect("answers=numbers")
    assert client.chat(prompt=ASKED).text().startswith("4,321 ")
    assert client.chat(prompt=ASKED, path=TEXT).text().startswith("4,321 ")
    assert client.chat(prompt=[{"type": "text", "text": "zero"}]).text().startswith("0 ")
    assert client.chat(prompt="ten thousand", max_tokens=1).text() == "10,000"
    whole = client.chat(prompt="seven", stream=False).json()
    assert whole["choices"][0]["message"]["content"].startswith("7 ")
    assert len(whole["choices"][0]["message"]["content"].split()) == whole["usage"]["completion_tokens"] == 5
    assert not any(char.isdigit() for char in client.chat().text())


def test_reasoning_comes_before_the_number(connect):
    client = connect("answers=numbers,reasoning=3,tokens_per_chunk=2,tokens=6")
    answer = client.chat(prompt=ASKED)
    assert answer.text().startswith("4,321 ")
    assert len(answer.text("reasoning_content").split()) == len(answer.text().split()) == 3


def test_wrong_and_vague_answers_come_in_their_shares_and_are_logged(tmp_path):
    log = tmp_path / "log.jsonl"
    spec = "ttft=1ms,itl=100us,tokens=1,answers=numbers,wrong=0.2,vague=0.3"
    with launch(spec, log=log) as sim, Client(sim.port) as client:
        said = [client.chat(prompt=ASKED) for _ in range(300)]
        sim.stop()
    kinds = {entry["response_id"]: entry["answered"] for entry in map(json.loads, log.read_text().splitlines())}
    texts = {"right": "4,321", "wrong": "4,322", "vague": "4,322/4,321"}
    assert [answer.text() for answer in said] == [texts[kinds[answer.headers["x-request-id"]]] for answer in said]
    counts = [list(kinds.values()).count(kind) for kind in texts]
    assert sum(counts) == 300
    assert 40 < counts[1] < 80
    assert 65 < counts[2] < 115


def test_above_its_capacity_it_is_right_as_often_as_the_capacity_says(tmp_path):
    log = tmp_path / "log.jsonl"
    spec = "ttft=20ms,itl=100us,tokens=1,answers=numbers,wrong_above=2"
    with launch(spec, log=log) as sim:

        def ask():
            with Client(sim.port) as client:
                for _ in range(25):
                    client.chat(prompt=ASKED)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        sim.stop()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(entries) == 200
    assert {entry["answered"] for entry in entries if entry["active"] <= 2} <= {"right"}
    crowded = [entry for entry in entries if entry["active"] > 2]
    expected = sum(1 - 2 / entry["active"] for entry in crowded)
    wrong = sum(entry["answered"] == "wrong" for entry in crowded)
    assert len(crowded) > 100
    assert abs(wrong - expected) < 30  # four deviations of the binomial distribution
