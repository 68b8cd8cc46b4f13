"""BedrockOpenAIUser and BedrockAnthropicUser: what reaches the server, with which authentication, and its errors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme

from llm_users import AnthropicUser, BedrockAnthropicUser, BedrockOpenAIUser, OpenAIUser
from llm_users.transport.tls import tls_context
from tests.aws_environment import ACCESS_KEY, SECRET_KEY
from tests.stream_bytes import chat_events, reply, stream
from tests.unit.users.anthropic.messages_api import PLAIN
from tests.unit.users.bedrock.signatures import assert_signed
from tests.unit.users.bedrock.vault import Vault, user_of
from tests.unit.users.rig import Rig, eventually
from tests.wire_server import Script, Wire

MakeRig = Callable[..., Rig]
TOKEN = "FwoGZXIvYXdzEXAMPLETOKENzzzzzzzz"
MODEL = "openai.gpt-oss-20b"


@dataclass(frozen=True)
class Shape:
    """One of the two classes: its call, the vendor's own class, and an answer."""

    user_class: type
    vendor: type
    ask: Callable[[Any], Any]
    script: Script
    runtime: str
    mantle: str


SHAPES = {
    "openai": Shape(
        BedrockOpenAIUser, OpenAIUser, lambda user: user.chat("hi"), stream(chat_events("a", "b")),
        "/openai/v1/chat/completions", "/v1/chat/completions",
    ),
    "anthropic": Shape(
        BedrockAnthropicUser, AnthropicUser, lambda user: user.message("hi"), stream(PLAIN),
        "/anthropic/v1/messages", "/anthropic/v1/messages",
    ),
}  # fmt: skip
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
each_transport = pytest.mark.parametrize("transport", ["fast", "sdk"])


def rig_of(make_rig: MakeRig, shape: Shape, host: str, **options: Any) -> Rig:
    return make_rig(**{"user_class": shape.user_class, "llm_model": MODEL, "host": host, **options})


def notes(rig: Rig) -> str:
    return "\n".join(rig.notes)


# Signatures and addresses.


@each_shape
@each_transport
@pytest.mark.parametrize(("endpoint", "service"), [("runtime", "bedrock"), ("mantle", "bedrock-mantle")])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_request_is_signed_for_its_own_body(
    make_rig: MakeRig,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    shape: Shape,
    transport: str,
    endpoint: str,
    service: str,
    token: str | None,
) -> None:
    """The server checks what arrived: also the headers that the transport writes are the signed ones."""
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    port = wire.serve(shape.script)
    rig = rig_of(
        make_rig, shape, port.root, llm_transport=transport, llm_bedrock_endpoint=endpoint, llm_region="eu-west-3"
    )
    for temperature in (0, 0.5, 1):
        call = "chat" if shape.user_class is BedrockOpenAIUser else "message"
        answer = rig.call(lambda user, call=call, t=temperature: getattr(user, call)("Où? ☃", temperature=t))
        assert (answer.record.error_code, answer.text) == (None, "ab")
    requests = port.requests()
    assert [request.target for request in requests] == [getattr(shape, endpoint)] * 3
    for request in requests:
        parts = assert_signed(request, SECRET_KEY)
        assert (parts["key"], parts["region"], parts["service"]) == (ACCESS_KEY, "eu-west-3", service)
        assert request.headers.get("x-amz-security-token") == token
        assert "x-api-key" not in request.headers
    assert len({request.headers["authorization"] for request in requests}) == 3
    assert f"endpoint bedrock-{endpoint}, region eu-west-3, access key from the environment" in notes(rig)


@each_shape
def test_a_later_request_has_the_head_of_the_first_one(make_rig: MakeRig, wire: Wire, shape: Shape) -> None:
    """Except for its signature; the SDK is not called again."""
    port = wire.serve(shape.script)
    rig = rig_of(make_rig, shape, port.root)
    for _ in range(3):
        assert rig.call(shape.ask).record.ok
    changing = {"authorization", "x-amz-date", "x-amz-content-sha256"}
    first, *later = (
        {name: value for name, value in request.headers.items() if name not in changing} for request in port.requests()
    )
    assert later == [first, first]
    signed = [request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0] for request in port.requests()]
    assert len(set(signed)) == 1
    order = [[line.split(":")[0].lower() for line in request.head.split("\r\n")[1:]] for request in port.requests()]
    kept = [[name for name in names if name not in changing] for names in order]
    assert kept[0] == kept[1] == kept[2]


@each_shape
def test_the_body_is_that_of_the_vendors_own_api(make_rig: MakeRig, wire: Wire, shape: Shape) -> None:
    port = wire.serve(shape.script)
    rig_of(make_rig, shape, port.root).call(shape.ask)
    vendor = rig_of(make_rig, shape, port.url, user_class=shape.vendor)
    vendor.call(lambda user: user.chat("hi", max_tokens=150) if shape.vendor is OpenAIUser else shape.ask(user))
    own, others = port.requests()
    assert own.body == others.body  # Bedrock's has a cap in every request, the mean of --llm-output-tokens


def test_rows_say_which_api_and_endpoint(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a")))
    rig = rig_of(make_rig, SHAPES["openai"], port.root)
    record = rig.call(lambda user: user.chat("hi")).record
    assert (record.api, record.framework, record.endpoint) == ("bedrock-chat", "bedrock", port.root)
    claude = wire.serve(stream(PLAIN))
    record = rig_of(make_rig, SHAPES["anthropic"], claude.root).call(lambda user: user.message("hi")).record
    assert (record.api, record.framework, record.endpoint) == ("bedrock-messages", "bedrock", claude.root)


def test_each_model_has_its_base_path_on_mantle(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a")))
    rig = rig_of(make_rig, SHAPES["openai"], port.root, llm_bedrock_endpoint="mantle")
    for model in (MODEL, "openai.gpt-5.5", "xai.grok-4.3", MODEL):
        assert rig.call(lambda user, model=model: user.chat("hi", model=model)).record.ok
    assert [request.target for request in port.requests()] == [
        "/v1/chat/completions", "/openai/v1/chat/completions", "/openai/v1/chat/completions", "/v1/chat/completions"
    ]  # fmt: skip
    for request in port.requests():
        assert_signed(request, SECRET_KEY)


@pytest.mark.parametrize(
    ("path", "target"),
    [("/openai/v1", "/openai/v1/responses"), ("/v1/", "/v1/responses"), ("/vpc/a%20b", "/vpc/a%20b/responses")],
)
def test_a_path_in_the_host_replaces_the_rule(make_rig: MakeRig, wire: Wire, path: str, target: str) -> None:
    port = wire.serve(stream(chat_events("a")))
    rig = rig_of(
        make_rig, SHAPES["openai"], port.root + path, llm_bedrock_endpoint="mantle", llm_api="bedrock-responses"
    )
    rig.call(lambda user: user.respond("hi"))
    (request,) = port.requests()
    assert request.target == target
    assert_signed(request, SECRET_KEY)


def test_no_host_is_needed(make_rig: MakeRig) -> None:
    """The address is that of AWS; no request is sent."""
    rig = rig_of(make_rig, SHAPES["openai"], "", llm_region="eu-central-1")
    eventually(lambda: "https://bedrock-runtime.eu-central-1.amazonaws.com, endpoint bedrock-runtime" in notes(rig))
    rig = rig_of(make_rig, SHAPES["anthropic"], "", llm_region="us-west-2", llm_bedrock_endpoint="mantle")
    eventually(lambda: "https://bedrock-mantle.us-west-2.api.aws, endpoint bedrock-mantle" in notes(rig))


@each_shape
def test_the_region_of_the_profile(
    make_rig: MakeRig, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Shape
) -> None:
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    port = wire.serve(shape.script)
    assert rig_of(make_rig, shape, port.root).call(shape.ask).record.ok
    assert assert_signed(port.requests()[0], SECRET_KEY)["region"] == "eu-west-3"


# What is refused before a run.


@each_shape
def test_runs_that_cannot_work_are_refused(make_rig: MakeRig, shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--llm-region" in rig_of(make_rig, shape, "").refused()
    assert "--llm-model" in rig_of(make_rig, shape, "http://127.0.0.1:9", llm_model=None).refused()
    assert "use bedrock-" in rig_of(make_rig, shape, "http://127.0.0.1:9", llm_api="converse").refused()
    runtime = "https://bedrock-runtime.us-east-1.amazonaws.com"
    assert "--llm-bedrock-endpoint runtime" in rig_of(make_rig, shape, runtime, llm_bedrock_endpoint="mantle").refused()
    monkeypatch.setenv("GATE", "Bearer gate-secret-1")
    refused = rig_of(make_rig, shape, "http://127.0.0.1:9", llm_header_env=["Authorization=GATE"]).refused()
    assert "Authorization" in refused
    assert "gate-secret" not in refused


# Authentication.


@each_shape
@each_transport
def test_without_credentials(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, shape: Shape, transport: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    port = wire.serve(shape.script)
    rig = rig_of(make_rig, shape, port.root, llm_transport=transport)
    for _ in range(2):
        assert rig.call(shape.ask).record.ok
    assert not [request for request in port.requests() if "authorization" in request.headers]
    assert "not signed" in notes(rig)
    assert "AWS_PROFILE" in rig_of(make_rig, shape, "", llm_region="us-east-1").refused()


@each_shape
@each_transport
def test_a_bearer_key_goes_first_and_only_over_https(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: Shape, transport: str
) -> None:
    key = "bedrock-api-key-YmVkcm9jaw=="
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "root.pem"))
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "server.pem")
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", f"{key}\n")
    tls_context.cache_clear()
    port = wire.serve(shape.script, tls=tmp_path / "server.pem")
    rig = rig_of(make_rig, shape, port.root, llm_transport=transport)
    for _ in range(2):
        assert rig.call(shape.ask).record.error_code is None
    assert [request.headers["authorization"] for request in port.requests()] == [f"Bearer {key}"] * 2
    assert not [request for request in port.requests() if "x-amz-date" in request.headers]
    assert "bearer key from AWS_BEARER_TOKEN_BEDROCK" in notes(rig)
    assert "YmVkcm9jaw" not in notes(rig)
    assert "https" in rig_of(make_rig, shape, wire.serve(shape.script).root).refused()
    tls_context.cache_clear()


def test_keys_of_openai_and_anthropic_are_not_sent(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "not-for-aws")
    for shape in SHAPES.values():
        port = wire.serve(shape.script)
        assert rig_of(make_rig, shape, port.root).call(shape.ask).record.ok
        assert "not-for-aws" not in port.requests()[0].head


@each_shape
def test_headers_from_the_environment_are_signed(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, shape: Shape
) -> None:
    monkeypatch.setenv("GATE", "gate-secret-1")
    port = wire.serve(shape.script)
    rig = rig_of(make_rig, shape, port.root, llm_header_env=["x-gate=GATE"])
    for _ in range(2):
        assert rig.call(shape.ask).record.ok
    for request in port.requests():
        assert request.headers["x-gate"] == "gate-secret-1"
        assert "x-gate" in assert_signed(request, SECRET_KEY)["names"].split(";")


@each_shape
@each_transport
def test_renewed_credentials_are_used_at_once_and_no_request_waits(
    make_rig: MakeRig, wire: Wire, shape: Shape, transport: str
) -> None:
    port = wire.serve(shape.script)
    vault = Vault(life_s=1.2)
    rig = rig_of(make_rig, shape, port.root, user_class=user_of(vault, shape.user_class), llm_transport=transport)
    records = [rig.call(shape.ask).record]
    vault.slow_s = 0.2
    end = time.monotonic() + 2.2
    while time.monotonic() < end:
        records.append(rig.call(shape.ask).record)
        gevent.sleep(0.02)
    assert all(record.error_code is None for record in records)
    keys = [assert_signed(request, SECRET_KEY)["key"] for request in port.requests()]
    assert len(set(keys)) >= 3
    assert keys == sorted(keys)
    assert all(request.headers["x-amz-security-token"] == "t" * 20 for request in port.requests())
    assert max(record.ttft_s for record in records) < 0.15
    assert "valid for 0 min, renewed in the background" in notes(rig)


@each_shape
def test_a_refused_signature_is_reported_and_the_next_request_is_built_anew(
    make_rig: MakeRig, wire: Wire, shape: Shape
) -> None:
    refusal = reply(
        "403 Forbidden",
        {"message": "The security token included in the request is expired"},
        more="x-amzn-ErrorType: ExpiredTokenException:http://internal\r\nx-amzn-RequestId: id-of-aws\r\n",
    )
    port = wire.serve(shape.script, refusal, shape.script, shape.script)
    rig = rig_of(make_rig, shape, port.root)
    records = [rig.call(shape.ask).record for _ in range(4)]
    assert [record.error_code for record in records] == [None, "ExpiredTokenException", None, None]
    assert (records[1].http_status, records[1].response_id) == (403, "id-of-aws")
    assert "renew them at their source" in (records[1].error_message or "")
    for request in port.requests():
        assert_signed(request, SECRET_KEY)
    assert len(port.requests()) == 4


@each_shape
def test_secrets_are_never_shown(
    make_rig: MakeRig, wire: Wire, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, shape: Shape
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    echo = f"no such key {ACCESS_KEY} {SECRET_KEY} {TOKEN}"
    refusal = reply("403 Forbidden", {"error": {"message": echo, "type": "permission_error"}})
    port = wire.serve(refusal, shape.script)
    with caplog.at_level(logging.DEBUG):
        rig = rig_of(make_rig, shape, port.root)
        record = rig.call(shape.ask).record
        assert rig.call(shape.ask).record.ok
    shown = [*rig.notes, record.error_message or "", str(rig.seen.locust_requests), caplog.text]
    for secret in (ACCESS_KEY, SECRET_KEY, TOKEN):
        assert all(secret not in text for text in shown)
    assert "[redacted]" in (record.error_message or "")


@each_shape
def test_a_redirect_is_an_error(make_rig: MakeRig, wire: Wire, shape: Shape) -> None:
    """A signature is only valid for its own address. The first request and a later one, with its cached head."""
    moved = reply("307 Temporary Redirect", "", more="Location: /elsewhere\r\n")
    port = wire.serve(moved, shape.script, moved, shape.script)
    rig = rig_of(make_rig, shape, port.root)
    assert [rig.call(shape.ask).record.error_code for _ in range(4)] == ["307", None, "307", None]
    assert {request.target for request in port.requests()} == {shape.runtime}


# Errors of the service.

QUOTA = "Too many tokens, please wait before trying again: input tokens per minute for this model"


@each_shape
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": QUOTA, "type": "rate_limit_exceeded", "code": "rate_limit_exceeded", "param": None}},
        {"type": "error", "error": {"type": "rate_limit_error", "message": QUOTA}},
        {"message": QUOTA},
    ],
    ids=["openai", "anthropic", "aws"],
)
def test_throttling_by_tokens_per_minute(make_rig: MakeRig, wire: Wire, shape: Shape, body: dict[str, Any]) -> None:
    """Before the first success, and later: the row is throttled and keeps the text of the quota."""
    more = "x-amzn-ErrorType: ThrottlingException\r\n" if body == {"message": QUOTA} else ""
    throttled = reply("429 Too Many Requests", body, more=more)
    port = wire.serve(throttled, shape.script, throttled)
    rig = rig_of(make_rig, shape, port.root, llm_bedrock_endpoint="mantle")
    early, fine, late = (rig.call(shape.ask).record for _ in range(3))
    assert fine.ok
    for record in (early, late):
        assert record.outcome == "throttled"
        assert record.error_code == ("ThrottlingException" if more else "429")
        assert (record.http_status, record.error_message) == (429, QUOTA)
    assert len(port.requests()) == 3  # throttled requests are not repeated


@pytest.mark.parametrize(
    "message",
    ["model `xai.grok-4.3` isn't supported on this route", "The model 'm' does not support the '/v1/responses' API"],
)
def test_a_wrong_route_is_explained(make_rig: MakeRig, wire: Wire, message: str) -> None:
    body = {"error": {"code": "validation_error", "message": message, "param": None, "type": "invalid_request_error"}}
    port = wire.serve(reply("400 Bad Request", body))
    record = rig_of(make_rig, SHAPES["openai"], port.root).call(lambda user: user.chat("hi")).record
    assert record.error_code == "400"
    assert message in (record.error_message or "")
    assert "--llm-bedrock-endpoint" in (record.error_message or "")


def test_a_refused_key_names_the_variables_of_aws(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(reply("401 Unauthorized", {"error": {"message": "no"}}))
    record = rig_of(make_rig, SHAPES["openai"], port.root).call(lambda user: user.chat("hi")).record
    assert "AWS_PROFILE or AWS_BEARER_TOKEN_BEDROCK" in (record.error_message or "")


def test_mantle_lists_its_models(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(reply("200 OK", {"data": [{"id": MODEL}, {"id": "xai.grok-4.3"}]}))
    rig = rig_of(make_rig, SHAPES["openai"], port.root, llm_bedrock_endpoint="mantle")
    listed = rig.call(lambda user: user.listed_models(user.run_context, port.root))
    assert listed == [MODEL, "xai.grok-4.3"]
    (request,) = port.requests()
    assert request.target == "/v1/models"
