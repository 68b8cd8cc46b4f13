"""A refused model is compared with the models that the endpoint lists."""

from __future__ import annotations

import gevent
import pytest

from llm_users.load.worker import model_names
from llm_users.load.worker.model_names import ModelNames, advice_for


@pytest.mark.parametrize(
    ("model", "listed", "words"),
    [
        ("llama3", ["llama-3", "qwen-2"], "did you mean 'llama-3'?"),
        ("LLAMA-3", ["llama-3"], "did you mean 'llama-3'?"),
        ("llama-3-8b", ["meta-llama/Llama-3-8B", "other"], "did you mean 'meta-llama/Llama-3-8B'?"),
        ("gpt", ["mistral", "gemma"], "it has gemma, mistral"),
        ("gpt", list("abcdefgh"), "it has a, b, c, d, e, ..."),
    ],
)
def test_another_name_is_proposed(model: str, listed: list[str], words: str) -> None:
    text = advice_for(model, listed)
    assert text is not None
    assert text.startswith(f"the server has no model {model!r}; ")
    assert text.endswith(words)


def test_a_listed_model_or_a_missing_list_needs_no_advice() -> None:
    assert advice_for("llama-3", ["llama-3", "llama-3.1"]) is None
    assert advice_for("llama-3", []) is None


def test_an_endpoint_is_asked_once_and_all_requests_wait_for_its_list() -> None:
    names, asked = ModelNames(), []
    gevent.get_hub().loop.update_now()  # timers count from the last iteration of the loop, before the imports

    def list_models() -> list[str]:
        asked.append(1)
        gevent.sleep(0.05)
        return ["llama-3"]

    waiting = [gevent.spawn(names.advice, "llama3", "http://h/v1", list_models) for _ in range(8)]
    gevent.joinall(waiting, timeout=5)
    assert len(asked) == 1
    assert all("did you mean 'llama-3'?" in (each.value or "") for each in waiting)


def test_an_endpoint_without_a_list_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_names, "LIST_S", 0.1)

    def fails() -> list[str]:
        raise RuntimeError("404")

    assert ModelNames().advice("m", "http://h/v1", fails) is None
    assert ModelNames().advice("m", "http://h/v1", lambda: gevent.sleep(60) or ["x"]) is None
