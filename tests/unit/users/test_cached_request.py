"""The second request on: built without the SDK, and yet what the SDK would have sent and made of the answer."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest

from tests.stream_bytes import chat_events, reply, stream
from tests.unit.users.anthropic.messages_api import ended, opened, started, text
from tests.unit.users.rig import Rig, at
from tests.wire_server import CLOSE, RESET, Port, Wire

ANSWER = stream(chat_events("ok"))
Ask = Callable[[Rig, str], object]


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the SDK is asked for, as it is asked."""
    from openai import OpenAI  # after Locust has patched the interpreter

    asked: list[str] = []
    post = OpenAI.post

    def counted(self: OpenAI, path: str, **given: object) -> object:
        asked.append(path)
        return post(self, path, **given)  # type: ignore[call-overload]

    monkeypatch.setattr(OpenAI, "post", counted)
    return asked


def test_it_is_byte_for_byte_what_the_sdk_sends(rig: Rig, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counting(monkeypatch)
    port = wire.serve(ANSWER)
    for _ in range(3):
        assert rig.ask(port.url, 'Où? \N{SNOWMAN} "quoted"\n', temperature=1e-05, stop=["a", None]).text == "ok"
    first, *others = port.requests()
    assert asked == ["/chat/completions"]
    for other in others:
        assert (other.head, other.body) == (first.head, first.body)


def test_bodies_differ_where_they_should(rig: Rig, wire: Wire) -> None:
    port = wire.serve(ANSWER)
    for words in ("one", "two", "a longer one"):
        rig.ask(port.url, words)
    assert [request.json()["messages"][0]["content"] for request in port.requests()] == ["one", "two", "a longer one"]
    assert [int(request.headers["content-length"]) for request in port.requests()] == [
        len(request.body) for request in port.requests()
    ]


def test_messages_have_one_too(claude: Rig, wire: Wire) -> None:
    port = wire.serve(stream([started(), opened(), text("ok"), ended()]))
    for _ in range(2):
        assert claude.call(at(port.root, lambda user: user.message("hello"))).text == "ok"
    first, second = port.requests()
    assert (first.head, first.body) == (second.head, second.body)


@pytest.mark.parametrize(
    "script",
    [
        reply("400 Bad Request", {"error": {"message": "the prompt is too long", "code": "context_length_exceeded"}}),
        reply("401 Unauthorized", {"error": {"message": "no"}}),
        reply("429 Too Many Requests", {"error": {"message": "slow down"}}, more="retry-after: 1\r\n"),
        reply("500 Oops", "word " * 1000),
        [CLOSE],
        [RESET],
        reply("200 OK", "<html>log in</html>", kind="text/html"),
    ],
    ids=["400", "401", "429", "500", "closed", "reset", "html"],
)
def test_what_goes_wrong_is_said_in_the_same_words(rig: Rig, wire: Wire, script: list[list[object]]) -> None:
    first_time = wire.serve(script)
    sdk = rig.ask(first_time.url).record
    later = wire.serve(ANSWER, script)
    assert rig.ask(later.url).record.ok
    own = rig.ask(later.url).record
    assert own.error_code == sdk.error_code
    assert not own.ok
    assert (own.error_message or "").replace(later.url, "") == (sdk.error_message or "").replace(first_time.url, "")
    assert (own.http_status, own.response_id) == (sdk.http_status, sdk.response_id)


def test_a_refused_request_is_not_sent_again(rig: Rig, wire: Wire) -> None:
    port = wire.serve(ANSWER, reply("429 Too Many Requests", {"error": {"message": "slow down"}}), ANSWER)
    assert [rig.ask(port.url).record.error_code for _ in range(3)] == [None, "429", None]
    assert len(port.requests()) == 3


@pytest.mark.parametrize("wanted", [False, True])
def test_a_cookie_that_comes_later_is_sent_from_then_on_where_wanted(
    make_rig: Callable[..., Rig], wire: Wire, wanted: bool
) -> None:
    with_cookie = stream(chat_events("ok"), more="Set-Cookie: seat=7; Path=/\r\n")
    port = wire.serve(ANSWER, ANSWER, with_cookie, ANSWER)
    rig = make_rig(llm_cookies=wanted)
    for _ in range(5):
        assert rig.ask(port.url).record.ok
    later = "seat=7" if wanted else None  # without --llm-cookies none is kept
    assert [request.headers.get("cookie") for request in port.requests()] == [None, None, None, later, later]


def test_every_request_is_redirected_for_itself(rig: Rig, wire: Wire) -> None:
    moved = reply("307 Temporary Redirect", "", more="Location: /elsewhere\r\n")
    port = wire.serve(ANSWER, ANSWER, moved, ANSWER, moved, ANSWER)
    for _ in range(4):
        assert rig.ask(port.url).record.ok
    targets = [request.target for request in port.requests()]
    assert targets == ["/v1/chat/completions"] * 3 + ["/elsewhere", "/v1/chat/completions", "/elsewhere"]


def test_what_only_the_sdk_can_write_is_left_to_it(rig: Rig, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counting(monkeypatch)
    port: Port = wire.serve(ANSWER)
    for _ in range(2):
        rig.ask(port.url, metadata={"day": datetime.datetime(2026, 1, 2)})
    assert len(asked) == 2
    assert port.requests()[1].json()["metadata"]["day"].startswith("2026-01-02")
