"""What the metrics for Prometheus cost the coordinator: the time per row and per scrape, and the longest pause.

``python -m tests.system.runs.live.prometheus_cost`` prints the figures for 8 stages of one model, and for as many
groups of rows as there can be.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from typing import Any

ROWS = 50_000


def measure(models: int, stages: int) -> dict[str, float]:
    """The figures for rows of this many models and stages; times in seconds."""
    import gevent.monkey

    gevent.monkey.patch_all()
    import gevent
    from locust.env import Environment

    from llm_users.load.coordinator.coordinator import Coordinator
    from llm_users.record import RequestRecord
    from llm_users.web.prometheus import PrometheusMetrics
    from llm_users.web.state import LiveState

    def no_writer(*_: Any) -> Any:
        raise AssertionError("no run starts")

    coordinator = Coordinator(lambda *_: None, lambda: [None], no_writer)
    environment = Environment(user_classes=[])
    environment.create_local_runner()
    metrics = PrometheusMetrics(
        coordinator, environment, LiveState(coordinator, environment, lambda _text: [], lambda: None)
    )
    rng = random.Random(1)
    rows = []
    for number in range(ROWS):
        row = RequestRecord(model=f"model-{number % models}", stage=number // models % stages + 1, measured=1)
        row.ttft_s = rng.lognormvariate(-1.5, 0.4)
        row.tpot_s, row.end_to_end_latency_s = row.ttft_s / 20, row.ttft_s * 10
        row.input_tokens, row.output_tokens = 500, 150
        rows.append(row)
    gc.collect()
    gc.freeze()
    before_s = time.process_time()
    for row in rows:
        metrics.on_row(row)
    row_s = (time.process_time() - before_s) / ROWS

    pauses_s = []

    def wake() -> None:
        last_s = time.process_time()
        while True:
            gevent.sleep(0)
            now_s = time.process_time()
            pauses_s.append(now_s - last_s)
            last_s = now_s

    metrics.page("")
    scrapes_s = []
    for _ in range(20):
        before_s = time.process_time()
        body, _ = metrics.page("application/openmetrics-text; version=1.0.0")
        scrapes_s.append(time.process_time() - before_s)
    greenlet = gevent.spawn(wake)
    longest_s = []
    for _ in range(20):
        pauses_s.clear()
        metrics.page("application/openmetrics-text; version=1.0.0")
        longest_s.append(max(pauses_s))
    greenlet.kill()
    return {
        "groups": len(metrics.groups),
        "row_s": row_s,
        "scrape_s": sorted(scrapes_s)[len(scrapes_s) // 2],
        "longest_pause_s": sorted(longest_s)[len(longest_s) // 2],
        "bytes": len(body),
    }


def main() -> None:
    sys.argv = sys.argv[:1]
    for models, stages in ((1, 8), (100, 8)):
        found = measure(models, stages)
        scrape = f"a scrape of {found['bytes'] / 1000:.0f} kB takes {found['scrape_s'] * 1000:.1f} ms of CPU"
        pieces = f"in pieces of at most {found['longest_pause_s'] * 1000:.1f} ms"
        print(f"{found['groups']} groups: {found['row_s'] * 1e6:.1f} us per row; {scrape}, {pieces}")


if __name__ == "__main__":
    main()
