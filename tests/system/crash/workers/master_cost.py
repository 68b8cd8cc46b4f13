"""What rows cost a master: a real one, with workers that do nothing but send rows at a given rate.

    python -m tests.system.crash.workers.master_cost [--rate 2000] [--workers 8] [--seconds 30]

Prints the master's CPU share and memory while the rows come. The workers are one process that speaks Locust's protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gevent
import psutil
from locust import __version__
from locust.rpc import Message, zmqrpc
from locust.stats import RequestStats

from llm_users import __version__ as version
from llm_users.load.protocol import messages
from llm_users.load.protocol.messages import PROTOCOL, WorkerMessage
from llm_users.load.protocol.stage import StageTotals
from llm_users.record import RequestRecord
from tests.ports import free_port
from tests.system.locust_runs import SWEEP

REPORT_S = 3.0


class SendingWorker:
    """A worker without users: it answers its master like one and sends made-up rows."""

    def __init__(self, port: int, name: str, rows_per_s: float, seconds: float) -> None:
        self._client = zmqrpc.Client("127.0.0.1", port, name)
        self._name = name
        self._rows_per_s = rows_per_s
        self._seconds = seconds
        self._run: dict[str, Any] = {}
        self._users = self._stage = self._number = 0
        self._gone = self._over = False
        self._quota: int | None = None
        self._sent = 0
        self._state = "ready"
        self.sending = False
        self._tell("client_ready", __version__)
        hello = messages.Hello(version=version, protocol=PROTOCOL).encoded()
        empty = {"stats": [], "stats_total": RequestStats().total.get_stripped_report(), "errors": {}}
        self._tell("stats", {messages.Hello.kind: hello, "user_classes_count": {}, "user_count": 0, **empty})
        gevent.spawn(self._beat)
        self.greenlet = gevent.spawn(self._listen)

    def _tell(self, kind: str, data: Any) -> None:
        self._client.send(Message(kind, data, self._name))

    def _beat(self) -> None:
        while True:
            self._tell("heartbeat", {"state": self._state, "current_cpu_usage": 1, "current_memory_usage": 1})
            if self._stage:
                self._count()
            gevent.sleep(1)

    def _listen(self) -> None:
        while True:
            message = self._client.recv()
            data = message.data
            if message.type == "spawn":
                users = data["user_classes_count"]
                self._users, self._state = sum(users.values()), "running"
                self._tell("spawning_complete", {"user_classes_count": users, "user_count": self._users})
                gevent.spawn(self._report_ready)
            elif message.type == messages.Run.kind:
                self._run = data
            elif message.type == messages.Stage.kind:
                self._stage = data["plan"]["stage"]
            elif message.type == messages.Go.kind:
                if not self._gone:
                    self._gone, self._quota = True, data["quota"]
                    gevent.spawn(self._send_rows, data["quota"])
            elif message.type == messages.Finish.kind:
                self._count()
                self._report(messages.Final(*self._identity, sent=self._sent))
            elif message.type == "quit":
                return

    def _report_ready(self) -> None:
        gevent.sleep(0.5)
        ready = messages.Ready(
            *self._identity, stage=self._stage, waiting=self._users, all_users_came=True, no_users_reason=None
        )
        self._report(ready)

    @property
    def _identity(self) -> tuple[str, int]:
        return self._run["run"], self._run["worker"]

    def _report(self, message: WorkerMessage) -> None:
        self._tell(message.kind, message.encoded())

    def _send_rows(self, quota: int | None) -> None:
        self.sending = True
        began = time.monotonic()
        while time.monotonic() - began < self._seconds:
            gevent.sleep(REPORT_S)
            due = round((time.monotonic() - began) * self._rows_per_s)
            while self._sent < due:
                batch = [self._row(n) for n in range(self._sent, min(due, self._sent + 1000))]
                self._report(messages.Rows(*self._identity, rows=batch))
                self._sent += len(batch)
        self.sending = False
        totals = StageTotals(
            self._stage, self._run["worker"], users=self._users, started=self._sent, measured=self._sent,
            window_s=self._seconds, windows=[(0.0, self._seconds)], cpu_s=1.0, in_flight_s=1.0,
            measure_started_at=time.time(), quota=quota,
        )  # fmt: skip
        self._over = True
        self._report(messages.Done(*self._identity, totals=totals))

    def _count(self) -> None:
        self._number += 1
        count = messages.Count(
            *self._identity, number=self._number, stage=self._stage, started=self._sent, measured=self._sent,
            total=self._sent, held=0, shards=[], counts=None, host="here", known_stage=self._stage,
            admitted=self._gone, waiting=None, quota=self._quota, over=self._over,
        )  # fmt: skip
        self._report(count)

    def _row(self, number: int) -> Any:
        run_id, worker = self._identity
        record = RequestRecord(
            request_id=f"{run_id}-{worker}-{number}", run_id=run_id, worker=worker, user_id=f"{worker}-{number % 64}",
            response_id=f"chatcmpl-{run_id}{worker:04d}{number:09d}", stage=self._stage, stage_end=self._stage,
            user_class="SweepUser", api="openai-chat", model="simulated", name="simulated", prompt_index=number,
            phase="measure", phase_end="measure", measured=1, window_tokens=148.0, concurrency=512,
            started_at=time.time(), queue_s=0.000123456, connect_s=0.0, ttft_s=0.2123456, ttfat_s=0.2123456,
            end_to_end_latency_s=2.123456, last_token_s=2.1234, tpot_s=0.0201234, gap_p50_s=0.02001, gap_p95_s=0.0212,
            gap_p99_s=0.0234, gap_max_s=0.031, chunks=148, reads=150, coalesced=1, output_tokens=148,
            output_tokens_source="usage", input_tokens=551, input_tokens_source="usage", requested_output_tokens=150,
            request_output_throughput_token_per_s=69.7, finish_reason="stop", http_status=200, stamp_source="kernel",
            events_per_token=1.0,
        )  # fmt: skip
        return record.row(), []


def measure(rate: float, workers: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Run it; the master's CPU share, its memory before and after, and what it wrote."""
    port = str(free_port())
    prefix = folder / "run"
    command = [sys.executable, "-m", "locust", "-f", SWEEP, "--headless", "--only-summary", "--csv", str(prefix),
               "--host", "http://127.0.0.1:9", "--llm-model", "none", "--llm-sweep", str(workers * 64),
               "--llm-stage-time", f"{seconds:g}s", "--master", "--expect-workers", str(workers),
               "--master-bind-port", port]  # fmt: skip
    errors = (folder / "master.log").open("w")
    with errors, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors) as master:
        try:
            gevent.sleep(2)
            senders = [SendingWorker(int(port), f"host_{n}", rate / workers, seconds) for n in range(workers)]
            limit = time.monotonic() + 30
            while not all(sender.sending for sender in senders) and time.monotonic() < limit:
                gevent.sleep(0.1)
            assert master.poll() is None, (folder / "master.log").read_text()
            process = psutil.Process(master.pid)
            gevent.sleep(REPORT_S + 1)
            cpu_s, clock_s, rss = _used(process)
            gevent.sleep(max(3.0, seconds - 2 * REPORT_S))
            cpu_after_s, clock_after_s, rss_after = _used(process)
            while master.poll() is None and time.monotonic() < limit + 2 * seconds + 60:
                gevent.sleep(0.2)
        finally:
            if master.poll() is None:
                master.kill()
    manifest = json.loads(Path(f"{prefix}_llm_run.json").read_text())
    return {
        "cpu_share": (cpu_after_s - cpu_s) / (clock_after_s - clock_s),
        "rss_mib": rss / 2**20,
        "rss_after_mib": rss_after / 2**20,
        "sent": sum(manifest["counts"]["sent"].values()),
        "received": sum(manifest["counts"]["received"].values()),
        "lines": sum(1 for _ in Path(f"{prefix}_llm_requests.csv").open()) - 1,
        "code": master.returncode,
    }


def _used(process: psutil.Process) -> tuple[float, float, int]:
    times = process.cpu_times()
    return times.user + times.system, time.monotonic(), process.memory_info().rss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        found = measure(given.rate, given.workers, given.seconds, Path(folder))
    print(f"{given.rate:g} rows/s from {given.workers} workers for {given.seconds:g} s")
    print(f"master: {found['cpu_share']:.2f} of a core, {1e6 * found['cpu_share'] / given.rate:.0f} us per row")
    print(f"memory: {found['rss_mib']:.0f} MiB at first, {found['rss_after_mib']:.0f} MiB at the end")
    print(f"rows: {found['sent']} sent, {found['received']} received, {found['lines']} in the file; exit code "
          f"{found['code']}")  # fmt: skip


if __name__ == "__main__":
    main()
