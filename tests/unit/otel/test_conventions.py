"""Rows as GenAI attributes: provider, operation, server, duration, and what must not be in a span."""

from __future__ import annotations

import dataclasses

import pytest

from llm_users.otel import conventions
from llm_users.otel.chunk_times import ChunkTimes
from llm_users.quantile import DurationHistogram
from llm_users.record import RequestRecord, StageRecord


@pytest.mark.parametrize(
    ("api", "endpoint", "operation", "provider", "address", "port"),
    [
        ("openai-chat", "http://127.0.0.1:8000/v1", "chat", "openai", "127.0.0.1", 8000),
        ("openai-completions", "https://api.openai.com/v1", "text_completion", "openai", "api.openai.com", 443),
        ("openai-responses", "https://api.groq.com/openai/v1", "chat", "groq", "api.groq.com", 443),
        ("openai-chat", "https://x.openai.azure.com", "chat", "azure.ai.openai", "x.openai.azure.com", 443),
        ("openai-chat", "https://notapi.x.ai.example/v1", "chat", "openai", "notapi.x.ai.example", 443),
        ("anthropic-messages", "https://api.anthropic.com", "chat", "anthropic", "api.anthropic.com", 443),
        ("bedrock-converse", "http://[::1]:81", "chat", "aws.bedrock", "::1", 81),
    ],
)
def test_operation_provider_and_server_of_a_row(
    api: str, endpoint: str, operation: str, provider: str, address: str, port: int
) -> None:
    assert conventions.operation_attributes(api, "m", endpoint) == {
        "gen_ai.operation.name": operation, "gen_ai.provider.name": provider, "gen_ai.request.model": "m",
        "server.address": address, "server.port": port,
    }  # fmt: skip


def test_a_row_without_endpoint_has_no_server() -> None:
    assert set(conventions.operation_attributes("bedrock-converse", "", None)) == {
        "gen_ai.operation.name", "gen_ai.provider.name",
    }  # fmt: skip


def test_the_duration_of_a_row() -> None:
    assert conventions.duration_of(RequestRecord(started_at=1.0, end_to_end_latency_s=2.0, connect_s=0.1)) == 2.0
    assert conventions.duration_of(RequestRecord(started_at=1.0, connect_s=0.1)) == 0.1
    assert conventions.duration_of(RequestRecord(started_at=1.0)) is None


def test_texts_of_a_row_are_not_in_its_span() -> None:
    texts = {
        field.name: f"text of {field.name}"
        for field in dataclasses.fields(RequestRecord)
        if field.name in ("error_message", "answer_excerpt", "expected_answer")
    }
    assert len(texts) == 3
    assert not set(texts.values()) & set(conventions.span_attributes(RequestRecord(**texts)).values())  # type: ignore[arg-type]


def test_the_data_point_of_a_stage_has_its_gaps_and_the_attributes_that_its_models_share() -> None:
    gaps_s = [0.005, 0.0105, 0.0105, 0.3, 100.0]
    histogram = DurationHistogram()
    for gap_s in gaps_s:
        histogram.add(gap_s)
    sent = []
    accepted = [False, True]

    def export(data: object) -> bool:
        sent.append(data)
        return accepted.pop(0)

    chunk_times = ChunkTimes(export, resource(), is_delta=False)
    for model in ("a", "b"):
        chunk_times.on_row(RequestRecord(api="openai-chat", model=model, stage=1, measured=1))
    chunk_times.on_stage(StageRecord(stage=1, measure_started_at=5.0), histogram.counts)
    assert not chunk_times.flush()
    assert chunk_times.flush()
    assert chunk_times.flush()  # nothing is left
    assert len(sent) == 2
    (point,) = sent[-1].resource_metrics[0].scope_metrics[0].metrics[0].data.data_points  # type: ignore[attr-defined]
    assert point.count == 5
    assert point.sum == pytest.approx(sum(gaps_s), rel=0.001)
    assert point.bucket_counts == [1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert "gen_ai.request.model" not in point.attributes
    assert point.attributes["gen_ai.provider.name"] == "openai"


def resource():  # type: ignore[no-untyped-def]
    from opentelemetry.sdk.resources import Resource

    return Resource.create({})
