"""boto3 over our transport: the seam itself, its own path beside it, retries, many users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from llm_users.transport.botocore import SENDING, Sending, send_through
from llm_users.transport.exchange import Exchange
from llm_users.transport.pool import Pool
from tests.unit.users.bedrock.frames import (
    MODEL,
    REQUEST_ID,
    START,
    STOP,
    answer,
    converse_events,
    delta,
    event,
    exception,
    metadata,
    refusal,
)
from tests.unit.users.bedrock.test_converse import ask
from tests.unit.users.rig import Rig, at
from tests.wire_server import CLOSE, HOLD, Wire, pause

MakeRig = Callable[..., Rig]


def make_client(url: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_before_send_is_the_seam(wire: Wire) -> None:
    """What this relies on in botocore: its event's name and place, and the response that it takes from it."""
    port = wire.serve(answer(*converse_events("x")), refusal("429 Too Many Requests", "ThrottlingException", "slow"))
    client, pool = make_client(port.root), Pool()
    signed = []
    client.meta.events.register(
        "before-send.bedrock-runtime.ConverseStream", lambda request, **_: signed.append(request.headers)
    )
    send_through(client, pool)
    exchange = Exchange(pool)
    SENDING.set(Sending(exchange))
    asked = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "x"}]}]}
    response = client.converse_stream(**asked)
    SENDING.set(None)
    assert exchange.sent_ns
    assert b"AWS4-HMAC-SHA256" in signed[0]["Authorization"]  # the event comes after signing
    assert len(port.requests()) == 1  # and with an answer to it botocore itself sends nothing
    assert response["ResponseMetadata"]["RequestId"] == REQUEST_ID
    assert response["ResponseMetadata"]["HTTPHeaders"]["transfer-encoding"] == "chunked"
    assert b"messageStop" in b"".join(bytes(piece) for a in exchange.arrivals() for piece in a.pieces)
    exchange.release()
    # The error's body is read by botocore through us, and the connection can be used again.
    with pytest.raises(client.exceptions.ThrottlingException, match="slow"):
        client.converse_stream(**asked)
    assert port.connections == 1
    pool.close()


@pytest.mark.alone
def test_boto3s_own_path_says_the_same(rig_with: MakeRig, wire: Wire) -> None:
    thought, tool = delta(reasoningContent={"text": "hm"}), delta(toolUse={"input": "{}"})
    begin = event("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}})
    ends = [STOP, metadata(4, usage={"cacheReadInputTokens": 3}, serviceTier={"type": "flex"})]
    script = answer(START, thought, delta(text="Ye"), delta(text="s"), begin, tool, *ends)
    script.insert(1, pause(0.02))
    port = wire.serve(script)
    fast, sdk = (ask(rig_with(llm_transport=way), port.root) for way in ("fast", "sdk"))
    assert fast.record.error_code is None
    assert (fast.text, fast.reasoning, fast.finish_reason) == (sdk.text, sdk.reasoning, sdk.finish_reason)
    assert fast.tool_calls == sdk.tool_calls
    counts = ("output_tokens", "input_tokens", "cached_tokens", "chunks", "requested_output_tokens")
    for name in (*counts, "error_code", "http_status", "response_id", "service_tier", "server_latency_s"):
        assert getattr(fast.record, name) == getattr(sdk.record, name)
    assert sdk.record.stamp_source == "user"
    assert sdk.record.ttft_s == pytest.approx(0.02, abs=0.02)


@pytest.mark.parametrize(
    ("script", "codes"),
    [
        (refusal("429 Too Many Requests", "ThrottlingException", "Too many tokens"), {"ThrottlingException"}),
        (answer(START, delta(text="x"), exception("throttlingException", message="m")), {"ThrottlingException"}),
        (answer(START, delta(text="x")), {"truncated"}),
        ([*answer(START, delta(text="x"))[:-1], CLOSE], {"truncated"}),
        ([CLOSE], {"reset"}),
        ([HOLD], {"timeout"}),
        ([*answer(START, delta(text="x"))[:-1], HOLD], {"timeout"}),
    ],
)
def test_boto3s_own_path_has_the_same_codes(rig_with: MakeRig, wire: Wire, script: Any, codes: set[str]) -> None:
    rig = rig_with(llm_transport="sdk", llm_timeout="0.5")
    record = ask(rig, wire.serve(script).root).record
    assert record.error_code in codes


def test_nobody_there_on_boto3s_own_path(rig_with: MakeRig) -> None:
    assert ask(rig_with(llm_transport="sdk", llm_timeout="0.5"), "http://127.0.0.1:9").record.error_code == "connect"


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_retries_are_counted_and_the_clock_starts_with_the_first(make_rig: MakeRig, wire: Wire, transport: str) -> None:
    throttled = refusal("429 Too Many Requests", "ThrottlingException", "slow down")
    port = wire.serve(throttled, throttled, answer(*converse_events("x")))
    rig = make_rig(attributes={"attempts": 3}, llm_transport=transport)
    record = ask(rig, port.root).record
    first, _, last = port.requests()
    assert (record.error_code, record.retries) == (None, 2)
    assert record.ttft_s is not None
    assert record.ttft_s > (last.received_ns - first.received_ns) / 1e9


def test_a_lost_connection_is_retried_too(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig(attributes={"attempts": 2})
    record = ask(rig, wire.serve([CLOSE], answer(*converse_events("x"))).root).record
    assert (record.error_code, record.retries, record.reconnects) == (None, 1, 0)
    record = ask(rig, wire.serve([CLOSE]).root).record
    assert (record.error_code, record.retries) == ("reset", 1)


def test_the_environment_cannot_turn_retries_on(make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    port = wire.serve(refusal("429 Too Many Requests", "ThrottlingException", "slow down"))
    assert ask(make_rig(), port.root).record.retries == 0
    assert len(port.requests()) == 1


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_200_users_open_at_most_200_connections(make_rig: MakeRig, wire: Wire, transport: str) -> None:
    port = wire.serve(answer(*converse_events("x", "y")))
    rig = make_rig(users=200, llm_transport=transport)
    results = [rig.send(at(port.root, lambda user: user.converse("hello"))) for _ in range(600)]
    codes = {result.get(timeout=30).record.error_code for result in results}
    assert codes == {None}
    assert port.connections <= 200
    assert len(port.requests()) == 600


@pytest.mark.alone
def test_signing_is_before_the_clock(make_rig: MakeRig, wire: Wire) -> None:
    """A slow signature is queue, not time to first token."""
    port = wire.serve(answer(*converse_events("x")))
    rig = make_rig()

    def slow(user: Any) -> Any:
        client = user._client(user.run_context, port.root)
        client.meta.events.register("before-sign.bedrock-runtime.*", lambda **_: gevent.sleep(0.2))
        return user.converse("x")

    record = rig.call(at(port.root, slow)).record
    assert record.queue_s > 0.2
    assert record.ttft_s < 0.1
