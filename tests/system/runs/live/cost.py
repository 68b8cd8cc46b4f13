"""What the LLM tab costs: the share of a core that a master and a worker use for it.

``python -m tests.system.runs.live.cost`` prints both.
The master is a real web interface with a real coordinator; beats of four processes with 256 streams each (50 tokens/s a
stream), made by the code that makes them and packed as Locust packs them, come in once a second, with their rows, while
a page in another process asks every second and its history is full. The bound is 3 % of a core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llm_users.record import StageLoad
from tests.ports import free_port

BOUND = 0.03
PROCESSES, STREAMS, TOKENS_PER_S, ANSWER_S = 4, 256, 50, 3.0

_PAGE = """
import json, sys, time, urllib.request
base, run, seq, sizes = sys.argv[1], "", "", []
while True:
    body = urllib.request.urlopen(f"{base}/llm/state.json?run={run}&since={seq}", timeout=10).read()
    state = json.loads(body)
    run, seq = state["run"] or "", state["seq"]
    print(len(body), flush=True)
    time.sleep(1)
"""


def live_metrics_of(process: int, run: str) -> tuple[list[bytes], float]:
    """Ten live metrics of a worker, packed, and the CPU seconds that making one takes."""
    import msgpack

    from llm_users.load.protocol.messages import Live
    from llm_users.load.protocol.stage import MEASURE, StagePlan
    from llm_users.load.worker.admission_gate import AdmissionGate
    from llm_users.load.worker.live_metrics import LiveReporter
    from llm_users.users.chunks import Chunks

    sent: list[Live] = []
    gate = AdmissionGate()
    gate.plan, gate.phase = StagePlan(stage=1, load=StageLoad(PROCESSES * STREAMS)), MEASURE
    reporter = LiveReporter(gate, sent.append, run, process)
    rng = random.Random(process)
    streams = [Chunks() for _ in range(STREAMS)]
    now_ns = [time.monotonic_ns() - int(rng.random() * 1e9) for _ in streams]
    for stream, start_ns in zip(streams, now_ns, strict=True):
        reporter.began(stream, stream, start_ns - int(rng.lognormvariate(-1.5, 0.4) * 1e9), lambda: None)
    cpu_s = 0.0
    for _ in range(10):
        for place, stream in enumerate(streams):
            for _ in range(TOKENS_PER_S):
                now_ns[place] += int(rng.lognormvariate(-3.93, 0.3) * 1e9)
                stream.add(now_ns[place], now_ns[place], "x", "")
        for _ in range(50):
            reporter.add_lag(rng.expovariate(3000))
        for _ in range(int(STREAMS / ANSWER_S)):
            reporter._tpot.add(rng.lognormvariate(-3.9, 0.1))
            reporter._ttft.add(rng.lognormvariate(-1.5, 0.4))
        before_s = time.process_time()
        reporter._look()
        reporter._report()
        cpu_s += time.process_time() - before_s
    busy = {"in_flight": STREAMS, "requests": 85, "done": {1: 85}, "cpu": 0.5}
    return [msgpack.dumps((data := live.encoded()) | {"metrics": data["metrics"] | busy}) for live in sent], cpu_s / 10


def measure(seconds: float) -> dict[str, float]:
    """The figures, by name; shares are of one core."""
    import gevent.monkey

    gevent.monkey.patch_all()
    import gevent
    import msgspec
    from locust.env import Environment

    from llm_users.collect.stage_stats import StageBook
    from llm_users.collect.writer import start_writing
    from llm_users.load.coordinator.coordinator import Coordinator
    from llm_users.options.table import Options
    from llm_users.web.routes import LiveTab
    from llm_users.web.samples import MOST_SAMPLES
    from llm_users.wiring.run_report import objectives_of

    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "run")
        coordinator = Coordinator(
            lambda *_: None,
            lambda: [f"worker-{rank}" for rank in range(PROCESSES)],
            lambda run, _, rows: start_writing(prefix, run, {}, offsets=False, observer=rows, book=StageBook()),
        )
        environment = Environment(user_classes=[])
        environment.create_local_runner()
        port = free_port()
        web_ui = environment.create_web_ui("127.0.0.1", port, delayed_start=True)
        tab = LiveTab(environment, coordinator, objectives_of, lambda: None)
        coordinator.begin(Options(sweep=(PROCESSES * STREAMS,), requests=10**6), users=0, run_s=None)
        assert coordinator.writer is not None
        made = [live_metrics_of(rank, coordinator.writer.run_id) for rank in range(PROCESSES)]
        tab.state.tick()
        for _ in range(MOST_SAMPLES):
            tab.state._history.add({"t": 0.12345, **dict.fromkeys(("ttft_p50", "gap_p50", "tpot_p50"), 0.012345)})
        web_ui.start()
        gevent.spawn(report, tab, [packed for packed, _ in made])
        gevent.sleep(12)  # the windows are full
        share, sizes = watched(f"http://127.0.0.1:{port}", seconds)
        cpu_s = time.process_time()
        msgspec.json.encode(tab.state.json(None, None))
        reload_s = time.process_time() - cpu_s
        tab.close()
    return {
        "master_share": share,
        "load_process_share": max(cost_s for _, cost_s in made),
        "live_metrics_bytes": max(len(each) for packed, _ in made for each in packed),
        "first_answer_bytes": sizes[0],
        "answer_bytes": max(sizes[1:]),
        "reload_cpu_s": reload_s,
        "answers": len(sizes) - 1,
    }


def report(tab: Any, live_metrics: list[list[bytes]]) -> None:
    """Live metrics and rows as they would come in, for ever."""
    import gevent
    import msgpack
    import msgspec

    from llm_users.load.protocol.messages import Live
    from llm_users.record import RequestRecord

    rng = random.Random(1)
    for second in itertools.count():
        for packed in live_metrics:
            tab.on_live(msgspec.convert(msgpack.loads(packed[second % 10], strict_map_key=False), Live))
            for _ in range(int(STREAMS / ANSWER_S)):
                ttft_s = rng.lognormvariate(-1.5, 0.4)
                row = RequestRecord(run_id=tab.state.run, stage=1, measured=1, model="m", api="a", framework="f")
                row.ttft_s, row.tpot_s, row.end_to_end_latency_s = ttft_s, ttft_s / 20, ttft_s * 10
                row.request_output_throughput_token_per_s = 50.0
                tab.state.on_row(row)
                tab.metrics.on_row(row)
            gevent.sleep(1 / PROCESSES)


def watched(base: str, seconds: float) -> tuple[float, list[int]]:
    """(CPU share of this process while a page asks, bytes of each answer)."""
    import gevent

    page = subprocess.Popen([sys.executable, "-c", _PAGE, base], stdout=subprocess.PIPE, text=True)
    assert page.stdout is not None
    first = int(page.stdout.readline())
    gevent.sleep(1)
    cpu_s, clock_s = time.process_time(), time.monotonic()
    gevent.sleep(seconds)
    share = (time.process_time() - cpu_s) / (time.monotonic() - clock_s)
    page.terminate()
    later = [int(line) for line in page.stdout.read().split()]
    page.wait()
    return share, [first, *later]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]
    found = measure(options.seconds)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"master, page and JSON and merge: {found['master_share']:.2%} of a core (bound {BOUND:.0%})")
        print(f"each worker, {STREAMS} streams: {found['load_process_share']:.2%} of a core")
        print(f"live metrics {found['live_metrics_bytes']:,.0f} bytes, an answer {found['answer_bytes']:,.0f} bytes")
        print(f"a reload {found['first_answer_bytes']:,.0f} bytes and {found['reload_cpu_s'] * 1000:.1f} ms")
    return int(found["master_share"] >= BOUND)


if __name__ == "__main__":
    sys.exit(main())
