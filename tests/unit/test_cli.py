"""Which packaged locustfile ``llm-bench`` takes."""

from __future__ import annotations

import pytest

from llm_users.cli import locustfile, named_api


@pytest.mark.parametrize(
    ("arguments", "variable", "name"),
    [
        (["--headless"], "", "sweep.py"),
        (["--llm-api", "responses"], "", "sweep.py"),
        (["--headless", "--llm-api", "messages", "-u", "2"], "", "messages.py"),
        (["--llm-api=messages"], "", "messages.py"),
        (["--llm-api=invoke"], "", "bedrock.py"),
        (["--llm-api", "chat", "--llm-api", "converse"], "", "bedrock.py"),
        (["--llm-api=bedrock-chat"], "", "bedrock_openai.py"),
        (["--llm-api", "bedrock-responses"], "", "bedrock_openai.py"),
        (["--llm-api", "bedrock-messages"], "", "bedrock_messages.py"),
        ([], "messages", "messages.py"),
        (["--llm-api", "chat"], "messages", "sweep.py"),
        (["--llm-api", "nonsense"], "", "sweep.py"),  # the parser says what is wrong
        (["--llm-api"], "", "sweep.py"),
    ],
)
def test_the_locustfile_is_that_of_the_api(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str, name: str
) -> None:
    monkeypatch.setenv("LOCUST_LLM_API", variable)
    found = locustfile(named_api(arguments))
    assert (found.name, found.is_file()) == (name, True)
