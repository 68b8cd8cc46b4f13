"""Redirects are followed within the endpoint's origin, with the time of the first hop, and to no other origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from llm_users import AnthropicUser, OpenAIUser
from llm_users.transport.client_rules import RedirectRefused, Redirects
from llm_users.transport.connection import origin_of
from tests.stream_bytes import chat_events, event, reply, stream
from tests.unit.users.rig import Rig, at
from tests.wire_server import Port, Script, Wire, pause

MakeRig = Callable[..., Rig]
OPENAI_KEY, ANTHROPIC_KEY, HEADER_KEY = "sk-openai-000000001", "anthropic-000000002", "header-000000003"
CLAUDE = [
    event({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}}, name="message_start"),
    event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "ab"}}, name="content_block_delta"),
    event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
    event({"type": "message_stop"}, name="message_stop"),
]
USERS: dict[str, tuple[Any, str, Script, Callable[[Any], Any]]] = {
    "openai": (OpenAIUser, "/v1/chat/completions", stream(chat_events("a", "b")), lambda user: user.chat("my prompt")),
    "anthropic": (AnthropicUser, "/v1/messages", stream(CLAUDE), lambda user: user.message("my prompt")),
}
both = pytest.mark.parametrize("transport", ["fast", "sdk"])
each = pytest.mark.parametrize("kind", USERS)


def moved(status: int, location: str) -> Script:
    return reply(f"{status} Moved", "", more=f"Location: {location}\r\n")


@pytest.fixture(scope="module")
def asking(make_rig: MakeRig) -> Iterator[Callable[..., tuple[Rig, Any]]]:
    """Ask a port once with a kind of user; returns the rig and the answer."""
    rigs: dict[tuple[str, str], Rig] = {}

    def ask(kind: str, port: Port, transport: str, **options: Any) -> tuple[Rig, Any]:
        user_class, _path, _script, job = USERS[kind]
        rig = rigs.get((kind, transport))
        if rig is None or options:
            rig = make_rig(
                user_class=user_class,
                host=port.url,
                llm_transport=transport,
                llm_header_env=["x-gateway=MY_GATEWAY_KEY"],
                llm_timeout="10s",
                **options,
            )
        if not options:
            rigs[kind, transport] = rig
        return rig, rig.call(at(port.url, job))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", OPENAI_KEY)
        patch.setenv("ANTHROPIC_API_KEY", ANTHROPIC_KEY)
        patch.setenv("MY_GATEWAY_KEY", HEADER_KEY)
        yield ask


@both
@each
@pytest.mark.parametrize("status", [307, 308])
def test_within_the_origin_it_is_followed_and_its_time_counts(
    asking: Callable[..., tuple[Rig, Any]], wire: Wire, kind: str, transport: str, status: int
) -> None:
    _class, path, script, _job = USERS[kind]
    port = wire.serve([pause(0.3), *moved(status, f"{path}/")], script)
    rig, answer = asking(kind, port, transport)
    record = answer.record
    assert (record.error_code, answer.text) == (None, "ab")
    assert 0.3 <= record.ttft_s < 2
    assert record.ttft_s <= record.end_to_end_latency_s
    first, second = port.requests()
    assert (first.target, second.target) == (path, f"{path}/")
    assert first.body == second.body
    for header in ("authorization" if kind == "openai" else "x-api-key", "x-gateway"):
        assert first.headers[header] == second.headers[header]
    assert (second.received_ns - first.received_ns) / 1e9 >= 0.3
    assert any("requests are redirected" in note and f"{port.root}{path}/" in note for note in rig.notes)


@both
@each
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_goes_to_another_origin(
    asking: Callable[..., tuple[Rig, Any]], wire: Wire, kind: str, transport: str, status: int
) -> None:
    away = wire.serve(USERS[kind][2])
    home = wire.serve(moved(status, f"{away.root}/stolen?code=hidden-part"))
    _rig, answer = asking(kind, home, transport)
    record = answer.record
    assert (record.error_code, record.http_status) == (str(status), status)
    assert away.root in record.error_message
    assert f"--llm-redirect-to {away.root}" in record.error_message
    assert "hidden-part" not in record.error_message
    assert away.connections == 0


@both
@each
def test_an_allowed_origin_gets_everything(
    asking: Callable[..., tuple[Rig, Any]], wire: Wire, kind: str, transport: str
) -> None:
    away = wire.serve(USERS[kind][2])
    home = wire.serve(moved(307, f"{away.root}/there"))
    _rig, answer = asking(kind, home, transport, llm_redirect_to=[away.root])
    assert (answer.record.error_code, answer.text) == (None, "ab")
    (request,) = away.requests()
    assert b"my prompt" in request.body
    assert HEADER_KEY in request.head
    assert (OPENAI_KEY if kind == "openai" else ANTHROPIC_KEY) in request.head


@both
@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (moved(302, "/v1/elsewhere"), "302", "lose its prompt"),
        (moved(307, "/v1/chat/completions"), "307", "redirected 6 times"),
        (moved(307, "ftp://host/x"), "307", "not an http"),
        (reply("304 Not Modified", ""), "304", "Not Modified"),
    ],
    ids=["without the body", "in a circle", "another scheme", "no redirect"],
)
def test_what_cannot_be_followed_is_an_error(
    asking: Callable[..., tuple[Rig, Any]], wire: Wire, transport: str, script: Script, code: str, words: str
) -> None:
    port = wire.serve(script)
    _rig, answer = asking("openai", port, transport)
    assert answer.record.error_code == code, answer.record
    assert words in answer.record.error_message
    assert len(port.requests()) <= 6


@pytest.mark.parametrize(
    ("home", "target", "followed"),
    [
        ("http://host/v1", "https://host/v1", True),
        ("http://host:80/v1", "https://host:443/v1", True),
        ("https://host/v1", "http://host/v1", False),
        ("http://host:8000/v1", "https://host/v1", False),
        ("http://host/v1", "https://host:8443/v1", False),
        ("http://host/v1", "https://other/v1", False),
        ("http://host/v1", "//host.evil.example/v1", False),
        ("http://host/v1", "http://host@evil.example/v1", False),
        ("http://host/v1", "http://HOST/v2", True),
    ],
)
def test_which_origins_are_the_same(home: str, target: str, followed: bool) -> None:
    url = httpx2.URL(home)
    notes: list[str] = []
    response = httpx2.Response(307, headers={"location": target}, request=httpx2.Request("POST", url))
    rules = Redirects(origin_of(str(url)), (), notes.append)
    if followed:
        rules.on_response(response)
        assert len(notes) == 1
    else:
        with pytest.raises(RedirectRefused, match="another origin"):
            rules.on_response(response)
