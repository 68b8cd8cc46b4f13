"""Reports for other programs: Parquet and JSON; and costs from a price file."""

from __future__ import annotations

import io
import json
import math
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import llm_reports
from llm_reports.errors import InputError
from llm_reports.main import main
from llm_users.record import RequestRecord, StageRecord

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]


def rows_of(make: Make, n: int = 80) -> list[RequestRecord]:
    dice = random.Random(3)
    return [make(i, ttft_s=dice.random(), model='m"\\x', error_code=None if i else "500") for i in range(n)]


def test_parquet_holds_the_rows_and_the_summary(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    prefix = write_run(rows_of(make_record))
    assert main([str(prefix), "--format", "parquet,csv", "--out", str(tmp_path / "out")]) == 0
    rows = pd.read_parquet(io.BytesIO((tmp_path / "out" / "requests.parquet").read_bytes()))
    run = llm_reports.load(prefix)
    assert sorted(rows["ttft_s"]) == sorted(run.requests["ttft_s"])
    assert str(rows["output_tokens"].dtype) == "Int64"
    summary = pd.read_parquet(tmp_path / "out" / "summary.parquet")
    pd.testing.assert_frame_equal(summary, llm_reports.summary([run]), check_dtype=False)


def test_parquet_without_its_extra(
    write_run: Write, make_record: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main([str(write_run(rows_of(make_record))), "--format", "parquet"]) == 2
    assert "pip install '.[parquet]'" in capsys.readouterr().err


def test_openmetrics_names_what_replaces_it(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write_run(rows_of(make_record))), "--format", "md,openmetrics"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--format openmetrics: this format no longer exists; use" in line
    assert "/llm/metrics" in line
    assert "--otel" in line


def test_the_summary_as_json_and_its_intervals(write_run: Write, make_record: Make) -> None:
    prefix = write_run(rows_of(make_record))
    report = llm_reports.report_run(prefix, formats=["summary", "csv", "md"])
    lines = {line["metric"]: line for line in json.loads(report.files[0].read_text())}
    assert lines["error_ratio"]["mean"] == 1 / 80
    assert lines["error_ratio"]["mean_ci_low"] < 1 / 80 < lines["error_ratio"]["mean_ci_high"]
    ttft = lines["ttft_s"]
    assert ttft["median_ci_low"] < ttft["median"] < ttft["median_ci_high"]
    assert "p99_ci_high" not in ttft  # 79 values cannot say
    text = report.files[2].read_text()
    assert "## 95 % intervals" in text
    assert re.search(r"\(at least [0-9.]+\)", text)
    assert "?" not in text[text.index("## 95 % intervals") :]


PRICES = '{"currency": "EUR", "models": {"tiny": {"input": 1, "output": 4, "cache_read": 0.5}}}'


def test_costs_by_token(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(PRICES)
    rows = [make_record(i, input_tokens=1000, cached_tokens=200, output_tokens=100) for i in range(30)]
    prefix = write_run(rows, stages=[StageRecord(1, 1, 1.7e9, 60.0, requests_measured=30, health="ok")])
    points = llm_reports.stage_points(llm_reports.groups([llm_reports.load(prefix)]))
    (cost,) = llm_reports.costs(points, llm_reports.load_prices(tmp_path / "prices.json"))
    per_request = (800 * 1 + 200 * 0.5 + 100 * 4) / 1e6
    assert cost.per_request == pytest.approx(per_request)
    assert cost.per_million_output_tokens == pytest.approx(per_request / 100 * 1e6)
    assert cost.per_hour == pytest.approx(per_request * 30 / 60 * 3600)


def test_costs_with_litellm_s_price_file(
    write_run: Write, make_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model_prices_and_context_window.json"
    entry = {"input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6, "cache_read_input_token_cost": 5e-7}
    path.write_text(json.dumps({"groq/tiny": entry, "sample_spec": {"mode": "chat"}}))
    rows = [make_record(i, input_tokens=1000, cached_tokens=200, output_tokens=100) for i in range(30)]
    prefix = write_run(rows, stages=[StageRecord(1, 1, 1.7e9, 60.0, requests_measured=30, health="ok")])
    points = llm_reports.stage_points(llm_reports.groups([llm_reports.load(prefix)]))
    (cost,) = llm_reports.costs(points, llm_reports.load_prices(path))
    assert cost.per_request == pytest.approx((800 * 1 + 200 * 0.5 + 100 * 4) / 1e6)
    path.write_text(json.dumps({"groq/tiny": entry, "azure/tiny": {**entry, "output_cost_per_token": 1e-6}}))
    assert main([str(prefix), "--prices", str(path)]) == 2
    assert "match the model 'tiny': azure/tiny, groq/tiny. Copy the entry" in capsys.readouterr().err


def test_costs_by_the_hour_of_the_machines(
    write_run: Write, make_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "USD"\n[models.tiny]\ngpu_hour = 2.5\ngpus = 4\n')
    rows = [make_record(i, output_tokens=100, window_tokens=100.0) for i in range(400)]
    prefix = write_run(rows, stages=[StageRecord(1, 1, 1.7e9, 60.0, requests_measured=400, health="ok")])
    points = llm_reports.stage_points(llm_reports.groups([llm_reports.load(prefix)]))
    (cost,) = llm_reports.costs(points, llm_reports.load_prices(prices))
    assert cost.per_hour == 10
    prices.write_text(prices.read_text() + "[models.other]\ninput = 1\noutput = 2\n")
    mixed = llm_reports.load_prices(prices)
    assert (mixed.currency, mixed.machines) == ("USD", {"tiny": 10.0})
    assert mixed.of_model("other") is not None
    assert cost.per_request == pytest.approx(10 / 3600 / (400 / 60))
    assert cost.per_million_output_tokens == pytest.approx(10 / 3600 / (400 * 100 / 60) * 1e6)
    assert main([str(prefix), "--prices", str(prices), "--slo", "errors<0.01"]) == 0
    assert "At concurrency 1 (meets the objectives): 0.417 per 1,000 requests" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("nothing", "not a price file"),
        ('{"models": {"m": {"input": 1}}}', "output price"),
        ('{"models": {"m": {"gpu_hour": -1}}}', "above 0"),
        ('{"models": {"m": {"gpu_hour": 1, "input": 2}}}', "not both"),
    ],
)
def test_price_files_that_cannot_be_used(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(InputError, match=word):
        llm_reports.load_prices(path)


def test_a_model_without_a_price_is_said(
    write_run: Write, make_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prices.json").write_text(PRICES)
    prefix = write_run([make_record(i, model="other") for i in range(5)])
    assert main([str(prefix), "--prices", str(tmp_path / "prices.json")]) == 0
    assert "does not contain a price for other" in capsys.readouterr().out
    points = llm_reports.stage_points(llm_reports.groups([llm_reports.load(prefix)]))
    assert math.isnan(llm_reports.costs_frame(points, llm_reports.load_prices(tmp_path / "prices.json"))["per_hour"][0])


def test_shards_and_order_do_not_show(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    rows = rows_of(make_record)
    formats = ["md", "csv", "summary"]
    seen = set()
    for seed, workers in ((0, 1), (1, 3), (2, 7)):
        random.Random(seed).shuffle(rows)
        for i, row in enumerate(sorted(rows, key=lambda row: row.request_id)):
            row.worker = i % workers
        rows.sort(key=lambda row: row.worker)
        report = llm_reports.report_run(write_run(rows), out=tmp_path / str(seed), formats=formats)
        seen.add((report.text, *(path.read_bytes() for path in report.files)))
    assert len(seen) == 1
