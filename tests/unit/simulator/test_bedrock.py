"""AWS's own client, unmodified, understands everything that the endpoint says."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llm_users.simulator.bedrock.errors import ERRORS, STREAM_ERRORS, of_status
from llm_users.simulator.bedrock.families import provider_of
from llm_users.simulator.launch import Simulator

from .families import BLOCKS, CLAUDE_3, FAMILIES, Family

Json = dict[str, Any]
ANTHROPIC = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 4, "messages": [{"role": "user", "content": "a"}]}


@pytest.fixture(scope="module")
def bedrock(endpoint: Callable[..., Simulator]) -> Iterator[Callable[..., Any]]:
    """boto3's client of the endpoint with these spec keys. Signing with any key will do; nothing is tried twice."""
    import boto3
    from botocore.config import Config

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"):
            patch.delenv(name, raising=False)
        session = boto3.Session("any", "thing", region_name="us-east-1")
        clients: dict[str, Any] = {}

        def get(more: str = "") -> Any:
            if more not in clients:
                clients[more] = session.client(
                    "bedrock-runtime",
                    endpoint_url=f"http://127.0.0.1:{endpoint(more).port}",
                    config=Config(retries={"total_max_attempts": 1}, read_timeout=10),
                )
            return clients[more]

        yield get


def stream_documents(client: Any, model: str, body: Json, **fields: Any) -> list[Json]:
    answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body), **fields)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/vnd.amazon.eventstream"
    assert answer["contentType"] == "application/json"
    return [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]


def converse_events(client: Any, model: str = CLAUDE_3, **fields: Any) -> list[tuple[str, Json]]:
    answer = client.converse_stream(modelId=model, **{**BLOCKS, **fields})
    return [next(iter(event.items())) for event in answer["stream"]]


def words_of(family: Family, documents: list[Json]) -> list[str]:
    return [text for document in documents if (text := family.text(document))]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_streams(bedrock: Callable[..., Any], name: str) -> None:
    family = FAMILIES[name]
    documents = stream_documents(bedrock(), family.model, family.body)
    texts = words_of(family, documents)
    assert len(texts) == 4 == len("".join(texts).split())
    assert [reason for document in documents if (reason := family.finish(document))] == [family.length]
    assert [document for document in documents if "amazon-bedrock-invocationMetrics" in document] == documents[-1:]
    metrics = documents[-1]["amazon-bedrock-invocationMetrics"]
    assert (metrics["inputTokenCount"], metrics["outputTokenCount"]) == (family.prompt_words, 4)
    assert 0 <= metrics["firstByteLatency"] <= metrics["invocationLatency"] < 2000


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_whole(bedrock: Callable[..., Any], name: str) -> None:
    family = FAMILIES[name]
    answer = bedrock().invoke_model(modelId=family.model, body=json.dumps(family.body))
    assert len(family.whole(json.loads(answer["body"].read())).split()) == 4
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amzn-bedrock-input-token-count"] == str(family.prompt_words)
    assert headers["x-amzn-bedrock-output-token-count"] == "4"
    assert int(headers["x-amzn-bedrock-invocation-latency"]) >= 0


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_by_its_own_cap_and_without_one(bedrock: Callable[..., Any], name: str) -> None:
    family = FAMILIES[name]
    longer = json.loads(json.dumps(family.body).replace(": 4", ": 9"))
    assert len(words_of(family, stream_documents(bedrock(), family.model, longer))) == 9
    if not name.startswith("anthropic"):  # they insist on it
        uncapped = json.loads(json.dumps(family.body).replace(": 4", ": null"))
        assert len(words_of(family, stream_documents(bedrock(), family.model, uncapped))) == 5


def test_converse_streams(bedrock: Callable[..., Any]) -> None:
    client = bedrock()
    answer = client.converse_stream(modelId=CLAUDE_3, inferenceConfig={"maxTokens": 4}, **BLOCKS)
    assert answer["ResponseMetadata"]["RequestId"].startswith("00000000-0000-4000-8000-")
    events = [next(iter(event.items())) for event in answer["stream"]]
    assert [name for name, _ in events] == [
        "messageStart", *["contentBlockDelta"] * 4, "contentBlockStop", "messageStop", "metadata"
    ]  # fmt: skip
    assert events[0][1]["role"] == "assistant"
    assert len("".join(event["delta"]["text"] for _, event in events[1:5]).split()) == 4
    assert events[-2][1]["stopReason"] == "max_tokens"
    metadata = events[-1][1]
    assert metadata["usage"] == {"inputTokens": 5, "outputTokens": 4, "totalTokens": 9}
    assert 0 <= metadata["metrics"]["latencyMs"] < 1000


def test_converse_answers_whole(bedrock: Callable[..., Any]) -> None:
    answer = bedrock("finish=stop").converse(modelId=CLAUDE_3, inferenceConfig={"maxTokens": 4}, **BLOCKS)
    (block,) = answer["output"]["message"]["content"]
    assert len(block["text"].split()) == 4
    assert (answer["stopReason"], answer["usage"]["totalTokens"]) == ("end_turn", 9)
    assert answer["metrics"]["latencyMs"] >= 0


def test_what_was_asked_for_is_said_to_be_used(bedrock: Callable[..., Any]) -> None:
    client, asked = bedrock(), {"performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "flex"}}
    metadata = converse_events(client, **asked)[-1][1]
    whole = client.converse(modelId=CLAUDE_3, **BLOCKS, **asked)
    for said in (metadata, whole):
        assert {name: said[name] for name in asked} == asked
    headers = {"performanceConfigLatency": "optimized", "serviceTier": "flex"}
    for call in (client.invoke_model, client.invoke_model_with_response_stream):
        answer = call(modelId=CLAUDE_3, body=json.dumps(ANTHROPIC), **headers)
        assert {name: answer[name] for name in headers} == headers
        list(answer["body"])
    assert "performanceConfig" not in converse_events(client)[-1][1]


def test_cache_reasoning_and_tool_through_converse(bedrock: Callable[..., Any]) -> None:
    client = bedrock("cached=3,reasoning=3,tool=2,tokens=8,tokens_per_chunk=2")
    events = converse_events(client)
    deltas = [event for name, event in events if name == "contentBlockDelta"]
    thoughts = [d["delta"]["reasoningContent"] for d in deltas if d["contentBlockIndex"] == 0]
    assert len("".join(t.get("text", "") for t in thoughts).split()) == 3
    assert "signature" in thoughts[-1]
    assert len("".join(d["delta"]["text"] for d in deltas if d["contentBlockIndex"] == 1).split()) == 3
    call = "".join(d["delta"]["toolUse"]["input"] for d in deltas if d["contentBlockIndex"] == 2)
    assert len(json.loads(call)["text"].split()) == 2
    assert [event["contentBlockIndex"] for name, event in events if name == "contentBlockStop"] == [0, 1, 2]
    assert events[-2][1]["stopReason"] == "tool_use"
    usage = {"inputTokens": 2, "outputTokens": 8, "totalTokens": 13, "cacheReadInputTokens": 3}
    assert events[-1][1]["usage"] == {**usage, "cacheWriteInputTokens": 0}
    whole = client.converse(modelId=CLAUDE_3, **BLOCKS)
    kinds = [next(iter(block)) for block in whole["output"]["message"]["content"]]
    assert kinds == ["reasoningContent", "text", "toolUse"]
    assert whole["usage"]["cacheReadInputTokens"] == 3


def test_cache_reasoning_and_tool_through_anthropic(bedrock: Callable[..., Any]) -> None:
    client = bedrock("cached=3,reasoning=3,tool=2,tokens=8,tokens_per_chunk=2")
    documents = stream_documents(client, CLAUDE_3, {**ANTHROPIC, "max_tokens": 8})
    assert documents[0]["message"]["usage"] == {
        "input_tokens": 0, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 0, "output_tokens": 1
    }  # fmt: skip
    assert [d["content_block"]["type"] for d in documents if d["type"] == "content_block_start"] == [
        "thinking", "text", "tool_use"
    ]  # fmt: skip
    kinds = [d["delta"]["type"] for d in documents if d["type"] == "content_block_delta"]
    assert kinds == [*["thinking_delta"] * 2, "signature_delta", *["text_delta"] * 2, "input_json_delta"]
    assert documents[-2]["delta"]["stop_reason"] == "tool_use"
    assert documents[-1]["amazon-bedrock-invocationMetrics"]["cacheReadInputTokenCount"] == 1


@pytest.mark.parametrize(("name", "thoughts"), [("nova", 3), ("qwen", 3), ("llama", 0)])
def test_reasoning_of_other_families(bedrock: Callable[..., Any], name: str, thoughts: int) -> None:
    family = FAMILIES[name]
    documents = stream_documents(bedrock("reasoning=3"), family.model, family.body)
    assert len(words_of(family, documents)) == 4 - thoughts  # Llama has no field for it: all is text
    assert json.dumps(documents).lower().count("reasoning") == thoughts


def test_reasoning_of_the_model_that_thinks_in_tags(bedrock: Callable[..., Any]) -> None:
    family = FAMILIES["gpt-oss"]
    *thoughts, said = words_of(family, stream_documents(bedrock("reasoning=3"), family.model, family.body))
    assert len(thoughts) == 3
    assert all(re.fullmatch(r"<reasoning> ?\S+</reasoning>", thought) for thought in thoughts)
    assert "<" not in said
    answer = bedrock("reasoning=3").invoke_model(modelId=family.model, body=json.dumps(family.body))
    whole = family.whole(json.loads(answer["body"].read()))
    assert re.fullmatch(r"<reasoning>(\S+ ){2}\S+</reasoning>\S+", whole)


def test_every_refusal(bedrock: Callable[..., Any]) -> None:
    """All of them from one endpoint, drawn by chance until each was there."""
    from botocore.exceptions import ClientError

    client = bedrock(f"retry_after=2s,bedrock_error={'+'.join(f'{name}:0.071' for name in ERRORS)}")
    seen: dict[tuple[str, str], int] = {}
    for number in range(160):
        with _noted(ClientError, seen):
            if number % 2:
                list(client.converse_stream(modelId=CLAUDE_3, **BLOCKS)["stream"])
            else:
                list(client.invoke_model_with_response_stream(modelId=CLAUDE_3, body=json.dumps(ANTHROPIC))["body"])
    assert seen == {(error.code, error.message): error.status for error in ERRORS.values()}


@contextlib.contextmanager
def _noted(kind: type[Any], seen: dict[tuple[str, str], int]) -> Iterator[None]:
    try:
        yield
    except kind as caught:
        said, about = caught.response["Error"], caught.response["ResponseMetadata"]
        seen[said["Code"], said["Message"]] = about["HTTPStatusCode"]
        right = about["RequestId"].startswith("00000000-") and about["HTTPHeaders"]["retry-after"] == "2"
        if not right or (caught.response.get("originalStatusCode") == 500) != (said["Code"] == "ModelErrorException"):
            raise


@pytest.mark.parametrize("status", [400, 403, 404, 408, 418, 424, 429, 500, 502, 503])
def test_a_status_gets_the_exception_that_has_it(status: int) -> None:
    error = of_status(status)
    assert error.status == status
    assert error.code.endswith("Exception")


def test_injected_statuses_reach_bedrock_too(bedrock: Callable[..., Any]) -> None:
    client = bedrock("error=503:1")
    with pytest.raises(client.exceptions.ServiceUnavailableException):
        client.converse(modelId=CLAUDE_3, **BLOCKS)


def test_exceptions_inside_a_stream(bedrock: Callable[..., Any]) -> None:
    from botocore.exceptions import EventStreamError

    # One endpoint for all kinds: after how many tokens it breaks off says which it is.
    places = list(STREAM_ERRORS)
    client = bedrock("tokens=9,stream_error=" + "+".join(f"{k}@{at}:0.166" for at, k in enumerate(places)))
    seen = set()
    for number in range(120):
        converse = bool(number % 2)
        deltas = 0
        try:
            if converse:
                for event in client.converse_stream(modelId=CLAUDE_3, **BLOCKS)["stream"]:
                    deltas += "contentBlockDelta" in event
            else:
                body = json.dumps({**ANTHROPIC, "max_tokens": 9})
                for event in client.invoke_model_with_response_stream(modelId=CLAUDE_3, body=body)["body"]:
                    deltas += b"content_block_delta" in event["chunk"]["bytes"]
        except EventStreamError as caught:
            seen.add((places[deltas], converse, caught.response["Error"]["Code"], caught.response["Error"]["Message"]))
    # botocore does not know this one among ConverseStream's events, so it has neither name nor message for it.
    assert (timeout := ("modelTimeoutException", True, "", "")) in seen
    assert seen - {timeout} == {
        (kind, converse, kind, message)
        for kind, message in STREAM_ERRORS.items()
        for converse in (True, False)
        if (kind, converse) != timeout[:2]
    }


def test_a_cut_stream(bedrock: Callable[..., Any]) -> None:
    import urllib3.exceptions
    from botocore.exceptions import ConnectionClosedError, ResponseStreamingError

    for call, fields, events_before in (
        ("converse_stream", BLOCKS, 4),
        ("invoke_model_with_response_stream", {"body": json.dumps({**ANTHROPIC, "max_tokens": 9})}, 5),
    ):
        answer = getattr(bedrock("cut=3,tokens=9"), call)(modelId=CLAUDE_3, **fields)
        got: list[Json] = []
        with pytest.raises((ConnectionClosedError, ResponseStreamingError, urllib3.exceptions.ProtocolError)):
            got.extend(answer.get("stream") or answer["body"])  # keeps what came before the error
        assert len(got) == events_before
    # No stream, no cut; and an answer that ends before is not touched.
    client = bedrock("cut=3,tokens=9")
    assert client.converse(modelId=CLAUDE_3, **BLOCKS)["usage"]["outputTokens"] == 9
    assert converse_events(client, inferenceConfig={"maxTokens": 2})[-1][0] == "metadata"


def test_a_stream_that_ends_without_its_end(bedrock: Callable[..., Any]) -> None:
    """boto3 says nothing about it, which is why a client has to look."""
    assert converse_events(bedrock("done=off"))[-1][0] == "contentBlockDelta"
    documents = stream_documents(bedrock("done=off"), CLAUDE_3, ANTHROPIC)
    assert documents[-1]["type"] == "content_block_delta"


def test_without_usage(bedrock: Callable[..., Any]) -> None:
    assert converse_events(bedrock("usage=off"))[-1][0] == "messageStop"
    for name in ("anthropic-messages", "nova"):
        documents = stream_documents(bedrock("usage=off"), FAMILIES[name].model, FAMILIES[name].body)
        assert "invocationMetrics" not in json.dumps(documents)
        assert FAMILIES[name].finish(documents[-2] if name.startswith("anthropic") else documents[-1])


@pytest.mark.parametrize("role", ["early", "none", "late"])
def test_when_the_message_starts(bedrock: Callable[..., Any], role: str) -> None:
    names = [name for name, _ in converse_events(bedrock(f"role={role}"))]
    assert names.count("messageStart") == (role != "none")
    documents = stream_documents(bedrock(f"role={role}"), CLAUDE_3, ANTHROPIC)
    assert (documents[0]["type"] == "message_start") == (role != "none")
    assert documents[-1]["type"] == "message_stop"


@pytest.mark.parametrize(
    "model",
    [
        CLAUDE_3,
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
        "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "us-gov.anthropic.claude-3-5-sonnet-20240620-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-haiku-20240307-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefghijkl",
        "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdefghijkl",
    ],
)
def test_ids_profiles_and_arns(bedrock: Callable[..., Any], model: str) -> None:
    documents = stream_documents(bedrock(), model, ANTHROPIC)
    assert documents[0]["message"]["model"] == model.rpartition("/")[2]
    assert converse_events(bedrock(), model)[-1][0] == "metadata"


@pytest.mark.parametrize(
    "path",
    [f"/model/{CLAUDE_3}/converse", f"/v1/model/{CLAUDE_3.replace(':', '%3A')}/converse", "/model/a%2Fb/converse"],
)
def test_paths(connect: Callable[..., Any], path: str) -> None:
    assert connect().ask("POST", path, BLOCKS).status == 200


@pytest.mark.parametrize(
    ("model", "provider"),
    [("meta.x", "meta"), ("us.meta.x", "meta"), ("arn:a:b/eu.amazon.nova-x", "amazon"), ("x", "x"), ("us.x", "us")],
)
def test_provider_of_an_id(model: str, provider: str) -> None:
    assert provider_of(model)[0] == provider


@pytest.mark.parametrize(
    ("model", "body", "says"),
    [
        (CLAUDE_3, {}, "anthropic_version"),
        (CLAUDE_3, {"anthropic_version": "x", "messages": ANTHROPIC["messages"]}, "max_tokens"),
        (CLAUDE_3, {**ANTHROPIC, "max_tokens": 0}, "is not from 1"),
        (CLAUDE_3, {**ANTHROPIC, "max_tokens": "9"}, "is not from 1"),
        (CLAUDE_3, {**ANTHROPIC, "max_tokens": True}, "is not from 1"),
        ("anthropic.claude-v2", {"prompt": "hi", "max_tokens_to_sample": 3}, "Human:"),
        ("anthropic.claude-v2", {"prompt": "\n\nHuman: hi", "max_tokens_to_sample": 3}, "Assistant:"),
        ("anthropic.claude-v2", {"prompt": [1], "max_tokens_to_sample": 3}, "Human:"),
        ("meta.llama3-8b", {"messages": []}, "[prompt]"),
        ("amazon.titan-text-lite-v1", {"inputText": "x"}, "identifier"),
        ("amazon.other", {"prompt": "x"}, "identifier"),
        ("nobody.knows", {"prompt": "x"}, "identifier"),
        ("cohere.command-r-v1:0", {"message": "x"}, "identifier"),
        (CLAUDE_3, [1], "JSONObject"),
        (CLAUDE_3, b"{", "Malformed"),
        (CLAUDE_3, b"\xff", "Malformed"),
        (CLAUDE_3, b'{"messages":' * 90_000, "Malformed"),
        (CLAUDE_3, b"[" * 3000 + b"]" * 3000, "Malformed"),
    ],
)
def test_bad_bodies(connect: Callable[..., Any], model: str, body: Any, says: str) -> None:
    client = connect()
    answer = client.ask("POST", f"/model/{model}/invoke", body)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert says in answer.json()["message"]
    assert client.ask("GET", "/health").status == 200


def test_converse_needs_messages(connect: Callable[..., Any]) -> None:
    assert "[messages]" in connect().ask("POST", f"/model/{CLAUDE_3}/converse", {}).json()["message"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", f"/model/{CLAUDE_3}/converse"), ("POST", "/model/x/guess"), ("POST", "/model//invoke")]
)
def test_no_such_operation(connect: Callable[..., Any], method: str, path: str) -> None:
    answer = connect().ask(method, path, {})
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")


def test_only_the_one_model_when_asked(bedrock: Callable[..., Any]) -> None:
    client = bedrock(f"check_model=on,model={CLAUDE_3}")
    assert converse_events(client)
    with pytest.raises(client.exceptions.ValidationException, match="identifier"):
        client.converse(modelId="meta.llama3-8b-instruct-v1:0", **BLOCKS)
