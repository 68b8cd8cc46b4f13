"""The row of a request for a model that the server does not have names the model that the user may mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_users import AnthropicUser
from llm_users.simulator.launch import launch
from tests.stream_bytes import reply
from tests.unit.users.rig import Rig, at
from tests.wire_server import Wire

REFUSED = {"error": {"message": "The model `llama3` does not exist."}}
LIST = {"object": "list", "data": [{"id": "llama-3"}, {"id": "gemma"}]}


def test_the_similar_model_is_proposed(rig: Rig, wire: Wire) -> None:
    port = wire.serve(reply("404 Not Found", REFUSED), reply("200 OK", LIST), reply("404 Not Found", REFUSED))
    for _ in range(3):
        record = rig.call(at(port.url, lambda user: user.chat("hello", model="llama3"))).record
        assert record.error_code == "404"
        assert record.error_message == (
            "The model `llama3` does not exist. (the server has no model 'llama3'; did you mean 'llama-3'?)"
        )
    assert [request.target for request in port.requests()].count("/v1/models") == 1


def test_a_server_without_a_list_gets_the_general_advice(rig: Rig, wire: Wire) -> None:
    port = wire.serve(reply("404 Not Found", REFUSED))
    message = rig.ask(port.url).record.error_message or ""
    assert message == (
        "The model `llama3` does not exist. (check that --llm-model matches a name that the server lists under /models)"
    )


def test_a_refusal_that_only_mentions_a_model_keeps_its_words(rig: Rig, wire: Wire) -> None:
    words = "This model's maximum context length is 4096 tokens."
    port = wire.serve(reply("400 Bad Request", words), reply("400 Bad Request", words),
                      reply("200 OK", {"data": [{"id": "tiny"}]}))  # fmt: skip
    assert rig.ask(port.url).record.error_message == words


def test_a_gateway_that_refuses_the_model_with_400(rig: Rig, wire: Wire) -> None:
    words = "Invalid model name passed in model=tiny"
    port = wire.serve(reply("400 Bad Request", words), reply("400 Bad Request", words),
                      reply("200 OK", {"data": [{"id": "tiny-2"}]}))  # fmt: skip
    assert rig.ask(port.url).record.error_message == (
        f"{words} (the server has no model 'tiny'; did you mean 'tiny-2'?)"
    )


@pytest.mark.parametrize("name", ["simulatd", "unlike"])
def test_a_real_list_is_read_for_both_apis(make_rig: Callable[..., Rig], name: str) -> None:
    with launch("ttft=1ms,itl=1ms,check_model=on", max_seconds=60) as simulator:
        for user_class, ask in ((None, "chat"), (AnthropicUser, "message")):
            more = {} if user_class is None else {"user_class": user_class}
            rig = make_rig(llm_model=name, **more)
            record = rig.call(at(simulator.url, lambda user, ask=ask: getattr(user, ask)("hello"))).record
            assert "'simulated'?" in (record.error_message or "") or "it has simulated" in (record.error_message or "")
