"""What is sent to the Messages API: the body, with which key, to which address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_users import AnthropicUser, image_part
from tests.stream_bytes import (
    reply,
    stream,
)
from tests.unit.users.anthropic.messages_api import PLAIN, ask, only
from tests.unit.users.rig import Rig
from tests.wire_server import Wire

MakeRig = Callable[..., Rig]
KEY, TOKEN = "key-of-anthropic-1234", "token-of-a-gateway-5678"


@pytest.mark.parametrize("place", ["root", "url"])
def test_a_prompt_becomes_one_user_message(claude: Rig, wire: Wire, place: str) -> None:
    port = wire.serve(stream(PLAIN))
    record = ask(claude, getattr(port, place), "Why?", max_tokens=9, temperature=0).record
    request = only(port)
    assert request.target == "/v1/messages"  # the base URL may have its /v1, or not
    assert request.json() == {
        "model": "tiny",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Why?"}],
        "stream": True,
        "temperature": 0,
    }
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["user-agent"].startswith("locust-llm/")
    assert request.headers["accept-encoding"] == "identity"
    assert not [name for name in request.headers if "stainless" in name or "openai" in name]
    assert (record.requested_output_tokens, record.model, record.name) == (9, "tiny", "tiny")
    assert (record.api, record.framework) == ("anthropic-messages", "anthropic")


def test_a_cap_is_always_sent(claude: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    records = [ask(claude, port.url, prompt).record for prompt in ("hi", None)]
    assert [request.json()["max_tokens"] for request in port.requests()] == [
        150,  # the mean of --llm-output-tokens
        records[1].requested_output_tokens,
    ]


def test_conversations_of_either_shape(claude: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    image = image_part("data:image/png;base64,aGk=")
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what?"}, image, image_part("https://a.test/b.png")]},
        {"role": "assistant", "content": "that"},
    ]
    ask(claude, port.url, None, messages=turns)
    ask(claude, port.url, "hi", system=[{"type": "text", "text": "own", "cache_control": {"type": "ephemeral"}}])
    first, second = (request.json() for request in port.requests())
    assert first["system"] == "be brief"
    assert first["messages"] == [
        {"role": "user", "content": [
            {"type": "text", "text": "what?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            {"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}},
        ]},
        {"role": "assistant", "content": "that"},
    ]  # fmt: skip
    assert second["system"][0]["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({"ANTHROPIC_API_KEY": KEY}, {"x-api-key": KEY}),
        ({"ANTHROPIC_AUTH_TOKEN": TOKEN}, {"authorization": f"Bearer {TOKEN}"}),
        ({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_AUTH_TOKEN": TOKEN}, {"x-api-key": KEY}),
        ({"OPENAI_API_KEY": "not-for-others", "OPENAI_ORG_ID": "org-not-for-others"}, {}),
    ],
)
def test_the_key_goes_where_it_belongs(
    make_rig: MakeRig,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    sent: dict[str, str],
    transport: str,
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    port = wire.serve(stream(PLAIN))
    rig = make_rig(user_class=AnthropicUser, host=port.url, llm_transport=transport)
    assert ask(rig, port.url).record.error_code is None
    headers = only(port).headers
    assert {name: headers[name] for name in ("x-api-key", "authorization") if name in headers} == sent
    assert "not-for-others" not in only(port).head
    assert any("no ANTHROPIC_API_KEY" in note for note in rig.notes) == (not sent)


def test_headers_of_the_class_and_of_the_environment(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "key-of-the-gateway")
    port = wire.serve(stream(PLAIN))
    attributes = {"default_headers": {"Anthropic-Beta": "new-things", "Anthropic-Version": "2030-01-01"}}
    rig = make_rig(
        user_class=AnthropicUser,
        host=port.url,
        attributes=attributes,
        llm_header_env=["X-API-Key=GATEWAY_KEY"],
        llm_header=["X-Session=a"],
    )
    ask(rig, port.url)
    headers = only(port).headers
    assert (headers["anthropic-beta"], headers["anthropic-version"]) == ("new-things", "2030-01-01")
    assert headers["x-api-key"] == "key-of-the-gateway"
    assert headers["x-session"] == "a"
    assert only(port).head.lower().count("anthropic-version") == 1


def test_user_info_and_query_of_the_base_url_are_sent(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    hidden = port.root.replace("http://", "http://anna:password@") + "/claude?code=secret-code"
    rig = make_rig(user_class=AnthropicUser, host=hidden)
    record = rig.call(lambda user: user.message("hi")).record
    assert record.error_code is None
    assert only(port).target == "/claude/v1/messages?code=secret-code"
    assert only(port).headers["authorization"].startswith("Basic ")
    assert "password" not in repr([record, rig.environment.host, rig.seen.locust_requests])


def test_a_run_needs_a_key_for_anthropic_itself_and_its_own_api(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    rig = make_rig(user_class=AnthropicUser, host="https://api.anthropic.com")
    assert "set ANTHROPIC_API_KEY" in rig.refused()
    assert "use messages" in make_rig(user_class=AnthropicUser, llm_api="chat").refused()
    assert "locustfiles/messages.py" in make_rig(llm_api="messages").refused()


def test_an_endpoint_must_be_named(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit):
        make_rig(user_class=AnthropicUser, host=None)
    assert "ANTHROPIC_BASE_URL" in capsys.readouterr().err
    port = wire.serve(stream(PLAIN))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", port.root)
    rig = make_rig(user_class=AnthropicUser, host=None)
    assert rig.call(lambda user: user.message("hi")).text == "ab"
    assert only(port).target == "/v1/messages"


def test_the_only_listed_model_is_asked(make_rig: MakeRig, wire: Wire) -> None:
    models = {"data": [{"type": "model", "id": "claude-one"}], "has_more": False}
    port = wire.serve(reply("200 OK", models), stream(PLAIN))
    rig = make_rig(user_class=AnthropicUser, host=port.url, llm_model=None)
    assert ask(rig, port.url).record.model == "claude-one"
    assert port.requests()[0].target == "/v1/models"


def test_connections_are_kept(claude: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    assert [ask(claude, port.url).text for _ in range(3)] == ["ab"] * 3
    assert port.connections == 1
