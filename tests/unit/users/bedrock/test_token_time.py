"""TPOT of Bedrock's streams ends with the event that carries the finish reason, whatever the family calls it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.stream_bytes import LAST_CHUNK, chunk
from tests.unit.users.bedrock.frames import START, STOP, answer, delta, metadata, metrics, opening, part
from tests.unit.users.bedrock.test_invoke import MODELS, Document
from tests.unit.users.rig import Rig, at
from tests.wire_server import Wire, pause, send

pytestmark = pytest.mark.alone

# 5 tokens at a distance of 20 ms; the last one is a stop token without a chunk.
SPEC = "ttft=20ms,itl=20ms,finish=stop,stop_token=silent"
NEAR_S = 0.002


@pytest.mark.parametrize("name", ["converse", *MODELS])
def test_the_finish_event_is_the_stop_token(
    rig_with: Callable[..., Rig], simulate: Callable[[str], str], name: str
) -> None:
    """With the last chunk as the end it would be 15 ms."""
    rig, url = rig_with(llm_output_tokens="5,0"), simulate(SPEC)
    if name == "converse":
        record = rig.call(at(url, lambda user: user.converse("hello"))).record
    else:
        record = rig.call(at(url, lambda user: user.invoke("hello", modelId=MODELS[name]))).record
    assert (record.error_code, record.chunks, record.output_tokens) == (None, 4, 5)
    assert record.tpot_s == pytest.approx(0.02, abs=NEAR_S)


def test_without_a_stop_token_the_last_chunk_is_the_end(
    rig_with: Callable[..., Rig], simulate: Callable[[str], str]
) -> None:
    rig, url = rig_with(llm_output_tokens="6,0"), simulate("ttft=20ms,itl=20ms,tokens_per_chunk=2,finish=length")
    record = rig.call(at(url, lambda user: user.converse("hello"))).record
    assert (record.chunks, record.output_tokens, record.finish_reason) == (3, 6, "max_tokens")
    assert record.tpot_s == pytest.approx(2 * 0.04 / 5, abs=NEAR_S)


def test_llama_s_running_count_says_what_the_first_chunk_holds(
    rig_with: Callable[..., Rig], simulate: Callable[[str], str]
) -> None:
    """3 tokens in each of 3 chunks: 6 tokens come after the first chunk, in 120 ms."""
    rig, url = rig_with(llm_output_tokens="9,0"), simulate("ttft=20ms,itl=20ms,tokens_per_chunk=3,finish=stop")
    record = rig.call(at(url, lambda user: user.invoke("hello", modelId=MODELS["llama"]))).record
    assert (record.chunks, record.output_tokens) == (3, 9)
    assert record.tpot_s == pytest.approx(0.02, abs=NEAR_S)


def said(content: str, finish: str | None = None, usage: Document | None = None) -> Document:
    """A document of OpenAI's family."""
    return {
        "choices": [{"delta": {"content": content}, "finish_reason": finish}],
        **({"usage": usage} if usage else {}),
    }


def test_output_after_a_finish_reason_takes_it_back(rig: Rig, wire: Wire) -> None:
    """2 chunks and a stop token with the second finish reason; the metrics of the service have zeros."""
    counts = {"prompt_tokens": 7, "completion_tokens": 3}
    script = answer(part(said("a")), part(said("", "stop")), part(said("b")), part(said("", "length", counts)))
    script = [*script[:-1], send(chunk(part({**said(""), **metrics(0, 0)}))), script[-1]]
    record = rig.call(at(wire.serve(script).root, lambda user: user.invoke("hello", modelId=MODELS["openai"]))).record
    assert (record.error_code, record.chunks, record.finish_reason) == (None, 2, "length")
    assert (record.output_tokens, record.input_tokens, record.output_tokens_source) == (3, 7, "usage")


def test_metadata_may_come_late(rig: Rig, wire: Wire) -> None:
    """Converse sends usage in a separate event, so the wait for it is longer than for other answers."""
    script = [*opening(), *(send(chunk(event)) for event in (START, delta(text="a"), STOP)), pause(1.2)]
    script += [send(chunk(metadata(17))), send(LAST_CHUNK)]
    record = rig.call(at(wire.serve(script).root, lambda user: user.converse("hello"))).record
    assert (record.output_tokens, record.output_tokens_source, record.error_code) == (17, "usage", None)
