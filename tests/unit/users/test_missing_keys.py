"""A missing key is a problem only at the provider's own endpoint, and only if nothing else authorizes requests."""

from __future__ import annotations

import pytest

from llm_users import AnthropicUser, OpenAIUser
from llm_users.options.parsers import OptionError
from llm_users.options.table import Options
from llm_users.users.llm import LLMUser
from llm_users.wiring.run_options import check_keys

OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("user_class", "host", "variable"),
    [(OpenAIUser, OPENAI, "OPENAI_API_KEY"), (AnthropicUser, ANTHROPIC, "ANTHROPIC_API_KEY")],
)
def test_the_problem_names_the_variable_until_it_is_set(
    monkeypatch: pytest.MonkeyPatch, user_class: type[LLMUser], host: str, variable: str
) -> None:
    for blank in (None, "", " \n"):
        if blank is not None:
            monkeypatch.setenv(variable, blank)
        assert f"set {variable}" in (user_class.key_problem(host, {}) or "")
    monkeypatch.setenv(variable, "made-up")
    assert user_class.key_problem(host, {}) is None


@pytest.mark.parametrize(("user_class", "host"), [(OpenAIUser, OPENAI), (AnthropicUser, ANTHROPIC)])
def test_an_authorization_header_is_enough(user_class: type[LLMUser], host: str) -> None:
    assert user_class.key_problem(host, {"authorization": "Bearer made-up"}) is None


def test_other_endpoints_need_no_key() -> None:
    assert OpenAIUser.key_problem("http://127.0.0.1:8000/v1", {}) is None
    assert AnthropicUser.key_problem("http://127.0.0.1:8000", {}) is None


def test_keys_of_all_targets_are_checked() -> None:
    from llm_users.options.parsers import targets

    options = Options(targets=targets(f"a@http://127.0.0.1:1/v1,b@{OPENAI}"))
    with pytest.raises(OptionError, match="set OPENAI_API_KEY"):
        check_keys(options, [OpenAIUser], "http://127.0.0.1:1/v1")
    check_keys(Options(), [OpenAIUser], "http://127.0.0.1:1/v1")
