"""Which models are served on which routes: any model on any route by default, as on Bedrock with `routes=aws`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_users.simulator.launch import Simulator

from .signing import CHAT, MESSAGES, RESPONSES, ask
from .wire import Client

Endpoint = Callable[..., Simulator]
MANTLE_CHAT, MANTLE_RESPONSES = "/v1/chat/completions", "/v1/responses"
PATHS = ("converse", CHAT, RESPONSES, MESSAGES, MANTLE_CHAT, MANTLE_RESPONSES)
RUNTIME, MANTLE = "bedrock", "bedrock-mantle"


def status_of(port: int, path: str, model: str, service: str) -> int:
    if path == "converse":
        path = f"/model/{model}/converse"
    return ask(port, path, service=service, model=model).status


@pytest.mark.parametrize(
    ("model", "runtime", "mantle"),
    [
        ("us.openai.gpt-5.6-sol", (RESPONSES,), (RESPONSES,)),
        ("openai.gpt-5.5", (), (RESPONSES,)),
        ("openai.gpt-6", (RESPONSES,), (RESPONSES,)),
        ("openai.gpt-oss-120b-1:0", ("converse", CHAT), (MANTLE_CHAT, MANTLE_RESPONSES)),
        ("openai.gpt-oss-safeguard-20b", ("converse", CHAT), (MANTLE_CHAT,)),
        ("global.anthropic.claude-sonnet-5", ("converse", MESSAGES), (MESSAGES,)),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", ("converse", MESSAGES), (MESSAGES,)),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", ("converse",), ()),
        ("anthropic.claude-3-haiku-20240307-v1:0", ("converse",), ()),
        ("google.gemma-4-31b", (), (CHAT, RESPONSES)),
        ("google.gemma-3-27b-it", ("converse", CHAT), (MANTLE_CHAT,)),
        ("qwen.qwen3-32b-v1:0", ("converse", CHAT), (MANTLE_CHAT,)),
        ("us.amazon.nova-lite-v1:0", ("converse",), ()),
        ("us.meta.llama4-scout-17b-instruct-v1:0", ("converse",), ()),
    ],
)
def test_each_family_has_its_routes(
    endpoint: Endpoint, model: str, runtime: tuple[str, ...], mantle: tuple[str, ...]
) -> None:
    port = endpoint("routes=aws").port
    on_runtime = tuple(path for path in PATHS[:4] if status_of(port, path, model, RUNTIME) == 200)
    on_mantle = tuple(path for path in PATHS[1:] if status_of(port, path, model, MANTLE) == 200)
    assert (on_runtime, on_mantle) == (runtime, mantle)
    anywhere = endpoint("").port
    assert {status_of(anywhere, path, model, RUNTIME) for path in PATHS} == {200}


@pytest.mark.parametrize(
    ("path", "model", "service", "status", "text"),
    [
        (MANTLE_RESPONSES, "openai.gpt-5.5", MANTLE, 400, "model `openai.gpt-5.5` isn't supported on this route"),
        (CHAT, "openai.gpt-oss-20b", MANTLE, 400, "model `openai.gpt-oss-20b` isn't supported on this route"),
        (MANTLE_CHAT, "openai.gpt-5.5", MANTLE, 400,
         "The model 'openai.gpt-5.5' does not support the '/v1/chat/completions' API"),
        (MANTLE_CHAT, "anthropic.claude-sonnet-5", MANTLE, 400,
         "The model 'anthropic.claude-sonnet-5' does not support the '/v1/chat/completions' API"),
        (MANTLE_CHAT, "amazon.nova-lite-v1:0", MANTLE, 404, "The model 'amazon.nova-lite-v1:0' does not exist"),
        (RESPONSES, "openai.gpt-oss-20b-1:0", RUNTIME, 404,
         "The model 'openai.gpt-oss-20b-1:0' doesn't exist or doesn't support this API"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong_with_the_route(
    endpoint: Endpoint, path: str, model: str, service: str, status: int, text: str
) -> None:
    reply = ask(endpoint("routes=aws").port, path, service=service, model=model)
    error = reply.body["error"]
    code = "validation_error" if status == 400 else "not_found_error"
    assert (reply.status, error["message"], error["code"]) == (status, text, code)
    assert error["type"] == "invalid_request_error"


def test_the_error_has_the_shape_of_its_api(endpoint: Endpoint) -> None:
    port = endpoint("routes=aws").port
    refused = ask(port, MESSAGES, model="openai.gpt-oss-20b")
    assert refused.status == 404
    assert (refused.body["type"], refused.body["error"]["type"]) == ("error", "not_found_error")
    assert refused.body["request_id"] == refused.headers["request-id"]
    refused = ask(port, "/model/openai.gpt-5.5/converse")
    assert (refused.status, refused.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert refused.body["message"] == "The provided model identifier is invalid."


def test_without_a_signature_a_route_of_both_endpoints_serves_the_models_of_both(endpoint: Endpoint) -> None:
    port = endpoint("routes=aws").port
    assert ask(port, CHAT, signed=False, model="openai.gpt-oss-20b-1:0").status == 200
    assert ask(port, CHAT, signed=False, model="google.gemma-4-31b").status == 200
    assert ask(port, CHAT, signed=False, model="anthropic.claude-sonnet-5").status == 400


def test_models_are_listed_where_bedrock_lists_them(endpoint: Endpoint) -> None:
    def status_of_models(spec: str, path: str) -> int:
        with Client(endpoint(spec).port) as client:
            return client.ask("GET", path).status

    paths = ("/v1/models", "/openai/v1/models")
    assert [status_of_models("", path) for path in paths] == [200, 200]
    assert [status_of_models("routes=aws", path) for path in paths] == [200, 404]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages"])
def test_routes_that_bedrock_does_not_have_are_unknown(endpoint: Endpoint, path: str) -> None:
    with Client(endpoint("routes=aws").port) as client:
        answer = client.ask("POST", path, {"model": "m", "prompt": "a"})
        assert (answer.status, answer.json()["error"]["code"]) == (404, "unknown_url")
