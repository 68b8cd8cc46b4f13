"""AWS's SDK for JavaScript, unmodified, understands the simulator: every family, every refusal, every break."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llm_users.simulator.bedrock.errors import ERRORS, STREAM_ERRORS
from llm_users.simulator.launch import launch
from tests.unit.simulator.families import BLOCKS, CLAUDE_3, FAMILIES

Ask = Callable[[str, Any], Any]
CONVERSE = {"modelId": CLAUDE_3, "inferenceConfig": {"maxTokens": 6}, **BLOCKS}
FAST = "ttft=2ms,itl=100us,tokens=6"


def test_every_family_through_every_operation(javascript: Ask) -> None:
    with launch(f"{FAST},cached=2") as sim:
        endpoint = f"http://127.0.0.1:{sim.port}"
        calls = [{"endpoint": endpoint, "command": "ConverseStreamCommand", "input": CONVERSE}]
        calls.append({"endpoint": endpoint, "command": "ConverseCommand", "input": CONVERSE})
        for family in FAMILIES.values():
            for command in ("InvokeModelWithResponseStreamCommand", "InvokeModelCommand"):
                question = {"modelId": family.model, "body": json.dumps(family.body), "contentType": "application/json"}
                calls.append({"endpoint": endpoint, "command": command, "input": question})
        converse, whole, *invoked = javascript("sdk.mjs", calls)
    assert [next(iter(event)) for event in converse["events"]] == [
        "messageStart", *["contentBlockDelta"] * 6, "contentBlockStop", "messageStop", "metadata"
    ]  # fmt: skip
    assert converse["requestId"].startswith("00000000-")
    usage = {"inputTokens": 3, "outputTokens": 6, "totalTokens": 11, "cacheReadInputTokens": 2}
    usage["cacheWriteInputTokens"] = 0
    assert converse["events"][-1]["metadata"]["usage"] == whole["answer"]["usage"] == usage
    assert len(whole["answer"]["output"]["message"]["content"][0]["text"].split()) == 6
    for family, stream, answer in zip(FAMILIES.values(), invoked[::2], invoked[1::2], strict=True):
        assert stream["status"] == answer["status"] == 200, (family, stream, answer)
        assert len([text for document in stream["events"] if (text := family.text(document))]) == 4
        assert stream["events"][-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 4
        assert len(family.whole(answer["answer"]["body"]).split()) == 4


def test_reasoning_and_tools(javascript: Ask) -> None:
    with launch(f"{FAST},reasoning=2,tool=2") as sim:
        call = {"endpoint": f"http://127.0.0.1:{sim.port}", "command": "ConverseStreamCommand", "input": CONVERSE}
        (said,) = javascript("sdk.mjs", [call])
    deltas = [event["contentBlockDelta"]["delta"] for event in said["events"] if "contentBlockDelta" in event]
    assert [next(iter(delta)) for delta in deltas] == [
        *["reasoningContent"] * 3, "text", "text", "toolUse", "toolUse"
    ]  # fmt: skip
    assert json.loads("".join(delta["toolUse"]["input"] for delta in deltas[-2:]))


def test_refusals_and_breaks(javascript: Ask) -> None:
    refusing = launch(f"{FAST},bedrock_error=" + "+".join(f"{name}:0.071" for name in ERRORS))
    # After how many tokens a stream breaks off says with what.
    places = list(STREAM_ERRORS)
    breaking = launch(f"{FAST},stream_error=" + "+".join(f"{kind}@{at}:0.166" for at, kind in enumerate(places)))
    cutting = launch(f"{FAST},cut=3")
    with refusing, breaking, cutting:
        calls = [
            {"endpoint": f"http://127.0.0.1:{sim.port}", "command": "ConverseStreamCommand", "input": CONVERSE}
            for sim, count in ((refusing, 120), (breaking, 40), (cutting, 1))
            for _ in range(count)
        ]
        said = javascript("sdk.mjs", calls)
    refused = {(e["name"], e["status"], e["message"]) for answer in said[:120] if (e := answer.get("error"))}
    assert refused == {(error.code, error.status, error.message) for error in ERRORS.values()}
    broken = set()
    for answer in said[120:160]:
        tokens = sum("contentBlockDelta" in event for event in answer["events"])
        if "error" in answer:
            broken.add((places[tokens], answer["error"]["name"].lower()))
    assert broken == {(kind, kind.lower()) for kind in STREAM_ERRORS}
    assert sum("contentBlockDelta" in event for event in said[-1]["events"]) == 3
    assert said[-1]["error"]
