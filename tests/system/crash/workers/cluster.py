"""A simulator with a log, a master and its workers as real processes, and the comparison of their results.

    cluster = Cluster(folder, name="a worker is killed")
    cluster.start(3, stages=[8, 8], requests=300)
    cluster.await_rows(60)
    cluster.workers[1].kill()
    found = cluster.end(90)          # waits, stops everything, compares rows, manifest and the server's log
    found.check()

Every process has a session and a log file. A `Link` between master and worker stalls, cuts or refuses connections.
`stop` ends everything that was started; call it on every way out.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from llm_users.simulator.launch import Simulator, launch
from tests.ports import free_port
from tests.project import ROOT
from tests.system.crash.workers.link import Link
from tests.system.locust_runs import SWEEP

ANSWER_TOKENS = ("--llm-output-tokens", "15,0")
"""With the default spec an answer takes 0.19 s."""

TABLE_VARIABLE = "SURVIVAL_TABLE"
"""Names a file to which each comparison is appended as one line of JSON."""

FLUSH_S = 1.0
"""A worker's row is in its spool half a second after its request has ended; twice that for a machine that is busy."""


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    limit = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)


class Process:
    """One process of the cluster, in a session of its own, with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.killed_at: float | None = None
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=environment,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def send(self, signal_: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal_)

    def kill(self) -> None:
        """SIGKILL for this process alone, not for its children."""
        self.killed_at = time.monotonic()
        self.send(signal.SIGKILL)
        self.process.wait()

    def leave(self) -> None:
        self.send(signal.SIGTERM)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None when the process still runs."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def session(self) -> list[int]:
        """The processes of this session that still run: this one and its children, also after its own end."""
        found = []
        for process in psutil.process_iter(["pid"]):
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def end(self) -> None:
        """Kill the whole session, frozen or not."""
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Stage:
    """One stage: what was asked for, what stages.csv says, and what the rows add up to."""

    number: int
    asked: int | None
    measured: int
    rows_measured: int
    further: int
    """Rows that started in the phase of measuring and have ``measured`` 0."""


@dataclass
class Comparison:
    """What the server saw and what the run has of it."""

    name: str
    exit: int | None
    worker_exits: list[int | None]
    server_saw: int
    """Requests in the server's log, without those of an earlier master's run."""
    rows: int
    rows_unseen: int
    """Rows without an answer's id: of requests that were not answered, so the server may have seen them or not."""
    lost: int | None
    """By the manifest; None without one."""
    unaccounted: int
    """Requests that the server saw and that are neither a row, nor counted as lost, nor in a spool that is left."""
    in_spools: int
    """Requests without a row in the rows file whose row is in a spool that is left, for `llm-report PREFIX SPOOL`."""
    unexplained: int
    """Requests without any row that were not in flight, or ended within a second, when a process was killed."""
    double_responses: int
    double_requests: int
    double_prompts: int
    stages: list[Stage]
    notes: list[str]
    says: list[str]
    """Errors in the master's log, or in a worker's when the master was killed."""
    files_left: list[str]
    processes_left: list[str]
    logs: str = field(repr=False, default="")

    @property
    def double(self) -> int:
        return self.double_responses + self.double_requests + self.double_prompts

    @property
    def missing(self) -> int:
        """Measured requests that were asked for and are not there."""
        return sum(stage.asked - stage.measured for stage in self.stages if stage.asked is not None)

    @property
    def exact(self) -> bool:
        """Whether every stage has as many measured rows as were asked for."""
        return bool(self.stages) and all(
            stage.measured == stage.rows_measured and stage.asked in (None, stage.measured) for stage in self.stages
        )

    def faults(self) -> list[str]:
        """What must never be, whatever happened to the processes."""
        found = []
        for count, text in (
            (self.unaccounted, "requests that the server saw are neither rows nor counted as lost"),
            (self.unexplained, "requests without a row were not in flight when a process was killed"),
            (self.double_responses, "answers have two rows"),
            (self.double_requests, "request ids are in two rows"),
            (self.double_prompts, "prompts are in two rows"),
            (len(self.processes_left), f"processes still run: {self.processes_left}"),
        ):
            if count:
                found.append(f"{count} {text}")
        for stage in self.stages:
            if stage.measured != stage.rows_measured:
                found.append(f"stage {stage.number}: {stage.measured} in stages.csv, {stage.rows_measured} rows")
            if stage.asked is not None and stage.measured > stage.asked:
                found.append(f"stage {stage.number}: {stage.measured} measured of {stage.asked}")
        if self.lost is not None and self.missing > self.lost and self.exit != 3:
            found.append(
                f"{self.missing} requests were not measured, {self.lost} are counted as lost: exit {self.exit}"
            )
        if self.exit == 0 and (not self.exact or self.lost):
            found.append("exit code 0, but not everything was measured")
        if self.exit == 0 and self.files_left:
            found.append(f"exit code 0, but files are left: {self.files_left}")
        return found

    def check(self) -> None:
        found = self.faults()
        assert not found, "\n".join([*found, str(self), self.logs])

    def line(self) -> str:
        """A row of the table of `python -m tests.system.crash.workers.table`."""
        stages = " ".join(
            f"{stage.measured}/{stage.asked if stage.asked is not None else '-'}"
            + (f"+{stage.further}" if stage.further else "")
            for stage in self.stages
        )
        lost = "-" if self.lost is None else str(self.lost)
        notes = [note for note in self.notes if "OPENAI_API_KEY" not in note]
        reads = " · ".join(notes[:3] + self.says[-2:])
        exits = ",".join(map(str, self.worker_exits))
        cells = [self.name, self.server_saw, self.rows, lost, self.in_spools, self.unaccounted, self.double, stages,
                 self.exit, exits, reads.replace("|", "/")]  # fmt: skip
        return "| " + " | ".join(str(cell) for cell in cells) + " |"


TABLE_HEAD = (
    "| case | server saw | rows | lost | in spools | unaccounted | double | measured/asked +further | exit | workers "
    "| reads |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | --- | --- |"
)


class Cluster:
    """Starts the processes, waits for what they do, and compares at the end."""

    def __init__(
        self, folder: Path, *, name: str = "", spec: str = "ttft=50ms,itl=10ms", max_seconds: float = 1800
    ) -> None:
        self.folder = folder
        self.name = name
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.prefix = folder / "out" / "run"
        self.port = str(free_port())
        self.workers: list[Process] = []
        self.masters: list[Process] = []
        self.asked: list[int] = []
        self.locustfile = SWEEP
        self.lasted_s = 0.0
        """From the start to the end of the master; known after `end`."""
        self._began_at = time.monotonic()
        self._earlier: list[Path] = []
        self._links: list[Link] = []
        self._environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "LOCUST_"))
        } | {"TMPDIR": str(self.temporary)}
        self.simulator: Simulator = launch(spec, log=folder / "server.jsonl", max_seconds=max_seconds)

    # Starting.

    @property
    def master(self) -> Process:
        return self.masters[-1]

    def start(self, workers: int, *arguments: str, **more: Any) -> None:
        """A master that waits for so many workers, and these."""
        self.start_master(*arguments, workers=workers, **more)
        for _ in range(workers):
            self.join()

    def start_master(
        self,
        *arguments: str,
        workers: int,
        stages: Sequence[int] = (),
        requests: int | None = None,
        place: Sequence[str] | None = None,
        prefix: str = "run",
        env: dict[str, str] | None = None,
    ) -> Process:
        """`stages` are numbers of users; with `requests` each stage is to have so many measured requests.

        `place` replaces the options that make the process a master, for `--processes`.
        """
        if self.masters:
            self._earlier.append(self.prefix)
        self.prefix = self.folder / "out" / prefix
        self.asked = [requests] * len(stages) if requests is not None else []
        load = ["--llm-sweep", ",".join(map(str, stages))] if stages else []
        load += ["--llm-requests", str(requests)] if requests is not None else []
        if place is None:
            place = ["--master", "--expect-workers", str(workers), "--master-bind-port", self.port]
        command = [*self._locust, "--headless", "--only-summary", *place, "--host", self.simulator.url,
                   "--csv", str(self.prefix), "--llm-input-tokens", "20,5", *ANSWER_TOKENS, "--llm-warmup", "1",
                   *load, *arguments]  # fmt: skip
        name = f"master{len(self.masters) or ''}"
        self.masters.append(Process(name, command, self.folder, self._environment | (env or {})))
        return self.master

    def join(self, *arguments: str, port: int | None = None, env: dict[str, str] | None = None) -> Process:
        """One more worker."""
        command = [*self._locust, "--worker", "--master-port", str(port or self.port), *arguments]
        name = f"worker{len(self.workers)}"
        self.workers.append(Process(name, command, self.folder, self._environment | (env or {})))
        return self.workers[-1]

    def link(self) -> Link:
        """A new relay in front of the master's port."""
        self._links.append(Link(int(self.port)))
        return self._links[-1]

    # Waiting.

    def await_rows(self, count: int, timeout_s: float = 60) -> None:
        """Wait until so many rows are on disk."""
        path = self._file("requests")

        def enough() -> bool:
            assert self.master.running, f"the master has ended with {self.master.wait(0)}:\n{self.master.text[-3000:]}"
            return path.exists() and path.read_bytes().count(b"\n") > count

        wait_until(enough, f"{count} rows in {path.name}; the master says\n{self.master.text[-3000:]}", timeout_s)

    def await_text(self, process: Process, text: str, timeout_s: float = 30) -> None:
        wait_until(lambda: text in process.text, f"'{text}' in the log of {process.name}", timeout_s)

    def freeze(self, processes: Sequence[Process], seconds: float) -> None:
        """Stop the processes for so long."""
        for process in processes:
            process.freeze()
        time.sleep(seconds)
        for process in processes:
            process.thaw()

    # What is there.

    def rows(self, suffix: str = "requests") -> list[dict[str, str]]:
        return read_rows(self._file(suffix))

    @property
    def manifest(self) -> dict[str, Any]:
        path = Path(f"{self.prefix}_llm_run.json")
        return json.loads(path.read_text()) if path.exists() else {}

    def spooled(self, prefix: Path | None = None) -> Iterator[dict[str, str]]:
        """The rows in what is left of the spools of the last run, or of the run with this prefix."""
        for folder in (Path(f"{prefix or self.prefix}_llm_spool"), self.temporary):
            for path in sorted(folder.rglob("*_llm_shard.csv")):
                yield from iterate_rows(path)

    def all_rows(self, prefix: Path | None = None) -> Iterator[dict[str, str]]:
        """The rows of the rows file and of what is left of the spools, so some of them twice."""
        yield from iterate_rows(Path(f"{prefix or self.prefix}_llm_requests.csv"))
        yield from self.spooled(prefix)

    def server_log(self) -> list[dict[str, Any]]:
        """One entry per request that has ended; all of them after `end`."""
        return list(self.iterate_server_log())

    def iterate_server_log(self) -> Iterator[dict[str, Any]]:
        with (self.folder / "server.jsonl").open() as file:
            for line in file:
                if line.endswith("}\n"):  # the last one may be cut while the simulator runs
                    yield json.loads(line)

    @property
    def _locust(self) -> list[str]:
        return [sys.executable, "-m", "locust", "-f", self.locustfile]

    # The end.

    def end(self, timeout_s: float, *, workers_s: float = 15) -> Comparison:
        """Wait for the master and the workers, end what is left, and compare."""
        code = self.master.wait(timeout_s)
        self.lasted_s = time.monotonic() - self._began_at
        limit = time.monotonic() + workers_s
        exits = [worker.wait(max(0.1, limit - time.monotonic())) for worker in self.workers]
        left = [f"{process.name} ({pid})" for process in [*self.masters, *self.workers] for pid in process.session()]
        self.stop()
        found = self._compare(code, exits, left)
        if table := os.environ.get(TABLE_VARIABLE):
            with Path(table).open("a") as file:
                file.write(json.dumps(asdict(found)) + "\n")
        return found

    def stop(self) -> None:
        """End everything that was started."""
        for process in [*self.workers, *self.masters]:
            process.end()
        for link in self._links:
            link.close()
        self.simulator.stop()

    def _compare(self, code: int | None, exits: list[int | None], processes_left: list[str]) -> Comparison:
        manifest = self.manifest
        responses, requests, prompts = Counter[str](), Counter[str](), Counter[str]()
        measured, further = Counter[int](), Counter[int]()
        rows = 0
        run_ids = set()
        for row in iterate_rows(self._file("requests")):
            rows += 1
            run_ids.add(row["run_id"])
            requests[row["request_id"]] += 1
            responses[row["response_id"]] += 1
            prompts[row["prompt_index"]] += 1
            if row["measured"] == "1":
                measured[int(row["stage"])] += 1
            elif row["phase"] == "measure":
                further[int(row["stage"])] += 1
        unseen, _ = responses.pop("", 0), prompts.pop("", 0)
        saw, without_row = 0, []
        earlier = {row["response_id"] for prefix in self._earlier for row in self.all_rows(prefix)}
        for entry in self.iterate_server_log():
            if entry["response_id"] in earlier:
                continue
            saw += 1
            if entry["response_id"] not in responses:
                without_row.append(entry)
        kept = {row["response_id"] for row in self.spooled()} if without_row else set()
        nowhere = [entry for entry in without_row if entry["response_id"] not in kept]
        lost = sum(account["lost"] for account in manifest["workers"].values()) if "workers" in manifest else None
        figures = {int(row["stage"]): int(row["requests_measured"]) for row in self.rows("stages")}
        numbers = range(1, len(self.asked) + 1) if self.asked else sorted(figures)
        return Comparison(
            name=self.name,
            exit=code,
            worker_exits=exits,
            server_saw=saw,
            rows=rows,
            rows_unseen=unseen,
            lost=lost,
            unaccounted=max(0, len(without_row) - unseen - max(lost or 0, len(without_row) - len(nowhere))),
            in_spools=len(without_row) - len(nowhere),
            unexplained=max(0, sum(not self._explained(entry) for entry in nowhere) - unseen),
            double_responses=doubles(responses),
            double_requests=doubles(requests),
            double_prompts=doubles(prompts),
            stages=[
                Stage(number, self.asked[number - 1] if self.asked else None, figures.get(number, 0),
                      measured[number], further[number])
                for number in numbers
            ],
            notes=manifest.get("notes", []),
            says=self._errors(),
            files_left=self._files_left(run_ids),
            processes_left=processes_left,
            logs="\n".join(f"--- {one.name}\n{one.text[-2500:]}" for one in [*self.masters, *self.workers]),
        )  # fmt: skip

    def _errors(self) -> list[str]:
        """Without time and machine: the master's errors, or what a worker warns of when there is no master."""
        levels, speaker = "ERROR", self.master
        if self.master.killed_at is not None and self.workers:
            levels, speaker = "ERROR|WARNING", self.workers[-1]
        return re.findall(rf"^\[.*?\] \S+/(?:{levels})/\S+: (.*)$", speaker.text, flags=re.MULTILINE)

    def _explained(self, entry: dict[str, Any]) -> bool:
        """Whether a request without a row was in flight, or had just ended, when a process was killed."""
        wait_s, step_s = self.simulator.spec.ttft_s, self.simulator.spec.itl_s
        began = entry["received_ns"] / 1e9
        ended = entry["last_ns"] / 1e9 if entry["last_ns"] else began + wait_s
        if entry["outcome"] != "completed":
            ended += step_s
        kills = [one.killed_at for one in [*self.masters, *self.workers] if one.killed_at is not None]
        return any(began <= killed and ended >= killed - FLUSH_S for killed in kills)

    def _files_left(self, run_ids: set[str]) -> list[str]:
        places = (Path(f"{self.prefix}_llm_spool"), self.temporary, Path("/dev/shm"))
        files = [path for place in places for path in place.rglob("*") if path.is_file()]
        return sorted(str(path) for path in files if any(run and run in path.name for run in run_ids))

    def _file(self, suffix: str) -> Path:
        return Path(f"{self.prefix}_llm_{suffix}.csv")


def doubles(counts: Counter[str]) -> int:
    return sum(count - 1 for count in counts.values())


def iterate_rows(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(iterate_rows(path))


def report(*inputs: Path | str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run llm-report, as a user does after a failure."""
    return subprocess.run(
        [sys.executable, "-m", "llm_reports.main", *map(str, inputs)], cwd=ROOT, capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip
