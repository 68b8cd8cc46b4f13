"""The server's metrics in the tab: one line for several servers, and no values of a server that is silent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_users.secrets import remember
from llm_users.web.samples import SERIES
from llm_users.web.server_lines import COLUMNS, STALE_S, ServerLines


@dataclass
class Answer:
    time_s: float
    server: str
    engine: str
    values: Mapping[str, float]


@dataclass
class Answers:
    answers: Sequence[Answer]

    def latest(self) -> Sequence[Answer]:
        return self.answers


def lines_of(answers: Sequence[Answer]) -> ServerLines:
    return ServerLines(Answers(answers))


def test_counts_and_rates_of_several_servers_are_added_and_shares_are_those_of_the_busiest() -> None:
    now_s = time.time()
    first = {"requests_running": 3, "requests_waiting": 1, "kv_cache_usage": 0.25, "generation_tokens": 100.0}
    second = {"requests_running": 4, "kv_cache_usage": 0.75, "generation_tokens": 50.0}
    lines = lines_of([Answer(now_s, "http://b", "vllm", first), Answer(now_s, "http://a", "sglang", second)])
    assert lines.sample() == {
        "server_running": 7,
        "server_waiting": 1,
        "server_tokens_per_s": 150.0,
        "server_kv_cache": 0.75,
        "server_gpu": None,
    }
    assert set(COLUMNS) < set(SERIES)
    shown = lines.latest()
    assert [(each["server"], each["engine"], each["metrics"]) for each in shown] == [
        ("http://a", "sglang", second),
        ("http://b", "vllm", first),
    ]


def test_a_silent_server_has_no_values_and_no_text_shows_a_secret() -> None:
    remember("secret-of-a-server")
    now_s = time.time()
    lines = lines_of(
        [
            Answer(now_s - STALE_S - 1, "http://silent", "vllm", {"requests_running": 9}),
            Answer(now_s, "http://x/secret-of-a-server", "vllm", {"unknown": 1.0}),
        ]
    )
    assert set(lines.sample().values()) == {None}
    (shown,) = lines.latest()
    assert "secret-of-a-server" not in shown["server"]
    assert shown["metrics"] == {}
    assert ServerLines(None).latest() == []
