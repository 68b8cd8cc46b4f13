"""Quotas of tokens per minute: how many requests they admit follows from the numbers in the spec."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import launch

from .signing import CHAT, CONVERSE, MESSAGES, RESPONSES, TEXT, Reply, ask
from .wire import Client, body

PATHS = (CONVERSE, CHAT, RESPONSES, MESSAGES)
INPUT_TOKENS, CAP = len(TEXT.split()), 4
SENTENCE = "Too many tokens, please wait before trying again. Quota exceeded: "


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("quota", ["input", "output"])
def test_a_used_up_quota_answers_in_the_shape_of_the_api(tmp_path: Path, path: str, quota: str) -> None:
    """Every request uses its input and its whole cap, so the quota of two requests admits two."""
    tokens = 2 * (INPUT_TOKENS + CAP) if quota == "input" else 2 * CAP
    log = tmp_path / "log.jsonl"
    with launch(f"ttft=1ms,itl=100us,{quota}_tpm={tokens},retry_after=3s", log=log) as simulator:
        replies = [ask(simulator.port, path) for _ in range(4)]
        simulator.stop()
    assert [reply.status for reply in replies] == [200, 200, 429, 429]
    check_shape(path, replies[-1], f"{quota} tokens per minute for ")
    assert replies[-1].headers["retry-after"] == "3"
    throttled = (429, "error", f"{quota} tokens per minute")
    logged = [(entry["status"], entry["outcome"], entry["reason"]) for entry in entries(log)]
    assert logged == [(200, "completed", "")] * 2 + [throttled] * 2


def check_shape(path: str, reply: Reply, text: str) -> None:
    if path == CONVERSE:
        assert reply.headers["x-amzn-errortype"] == "ThrottlingException"
        message = reply.body["message"]
    else:
        message = reply.body["error"]["message"]
        assert reply.body["error"]["type"] == "rate_limit_error"
        code = None if path == MESSAGES else "rate_limit_exceeded"
        assert reply.body["error"].get("code") == code
    assert message.startswith(SENTENCE + text)


def test_the_unused_part_of_the_cap_comes_back_and_cached_input_is_free() -> None:
    """Answers break off after 100 tokens of a cap of 1,000. The margin of 50 tokens is what 2 s of refill bring."""
    prompt, needed, used = "word " * 500, 500 - 400 + 1000, 500 - 400 + 100
    spec = f"ttft=100ms,itl=0ms,cut=100,cached=400,framing=close,input_tpm={needed + 2 * used + 50}"
    with launch(spec) as simulator, Client(simulator.port) as first, Client(simulator.port) as second:
        first.send("POST", CHAT, body(prompt=prompt, max_tokens=1000))
        second.send("POST", CHAT, body(prompt=prompt, max_tokens=1000))
        assert [first.read().status, second.read().status] == [200, 429]  # no room beside a reserved cap
        statuses = []
        for _ in range(3):
            with Client(simulator.port) as client:
                statuses.append(client.chat(path=CHAT, prompt=prompt, max_tokens=1000).status)
        assert statuses == [200, 200, 429]


def test_each_model_has_its_own_quota_on_all_apis() -> None:
    with launch(f"ttft=1ms,itl=100us,input_tpm={INPUT_TOKENS + CAP}") as simulator:
        assert ask(simulator.port, CHAT, model="one").status == 200
        assert ask(simulator.port, RESPONSES, model="one").status == 429
        assert ask(simulator.port, MESSAGES, model="two").status == 200


def test_the_quota_refills_evenly(tmp_path: Path) -> None:
    """The quota of 120 requests a minute admits 120 at once, and then two more in each second."""
    log = tmp_path / "log.jsonl"
    with launch(f"ttft=0ms,itl=0ms,input_tpm={(INPUT_TOKENS + CAP) * 120}", log=log) as simulator:
        start_s = time.monotonic()
        while time.monotonic() < start_s + 3:
            ask(simulator.port, CHAT)
        simulator.stop()
    logged = entries(log)
    assert {entry["reason"] for entry in logged} == {"", "input tokens per minute"}
    elapsed_s = (logged[-1]["received_ns"] - logged[0]["received_ns"]) / 1e9
    assert sum(entry["status"] == 200 for entry in logged) == pytest.approx(120 + 2 * elapsed_s, abs=1)
