"""What is sent: bodies, keys, headers, and what stays at home."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme

from llm_users import AnthropicUser, OpenAIUser
from llm_users.wiring.coordinator import CoordinatorRole
from tests.stream_bytes import chat_events, reply, stream
from tests.unit.users.anthropic.messages_api import PLAIN
from tests.unit.users.rig import Rig, at
from tests.wire_server import Port, Request, Wire

ANSWER = stream(chat_events("ok"))
MakeRig = Callable[..., Rig]


@pytest.fixture
def port(wire: Wire) -> Port:
    return wire.serve(ANSWER)


def only(port: Port) -> Request:
    (request,) = port.requests()
    return request


def test_a_prompt_becomes_one_user_message(rig: Rig, port: Port) -> None:
    record = rig.ask(port.url, "Why?", max_tokens=9, temperature=0).record
    request = only(port)
    assert request.target == "/v1/chat/completions"
    assert request.json() == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Why?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0,
    }
    assert (record.requested_output_tokens, record.model, record.name) == (9, "tiny", "tiny")


def test_messages_are_sent_as_given(rig: Rig, port: Port) -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    rig.ask(port.url, None, messages=turns)
    assert only(port).json()["messages"] == turns


def test_without_a_prompt_the_next_of_the_source_is_asked(rig: Rig, port: Port) -> None:
    records = [rig.ask(port.url, None).record for _ in range(2)]
    first, second = (request.json() for request in port.requests())
    assert first["messages"] != second["messages"]
    assert records[1].prompt_index == (records[0].prompt_index or 0) + 1
    assert first["max_tokens"] == records[0].requested_output_tokens


def test_max_completion_tokens_replaces_max_tokens(rig: Rig, port: Port) -> None:
    record = rig.ask(port.url, None, max_completion_tokens=5).record
    body = only(port).json()
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == record.requested_output_tokens == 5


def test_the_extra_body_goes_into_every_request(make_rig: MakeRig, port: Port) -> None:
    rig = make_rig(llm_extra_body='{"ignore_eos": true, "temperature": 1}')
    rig.ask(port.url, temperature=0)
    body = only(port).json()
    assert (body["ignore_eos"], body["temperature"]) == (True, 0)


def test_without_a_key_no_authorization_is_sent(rig: Rig, port: Port) -> None:
    rig.ask(port.url)
    assert "authorization" not in only(port).headers
    assert only(port).headers["accept-encoding"] == "identity"
    assert any("carry no key" in note for note in rig.notes)


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_the_key_of_the_environment_is_sent(
    make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-environment")
    make_rig(llm_transport=transport).ask(port.url)
    assert only(port).headers["authorization"] == "Bearer key-of-the-environment"


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_no_key_is_invented_for_a_keyless_server(make_rig: MakeRig, port: Port, transport: str) -> None:
    make_rig(llm_transport=transport).ask(port.url)
    assert "authorization" not in only(port).headers


def test_headers_of_the_class_and_of_the_environment_are_sent(
    make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "token-of-the-gateway")
    rig = make_rig(llm_header_env=["X-Gateway=GATEWAY_TOKEN"], attributes={"default_headers": {"X-Team": "blue"}})
    rig.ask(port.url)
    headers = only(port).headers
    assert (headers["x-gateway"], headers["x-team"]) == ("token-of-the-gateway", "blue")


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_plain_headers_are_sent_with_every_request(make_rig: MakeRig, wire: Wire, transport: str) -> None:
    port = wire.serve(ANSWER)
    rig = make_rig(
        llm_header=["X-Session=s=1", "X-Lora=sql"],
        llm_transport=transport,
        attributes={"default_headers": {"X-Lora": "no"}},
    )
    for _ in range(3):  # from the second request on, the fast transport sends a cached head
        assert rig.ask(port.url).record.ok
    for request in port.requests():
        assert (request.headers["x-session"], request.headers["x-lora"]) == ("s=1", "sql")
        assert request.head.lower().count("x-lora") == 1


def test_an_authorization_from_the_environment_wins(
    make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_LOGIN", "Basic bG9naW46d29yZA==")
    make_rig(llm_header_env=["Authorization=PROXY_LOGIN"]).ask(port.url)
    assert only(port).headers["authorization"] == "Basic bG9naW46d29yZA=="


@pytest.mark.parametrize("where", ["option", "class"])
def test_user_info_and_query_of_the_base_url_are_sent_and_never_shown(
    make_rig: MakeRig, port: Port, where: str
) -> None:
    hidden = port.url.replace("http://", "http://anna:pass%20word@") + "/?api-version=secret-version"
    rig = make_rig(host=hidden) if where == "option" else make_rig(host=None, attributes={"host": hidden})
    record = rig.call(lambda user: user.chat("hi")).record
    assert record.error_code is None
    request = only(port)
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"anna:pass word").decode()
    assert request.target == "/v1/chat/completions?api-version=secret-version"
    shown = repr([record, rig.environment.host if where == "option" else "", rig.seen.locust_requests])
    assert "word" not in shown
    assert "secret-version" not in shown


def test_connections_are_kept_and_new_ones_made_when_asked(make_rig: MakeRig, rig: Rig, wire: Wire) -> None:
    kept, fresh = wire.serve(ANSWER), wire.serve(ANSWER)
    reused = [rig.ask(kept.url).record.connect_s for _ in range(3)]
    assert kept.connections == 1
    assert reused[0]
    assert reused[1:] == [0, 0]
    new_each = make_rig(llm_new_connections=True)
    assert all(new_each.ask(fresh.url).record.connect_s for _ in range(3))
    assert fresh.connections == 3


def test_the_only_listed_model_is_asked(make_rig: MakeRig, wire: Wire) -> None:
    models: dict[str, Any] = {"object": "list", "data": [{"id": "the-one", "object": "model"}]}
    port = wire.serve(reply("200 OK", models), ANSWER)
    record = make_rig(host=port.url, llm_model=None).call(at(port.url, lambda user: user.chat("hi"))).record
    assert record.model == "the-one"


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_an_unverified_certificate_is_taken_only_when_asked_and_said(
    make_rig: MakeRig, rig: Rig, wire: Wire, tmp_path: Path, transport: str
) -> None:
    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("somewhere.test").private_key_and_cert_chain_pem.write_to_path(str(pem))
    port = wire.serve(ANSWER, tls=pem)
    assert rig.ask(port.url).record.error_code == "connect"
    insecure = make_rig(llm_insecure=True, llm_transport=transport)
    assert insecure.ask(port.url).record.error_code is None
    assert any("--llm-insecure: certificates were not verified" in note for note in insecure.notes)
    insecure.stop()
    (manifest,) = Path(insecure.environment.parsed_options.csv_prefix).parent.glob("*_llm_run.json")
    written = json.loads(manifest.read_text())
    assert any("--llm-insecure" in note for note in written["notes"])
    assert written["options"]["llm_insecure"] is True


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_keys_are_withheld_from_an_endpoint_that_an_open_page_named(
    monkeypatch: pytest.MonkeyPatch, make_rig: MakeRig, wire: Wire, kind: str
) -> None:
    keys = {
        "OPENAI_API_KEY": "sk-withheld-0001", "ANTHROPIC_API_KEY": "sk-withheld-0002",
        "ANTHROPIC_AUTH_TOKEN": "withheld-0003", "GATEWAY": "withheld-0004",
    }  # fmt: skip
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(CoordinatorRole, "withholds_keys", True)
    port = wire.serve(ANSWER)
    attributes = {"default_headers": {"X-Api-Key": "withheld-0005", "X-Team": "search"}}
    user_class = OpenAIUser if kind == "openai" else AnthropicUser
    rig = make_rig(user_class=user_class, attributes=attributes, llm_header_env=["X-Gate=GATEWAY"])
    rig.call(at(port.url, lambda user: user.chat("hi") if kind == "openai" else user.message("hi")))
    request = only(port)
    assert "withheld" not in request.head
    assert "no-key" not in request.head
    assert request.headers["x-team"] == "search"
    assert any("no key is sent" in note for note in rig.notes)


def test_a_key_from_a_file_with_a_newline_is_sent_without_it(
    monkeypatch: pytest.MonkeyPatch, make_rig: MakeRig, port: Port
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-secret-file\n")
    monkeypatch.setenv("GATEWAY", " gate-4711\r\n")
    rig = make_rig(llm_header_env=["X-Gate=GATEWAY"])
    assert rig.ask(port.url).record.ok
    assert only(port).headers["authorization"] == "Bearer sk-of-a-secret-file"
    assert only(port).headers["x-gate"] == "gate-4711"
    assert any("OPENAI_API_KEY starts or ends with white space" in note for note in rig.notes)


def test_a_line_break_inside_a_header_is_refused(
    monkeypatch: pytest.MonkeyPatch, make_rig: MakeRig, port: Port
) -> None:
    monkeypatch.setenv("GATEWAY", "gate\r\nX-Injected: yes")
    rig = make_rig(llm_header_env=["X-Gate=GATEWAY"])
    assert "X-Gate contains a line break" in rig.refused()
    assert not port.requests()


@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_cookies_are_not_sent_back_unless_wanted(make_rig: MakeRig, wire: Wire, kind: str, transport: str) -> None:
    events = chat_events("ok") if kind == "openai" else PLAIN
    for wanted in (False, True):
        port = wire.serve(stream(events, more="Set-Cookie: replica=3; Path=/\r\n"))
        user_class = OpenAIUser if kind == "openai" else AnthropicUser
        rig = make_rig(user_class=user_class, llm_transport=transport, llm_cookies=wanted)

        def job(user: Any) -> Any:
            return user.chat("hi") if kind == "openai" else user.message("hi")

        for _ in range(3):
            assert rig.call(at(port.url, job)).record.ok
        sent = [request.headers.get("cookie") for request in port.requests()]
        assert sent == ([None, "replica=3", "replica=3"] if wanted else [None] * 3)
        assert any("sets cookies" in note for note in rig.notes) is not wanted


def test_each_user_has_its_own_cookies(make_rig: MakeRig, port: Port) -> None:
    rig = make_rig(users=2, llm_cookies=True)
    jars = []
    waiting = [rig.send(lambda user: (jars.append(user._cookies), gevent.sleep(0.1))) for _ in range(2)]
    gevent.joinall([gevent.spawn(result.get) for result in waiting], timeout=5)
    assert len({id(jar) for jar in jars}) == 2
