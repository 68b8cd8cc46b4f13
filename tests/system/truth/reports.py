"""The summary table and costs against figures that are computed without the product; slopes whose truth is known."""

from __future__ import annotations

import csv
import random
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_users.quantile import DurationHistogram
from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS
from tests.system.truth.line import TruthLine, at_least, at_most, within

_LEVELS = (1, 8, 40)
_REQUESTS = 400
_ROUNDING = 0.005  # of a figure with three significant digits


def lines(full: bool) -> Iterable[TruthLine]:
    """Every figure of the summary and costs of a constructed closed loop; coverage, false alarms, power of slopes."""
    yield from _summary()
    yield from _costs()
    yield from _slopes(2000 if full else 150)


def _summary() -> Iterator[TruthLine]:
    import llm_reports
    from llm_reports.content import content_of

    with tempfile.TemporaryDirectory() as folder:
        rows, gaps = _closed_loop(Path(folder) / "run")
        report = llm_reports.report_run(Path(folder) / "run", out=Path(folder) / "out", formats=("md",))
        lines = content_of([llm_reports.load(Path(folder) / "run")]).summary
    printed = [line.split() for line in report.text.split("## Time")[0].splitlines() if line.strip()]
    starts = [i for i, words in enumerate(printed) if "median" in words]
    ttft, tpot, gap, e2e = 6, 7, 8, 9
    for stage, (level, at, line) in enumerate(zip(_LEVELS, starts, lines, strict=True), 1):
        own = [row for row in rows if row["stage"] == stage]
        good = [row for row in own if row["error_code"] == ""]
        upper, lower = printed[at], printed[at + 1]
        counts = f"{len(good)} {len(own) - len(good)}"
        yield TruthLine(f"summary, {level} users: requests ok and failed", counts, " ".join(upper[2:4]), "exact",
                        " ".join(upper[2:4]) == counts)  # fmt: skip
        # The server's log: what it finished inside the window, which every request of this loop lies in.
        window_s = max(row["end"] for row in own) - min(row["started_at"] for row in own)
        tokens = sum(row["output_tokens"] for row in good)
        yield within(f"summary, {level} users: requests/s", len(good) / window_s, float(upper[4]), _ROUNDING)
        yield within(f"summary, {level} users: system tokens/s", tokens / window_s, float(upper[5]), _ROUNDING)
        for name, place, values, scale in (
            ("TTFT (s)", ttft, [row["ttft_s"] for row in good], 1),
            ("TPOT (ms)", tpot, [row["tpot_s"] for row in good], 1000),
            ("gap (ms)", gap, gaps[stage], 1000),
            ("E2E (s)", e2e, [row["end_to_end_latency_s"] for row in good], 1),
        ):
            median, p95 = np.percentile(np.array(values) * scale, [50, 95])
            yield within(f"summary, {level} users: {name} median", float(median), float(upper[place]), _ROUNDING)
            yield within(f"summary, {level} users: {name} P95", float(p95), float(lower[place - 5]), _ROUNDING)
        yield TruthLine(f"summary, {level} users: client", "ok", line.state, "exact", line.state == "ok")


def _costs() -> Iterator[TruthLine]:
    """One price file for a model that is paid by the token, and one for the same model paid by the hour."""
    import llm_reports

    by_token = "[models.m]\ninput = 0.2\noutput = 0.6\ncache_read = 0.05\n"
    by_hour = "[models.m]\ngpu_hour = 2.5\ngpus = 4\n"
    with tempfile.TemporaryDirectory() as folder:
        rows, _ = _closed_loop(Path(folder) / "run")
        points = llm_reports.stage_points(llm_reports.groups([llm_reports.load(Path(folder) / "run")]))
        priced = []
        for name, text in (("token.toml", by_token), ("hour.toml", by_hour)):
            (Path(folder) / name).write_text(text, encoding="utf-8")
            priced.append(llm_reports.costs(points, llm_reports.load_prices(Path(folder) / name)))
    for stage, (level, tokens, hours) in enumerate(zip(_LEVELS, *priced, strict=True), 1):
        good = [row for row in rows if row["stage"] == stage and row["error_code"] == ""]
        window_s = max(row["end"] for row in rows if row["stage"] == stage) - min(row["started_at"] for row in good)
        output = sum(row["output_tokens"] for row in good)
        cached = sum(row["cached_tokens"] for row in good)
        fresh = sum(row["input_tokens"] for row in good) - cached
        paid = (0.2 * fresh + 0.05 * cached + 0.6 * output) / 1e6
        name = f"costs, {level} users"
        yield within(f"{name}: per request, by the token", paid / len(good), tokens.per_request, 1e-9)
        per_million = tokens.per_million_output_tokens
        yield within(f"{name}: per million output tokens, by the token", paid / output * 1e6, per_million, 1e-9)
        yield within(f"{name}: per hour, by the token", paid / window_s * 3600, tokens.per_hour, 1e-6)
        yield within(f"{name}: per request, by the hour", 10 * window_s / 3600 / len(good), hours.per_request, 1e-6)
        per_million = hours.per_million_output_tokens
        yield within(
            f"{name}: per million output tokens, by the hour", 10 * window_s / 3600 / output * 1e6, per_million, 1e-6
        )
        yield within(f"{name}: per hour, by the hour", 10.0, hours.per_hour, 0.0)


def _closed_loop(prefix: Path) -> tuple[list[dict[str, float | str]], dict[int, list[float]]]:
    """A run on disk whose requests a server of known speed answers; all of each stage lies inside its window."""
    dice = random.Random(3)
    rows: list[dict[str, float | str]] = []
    gaps: dict[int, list[float]] = {}
    stages, at = [], 1_700_000_000.0
    for stage, level in enumerate(_LEVELS, 1):
        free, gaps[stage] = [at] * level, []
        for i in range(_REQUESTS):
            user = min(range(level), key=free.__getitem__)
            tokens = dice.randint(2, 60)
            ttft_s, pause_s = dice.lognormvariate(-1.5, 0.3), 0.02 * dice.lognormvariate(0, 0.2)
            failed = level > 8 and i % 10 == 0
            e2e_s = ttft_s + pause_s * (tokens - 1)
            gaps[stage] += [] if failed else [pause_s] * (tokens - 1)
            rows.append(
                {
                    "request_id": f"{stage}-{i}", "stage": stage, "concurrency": level, "phase": "measure",
                    "measured": 1, "started_at": free[user], "ttft_s": ttft_s, "end_to_end_latency_s": e2e_s,
                    "last_token_s": e2e_s, "tpot_s": pause_s, "output_tokens": tokens,
                    "input_tokens": 500 + i % 100, "cached_tokens": i % 50,
                    "window_tokens": 0 if failed else tokens,
                    "window_share": 0 if failed else 1, "error_code": "500" if failed else "", "model": "m",
                    "connect_s": 0.0, "queue_s": 0.0, "end": free[user] + e2e_s,
                }
            )  # fmt: skip
            free[user] += e2e_s
        end = max(free)
        stages.append({"stage": stage, "concurrency": level, "measure_s": end - at, "measure_started_at": at,
                       "requests_measured": _REQUESTS, "health": "ok"})  # fmt: skip
        at = end + 1
    _write(Path(f"{prefix}_llm_requests.csv"), [*(column.name for column in REQUEST_COLUMNS)], rows)
    _write(Path(f"{prefix}_llm_stages.csv"), [*(column.name for column in STAGE_COLUMNS)], stages)
    counted = []
    for stage, values in gaps.items():
        histogram = DurationHistogram()
        for value in values:
            histogram.add(value)
        counted += [{"stage": stage, "bucket": b, "count": n} for b, n in histogram.counts.items()]
    _write(Path(f"{prefix}_llm_gaps.csv"), ["stage", "bucket", "count"], counted)
    return rows, gaps


def _write(path: Path, columns: list[str], rows: list[dict[str, float | str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _slopes(repeats: int) -> Iterator[TruthLine]:
    """Lengths and noises of the kinds that servers show; the truth is the slope that the latencies were made with."""
    from llm_reports.metrics.latency_model import robust_line

    truth = 0.0002  # s per input token: 110 ms for 550 tokens
    rng = np.random.default_rng(17)
    alarms = covered = seen = given = runs = 0
    for _ in range(repeats):
        for n in (12, 30, 100, 400):
            x = np.sort(_lengths(rng, n))
            if x[0] == x[-1]:
                continue
            noise = _noise(rng, x)
            flat, sloped = robust_line(x, 0.2 + noise), robust_line(x, 0.2 + truth * x + noise)
            runs += 1
            alarms += not flat.problem
            if sloped.slope_interval.known:
                given += 1
                covered += sloped.slope_interval.low <= truth <= sloped.slope_interval.high
    yield at_most("slopes: a true slope of 0 is printed as a fact", 0.05, alarms / runs, "at most 5 %")
    yield at_least("slopes: the 95 % interval holds the true slope", 0.94, covered / given, "95 %")
    for _ in range(repeats):
        x = np.sort(rng.normal(550, 150, 100).round())
        line = robust_line(x, 0.2 + truth * x + 0.03 * rng.standard_normal(100))
        seen += not line.problem
    yield at_least("slopes: 0.2 ms/token is seen in 100 requests with 30 ms noise", 0.99, seen / repeats)


def _lengths(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    kind = rng.integers(3)
    if kind == 0:
        return np.maximum(1.0, rng.normal(550, 150, n).round())
    if kind == 1:
        return np.maximum(1.0, rng.lognormal(6, 1, n).round())
    return rng.choice([100.0, 1000.0], n, p=[0.8, 0.2])


def _noise(rng: np.random.Generator, x: NDArray[np.float64]) -> NDArray[np.float64]:
    n, kind = len(x), rng.integers(4)
    if kind == 0:
        return 0.05 * rng.standard_normal(n)
    if kind == 1:
        return 0.0003 * x * rng.standard_normal(n)  # spread grows with the length
    if kind == 2:
        noise = rng.lognormal(-3, 0.7, n)
        return noise - noise.mean()
    return 0.02 * rng.standard_normal(n) + (rng.random(n) < 0.03) * rng.uniform(1, 3, n)  # stalled requests
