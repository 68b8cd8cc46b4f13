"""`/llm/metrics` of a real Locust, read over real HTTP, equals the rows and the summary that the run writes."""

from __future__ import annotations

import http.client
import math
import re
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import llm_users
from llm_users.simulator.launch import Simulator, launch
from tests.documented import PAGES
from tests.system.locust_runs import SWEEP
from tests.system.runs.live.conftest import Started, Starter
from tests.system.runs.live.test_live_run import is_over

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def scrape(page: Started, accept: str = "") -> tuple[str, dict[str, Metric]]:
    """The content type and the metrics by name."""
    request = urllib.request.Request(page.base + "/llm/metrics", headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        content_type, text = response.headers["Content-Type"], response.read().decode()
    parse = openmetrics.text_string_to_metric_families if "openmetrics" in content_type else _parse_text
    return content_type, {metric.name: metric for metric in parse(text)}


def _parse_text(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))


def value(metrics: dict[str, Metric], sample_name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    samples = [sample for metric in metrics.values() for sample in metric.samples if sample.name == sample_name]
    assert samples, f"no {sample_name} in {sorted(metrics)}"
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def buckets(metrics: dict[str, Metric], name: str, **labels: str) -> dict[float, float]:
    """Counts by upper bound, over all samples with these labels."""
    counts: Counter[float] = Counter()
    for sample in metrics[name].samples:
        if sample.name == f"{name}_bucket" and labels.items() <= sample.labels.items():
            counts[float(sample.labels["le"])] += int(sample.value)
    return dict(counts)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_counters_and_histograms_equal_the_rows_of_two_runs(web: Starter, workers: int) -> None:
    with launch("ttft=20ms,itl=5ms,error=503:0.1", max_seconds=120) as simulator:
        page = web("--llm-output-tokens", "20,3", workers=workers)
        before = scrape(page)[1]
        assert value(before, "locust_llm_stage") == 0
        assert value(before, "locust_llm_phase", phase="idle") == 1
        first = run_once(page, simulator, {"llm_sweep": "2,4", "llm_requests": "40", "llm_warmup_requests": "4"}, None)
        equals_rows(scrape(page)[1], first)
        second = run_once(page, simulator, {"llm_sweep": "3", "llm_requests": "30"}, page.state()["run"])
        # The counters have grown: stage 1 contains the rows of both runs.
        equals_rows(scrape(page, OPENMETRICS)[1], [*first, *second])
        assert len(first) >= 80
        assert len(second) >= 30
        page.end()


LOGIN = """
from flask_login import UserMixin
from locust import events


class Person(UserMixin):
    id = "person"


@events.init.add_listener
def add_login(environment, **_kwargs):
    if environment.web_ui is not None:
        environment.web_ui.app.secret_key = "of a test"
        environment.web_ui.login_manager.user_loader(lambda user_id: Person() if user_id == "person" else None)
        environment.web_ui.auth_args = {"username_password_callback": "/login_submit"}
"""


def test_behind_a_login_a_scraper_with_the_token_of_the_page_gets_metrics_and_nothing_else(
    web: Starter, tmp_path: Path
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGES["docs/prometheus.md"], flags=re.MULTILINE | re.DOTALL)
    locustfile = tmp_path / "with_login.py"
    locustfile.write_text(f"{LOGIN}\n{example}\n{Path(SWEEP).read_text()}")
    page = web("--web-login", locustfile=str(locustfile), env={"METRICS_TOKEN": "right"})
    assert page.ask("/llm/metrics")[0] == 302, "without a login"
    assert status(page, "/llm/metrics", "Bearer right") == 200
    assert status(page, "/llm/metrics", "Bearer wrong") == 302
    assert status(page, "/llm/metrics", "Basic cmlnaHQ6cmlnaHQ=") == 302
    for other in ("/llm/state.json", "/llm", "/stats/requests"):
        assert status(page, other, "Bearer right") == 302
    page.end()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_gauges_describe_the_run_that_is_on(web: Starter, simulator: Simulator, workers: int) -> None:
    page = web("--llm-output-tokens", "100,1", workers=workers)
    assert page.swarm(host=simulator.url, llm_sweep="4", llm_stage_time="25s")["success"]
    state = page.until(lambda state: bool(state["stages"]) and state["stages"][0]["ok"] > 5, "rows")
    time.sleep(5)  # the client's health needs five seconds
    metrics = scrape(page)[1]
    assert value(metrics, "locust_llm_stage") == 1
    assert value(metrics, "locust_llm_phase", phase="measure") == value(metrics, "locust_llm_phase") == 1
    for name in ("users", "target_users", "requests_in_flight", "worker_requests_in_flight"):
        assert value(metrics, f"locust_llm_{name}") == 4, name
    assert value(metrics, "locust_llm_client_health") == 1
    ranks = {str(rank) for rank in range(max(1, workers))}
    for name in ("worker_cpu_ratio", "worker_event_loop_lag_seconds"):
        samples = {sample.labels["worker"]: sample.value for sample in metrics[f"locust_llm_{name}"].samples}
        assert set(samples) == ranks
        assert all(0 < sample < 1 for sample in samples.values()), samples
    assert value(metrics, "locust_llm_run_start_time_seconds") == pytest.approx(time.time(), abs=30)
    (info,) = metrics["locust_llm_run_info"].samples
    assert info.labels == {"run_id": state["run"], "api": "openai-chat", "version": llm_users.__version__}
    page.end()


def test_an_open_loop_has_a_target_rate_and_no_target_users(web: Starter, simulator: Simulator) -> None:
    page = web()
    assert page.swarm(host=simulator.url, llm_rate="20", llm_arrivals="constant", llm_stage_time="15s")["success"]
    page.until(lambda state: bool(state["stages"]) and state["stages"][0]["ok"] > 5, "rows")
    metrics = scrape(page)[1]
    assert value(metrics, "locust_llm_target_requests_per_second") == 20
    assert "locust_llm_target_users" not in {sample.name for metric in metrics.values() for sample in metric.samples}
    page.end()


def status(page: Started, path: str, authorization: str) -> int:
    connection = http.client.HTTPConnection(page.base.removeprefix("http://"), timeout=30)
    connection.request("GET", path, headers={"Authorization": authorization})
    with connection.getresponse() as response:
        return response.status


def test_the_metrics_are_under_the_base_path_and_in_the_format_that_is_asked_for(web: Starter) -> None:
    page = web(base_path="/load")
    assert scrape(page)[0].startswith("text/plain; version=0.0.4")
    assert scrape(page, OPENMETRICS)[0].startswith("application/openmetrics-text; version=1.0.0")
    page.end()


def run_once(page: Started, simulator: Simulator, form: dict[str, str], earlier: str | None) -> list[dict[str, str]]:
    """Run the sweep of a form to its end and return its rows."""
    limit = time.monotonic() + 30
    while page.state()["run"] == earlier and time.monotonic() < limit:  # a master that still stops starts nothing
        page.swarm(host=simulator.url, **form)
        time.sleep(1)
    page.until(lambda state: state["run"] not in (None, earlier) and is_over(state), "the end of the run")
    rows: list[dict[str, str]] = page.running.finished_rows("requests")
    return rows


def equals_rows(metrics: dict[str, Metric], rows: list[dict[str, str]]) -> None:
    for stage in {row["stage"] for row in rows}:
        for measured in ("0", "1"):
            part = [row for row in rows if (row["stage"], row["measured"]) == (stage, measured)]
            labels = {"stage": stage, "measured": "true" if measured == "1" else "false", "model": "simulated"}
            ok = [row for row in part if not row["error_code"]]
            assert value(metrics, "locust_llm_requests_total", outcome="ok", **labels) == len(ok)
            assert value(metrics, "locust_llm_requests_total", outcome="failed", **labels) == len(part) - len(ok)
            for column in ("input_tokens", "output_tokens"):
                total = sum(int(row[column] or 0) for row in part)
                assert value(metrics, f"locust_llm_{column}_total", **labels) == total
            for name, column in (
                ("request_duration", "end_to_end_latency_s"),
                ("time_to_first_token", "ttft_s"),
                ("time_per_output_token", "tpot_s"),
            ):
                values = [float(row[column]) for row in ok if row[column]]
                counts = buckets(metrics, f"locust_llm_{name}_seconds", **labels)
                within = {bound: sum(each <= bound for each in values) for bound in counts} if values else {}
                assert counts == within, (name, labels)
                if values:
                    total_s = value(metrics, f"locust_llm_{name}_seconds_sum", **labels)
                    assert total_s == pytest.approx(math.fsum(values), rel=1e-5)
    failures = Counter(row["error_code"] for row in rows if row["error_code"])
    errors = {sample.labels["error_code"]: sample.value for sample in metrics["locust_llm_errors"].samples}
    assert errors == failures
    # Gaps arrive with live metrics, which count all requests.
    gaps = sum(max(0, int(row["chunks"]) - 1) for row in rows)
    assert value(metrics, "locust_llm_chunk_gap_seconds_count") == gaps
    tokens = sum(int(row["output_tokens"] or 0) for row in rows)
    assert value(metrics, "locust_llm_arrived_tokens_total") == pytest.approx(tokens, rel=0.02)
