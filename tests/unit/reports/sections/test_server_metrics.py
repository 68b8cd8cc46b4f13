"""The sections on the server's own metrics: what they show, their width, and texts of a hostile server."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llm_reports
from llm_reports.main import main
from llm_reports.sections.section import section_text
from llm_reports.sections.server_metrics import server_sections
from llm_reports.server_metrics.stages import server_stages
from llm_users.record import RequestRecord, ServerMetricRecord, StageRecord
from llm_users.run_files import SERVER_METRICS_CSV, path_of
from tests.unit.reports.rows_on_disk import record
from tests.unit.reports.server_on_disk import histogram, metric, write_server
from tests.unit.reports.sweep_on_disk import HOSTILE

Write = Callable[..., Path]
OFFSET_S = 0.0014
MS = 0.001


def rows(stage: int = 1, count: int = 100, **values: Any) -> list[RequestRecord]:
    """Requests with a TTFT of 101, 102, ... ms and 1 s more for 50 tokens."""
    made = []
    for index in range(count):
        ttft_s = 0.1 + (index + 1) * MS
        own = {"ttft_s": ttft_s, "ttfat_s": ttft_s, "last_token_s": ttft_s + 0.98, "tpot_s": 0.02}
        own |= {"end_to_end_latency_s": ttft_s + 0.98, "stage": stage, "concurrency": 2**stage}
        own |= {"request_id": f"{stage}-{index}", "started_at": 1.7e9 + 1000 * stage + index}
        made.append(record(0, **{**own, **values}))
    return made


def everything(answered: list[RequestRecord], **values: Any) -> list[ServerMetricRecord]:
    """All metrics of a server that a run can have, for these requests."""
    stage = values.setdefault("stage", answered[0].stage)
    times: dict[str, Iterable[float]] = {
        "ttft_s": [(row.ttft_s or 0.0) - OFFSET_S for row in answered],
        "tpot_s": [row.tpot_s or 0.0 for row in answered],
        "itl_s": [0.02] * 49 * len(answered),
        "e2e_s": [(row.end_to_end_latency_s or 0.0) - OFFSET_S for row in answered],
        "queue_time_s": [0.012] * len(answered),
        "prefill_time_s": [0.034] * len(answered),
        "decode_time_s": [0.98] * len(answered),
    }
    gauges = {
        "requests_running": (12.5 + stage, 16.0),
        "requests_waiting": (3.25, 9.0),
        "kv_cache_usage": (0.41, 0.735),
        "gpu_utilization": (0.875, 0.99),
        "gpu_memory_bytes": (70e9, 71e9),
        "gpu_power_w": (512.0, 640.0),
    }
    counters = {
        "preemptions": 7.0,
        "prefix_cache_queries": 55_000.0,
        "prefix_cache_hits": 22_000.0,
        "prompt_tokens": 550.0 * len(answered),
        "generation_tokens": 50.0 * len(answered),
        "draft_tokens": 2000.0,
        "accepted_tokens": 1500.0,
        "requests_finished": float(len(answered)),
    }
    return [
        *(
            metric(name, "gauge", mean=mean, minimum=0.0, maximum=most, **values)
            for name, (mean, most) in gauges.items()
        ),
        *(metric(name, "counter", increase=n, per_s=n / 40, span_s=40.0, **values) for name, n in counters.items()),
        metric("prefix_cache_hit_rate", "gauge", mean=22_000 / 55_000, **values),
        metric("speculative_acceptance", "gauge", mean=1500 / 2000, **values),
        *(histogram(name, list(times_s), **values) for name, times_s in times.items()),
    ]


def text_of(prefix: Path) -> str:
    return "\n".join(map(section_text, server_sections(server_stages(llm_reports.groups([llm_reports.load(prefix)])))))


def table(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose header has this text."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|") and header in line)
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.strip("|").split("|")])
    return cells


def test_every_figure_of_a_stage_and_the_difference(write_run: Write) -> None:
    stages = [rows(1), rows(2)]
    server = [line for stage in reversed(stages) for line in everything(stage)]
    text = text_of(write_run([row for stage in stages for row in stage], server=server))
    assert table(text, "Running") == [
        ["2", "13.5", "16", "3.25", "9", "41.0", "73.5", "7"],
        ["4", "14.5", "16", "3.25", "9", "41.0", "73.5", "7"],
    ]
    assert table(text, "Prompt tokens/s")[0] == ["2", "1375", "125", "40.0", "75.0"]
    assert table(text, "Queue, mean")[0] == ["2", "0.012", "0.034", "0.98"]
    assert table(text, "GPU %")[0] == ["2", "87.5", "99.0", "70", "71", "512", "640"]
    # The mean TTFT is 100 ms + the mean of 1 to 100 ms.
    assert table(text, "Difference")[:4] == [
        ["2", "TTFT", "100", "150.5", "149.1", "+1.4"],
        ["2", "TPOT", "100", "20.00", "20.00", "+0.00"],
        ["2", "ITL", "4,900", "20.00", "20.00", "+0.00"],
        ["2", "E2E", "100", "1,130.5", "1,129.1", "+1.4"],
    ]
    assert table(text, "P99")[0] == ["2", "TTFT (s)", "0.15 (0.1-0.25)", "0.19 (0.1-0.25)", "0.199 (0.1-0.25)"]
    assert max(map(len, text.splitlines())) <= 80


def test_the_section_is_in_every_format(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write_run(rows(), server=everything(rows()), stages=[StageRecord(stage=1, concurrency=2)])
    out = tmp_path / "out"
    assert main([str(prefix), "--format", "md,csv,summary,html,parquet", "--out", str(out)]) == 0
    assert "## Client beside server" in capsys.readouterr().out
    assert "## The server's own metrics" in (out / "report.md").read_text()
    page = (out / "report.html").read_text()
    assert 'id="servers-title"' in page
    assert page.count(">+1.4</td>") == 2
    lines = {line["metric"]: line for line in csv.DictReader((out / "server.csv").read_text().splitlines())}
    assert float(lines["ttft_s"]["difference"]) == pytest.approx(OFFSET_S, abs=1e-8)
    assert (lines["ttft_s"]["client_count"], lines["ttft_s"]["increase"]) == ("100", "100")
    assert (lines["kv_cache_usage"]["mean"], lines["kv_cache_usage"]["difference"]) == ("0.41", "")
    as_json = {line["metric"]: line for line in json.loads((out / "server.json").read_text())}
    assert as_json["e2e_s"]["difference"] == pytest.approx(OFFSET_S, abs=1e-8)
    assert "difference" not in as_json["preemptions"]
    frame = pd.read_parquet(out / "server.parquet")
    of_notebook = llm_reports.server_metrics_frame(llm_reports.groups([llm_reports.load(prefix)]))
    pd.testing.assert_frame_equal(frame, of_notebook, check_dtype=False)
    frame = frame.set_index("metric")
    assert frame.loc["ttft_s", "difference"] == pytest.approx(OFFSET_S, abs=1e-8)
    assert list(frame.index) == list(lines)


def test_a_run_without_metrics_of_its_server_has_no_section(write_run: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(write_run(rows())), "--format", "md,csv,summary,html,parquet", "--out", str(out)]) == 0
    assert "server's own metrics" not in (out / "report.md").read_text()
    assert not list(out.glob("server.*"))


def test_notes_on_others_on_missing_values_and_on_tokens(write_run: Write) -> None:
    stages = [rows(stage) for stage in (1, 2, 3, 4)]
    others = everything([*stages[0], *rows(1, 20)])
    fewer = everything(stages[1][:50])
    longer = everything(stages[2])
    for line in longer:
        if line.metric == "ttft_s":
            line.mean = (line.mean or 0.0) + 0.005
        if line.metric == "generation_tokens":
            line.increase = 5200.0
    server = [*others, *fewer, *longer, *everything(stages[3])]
    text = " ".join(text_of(write_run([row for stage in stages for row in stage], server=server)).split())
    assert "Users 2: the server counted 120 requests, but the client sent only 100. Others used the server" in text
    assert "Users 4: TTFT has 50 values on the server and 100 on the client. The means are not comparable." in text
    assert "Users 8: the server's TTFT is longer than the client's by 3.6 ms" in text
    assert "Users 8: the server counted 5,200 output tokens, the client 5,000 (+4.0 %)." in text
    assert "Users 16:" not in text


def test_names_of_several_servers_and_runs_stay_apart(write_run: Write) -> None:
    gauges = [
        metric("requests_running", "gauge", mean=n, maximum=n, server=f"http://127.0.0.1:800{n}/metrics")
        for n in (1, 2)
    ]
    first, second = (write_run(rows(), server=gauges, name=name) for name in ("a", "b"))
    stages = server_stages(llm_reports.groups(llm_reports.load_all([first, second])))
    text = "\n".join(map(section_text, server_sections(stages)))
    assert table(text, "Running") == [
        ["a 2", "127.0.0.1:8001", "1", "1"],
        ["a 2", "127.0.0.1:8002", "2", "2"],
        ["b 2", "127.0.0.1:8001", "1", "1"],
        ["b 2", "127.0.0.1:8002", "2", "2"],
    ]


def test_texts_of_a_hostile_server_do_no_harm(write_run: Write, tmp_path: Path) -> None:
    hostile = [
        line
        for index, url in enumerate((HOSTILE, "http://[x/<b>|`**\x1b[2J"))
        for line in everything(rows(1, 100), server=url, engine=HOSTILE)
        if index == 0 or line.metric.startswith("requests_")
    ]
    hostile.append(metric(HOSTILE, "gauge", mean=1.0, server=HOSTILE))
    out = tmp_path / "out"
    assert main([str(write_run(rows(), server=hostile)), "--format", "md,csv,html", "--out", str(out)]) == 0
    markdown, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert "\x1b" not in markdown
    assert "<b>" not in markdown
    assert "<script>alert" not in page
    assert "<b>|" not in page


def test_files_of_other_versions_and_damaged_files(write_run: Write) -> None:
    prefix = write_run(rows())
    path = path_of(prefix, SERVER_METRICS_CSV)
    older = [metric("requests_running", "gauge", mean=4.0), metric("unknown_metric", "gauge", mean=1.0)]
    write_server(path, older, without=("p50_low", "p50_high", "maximum", "engine"))
    assert table(text_of(prefix), "Running") == [["2", "4"]]
    write_server(path, [metric("requests_running", "gauge", mean=4.0, run_id="another")])
    run = llm_reports.load(prefix)
    assert run.server_metrics == ()
    assert any("the server's own metrics: 1 line of another run ignored" in warning for warning in run.warnings)
    write_server(path, [metric("requests_running", "gauge", mean=-4.0)])
    run = llm_reports.load(prefix)
    assert run.server_metrics[0].mean is None
    assert any("mean -4" in warning for warning in run.warnings)
    for content in ("", "a,b\n1,2\n", "stage,metric,mean\n1,requests_running,many\n", "\x00\x01"):
        path.write_text(content)
        run = llm_reports.load(prefix)
        assert run.server_metrics == ()
        assert any("The server's own metrics are therefore omitted." in warning for warning in run.warnings)
        assert text_of(prefix) == ""


def test_the_last_line_of_a_metric_counts(write_run: Write) -> None:
    lines = [metric("requests_running", "gauge", mean=mean) for mean in (4.0, 5.0)]
    assert table(text_of(write_run(rows(), server=lines)), "Running") == [["2", "5"]]
