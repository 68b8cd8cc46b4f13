"""Workers leave, die, freeze and lose their network at random for many minutes; at the end everything is compared.

    python -m tests.system.crash.workers.churn [--minutes 15] [--workers 20] [--users 5000] [--seed N]
        [--actions kill,stall]

The run is a sweep of equal stages, each of a counted number of requests. Every few seconds something happens to a
worker that is well: SIGTERM, SIGKILL, SIGSTOP for a while, its connection to the master stalls or is cut for a while;
another worker takes the place of one that has ended. Now and then the master is frozen for a few seconds. At least half
of the workers are well at any time, and at most half of them end in one stage, because a worker that joins takes part
from the next stage on.

The endpoint is a simulator with slow answers, so that thousands of users fit on two cores. Its log says what it saw.
Exit code 1 when a request that the server saw is neither a row nor counted as lost, when a row or an answer is there
twice, when a stage has not the number of requests that was asked for (less those that were in flight on a killed
worker, which the manifest counts as lost), when anything is lost that was not in flight at a kill, when a worker ends
by itself, or when processes are left. The seed is printed: the same seed draws the same actions.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import math
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llm_users.simulator.spec import Spec
from tests.system.crash.workers.cluster import TABLE_HEAD, Cluster, Comparison, Process
from tests.system.crash.workers.link import Link

END_S = 180.0
"""The master's time to end after the last stage; it is much shorter unless something hangs."""

WEIGHTS = {"leave": 3, "kill": 3, "freeze": 3, "stall": 3, "cut": 3, "kill-stalled": 1, "freeze-master": 1}


class Place:
    """One worker and its connection to the master; another worker takes the place when it has ended."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.link: Link = cluster.link()
        self.worker: Process = cluster.join(port=self.link.port)
        self.joined_at = time.monotonic()
        self.well = True
        """Nothing is being done to it."""

    def replace(self) -> None:
        self.link.restore()
        self.joined_at = time.monotonic()
        self.worker = self._cluster.join(port=self.link.port)
        self.well = True


class Churn:
    """What happens to the workers, at random; `run` returns when the master has ended, or does not end."""

    def __init__(self, cluster: Cluster, workers: int, *, seed: int, every_s: float, actions: Sequence[str]) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._every_s = every_s
        self._actions = list(actions)
        self._places = [Place(cluster) for _ in range(workers)]
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stage: list[str] = []
        self._ended_in_stage = 0
        self.happened: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        next_at = time.monotonic() + self._every_s
        while not self._over() and time.monotonic() < limit:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            self._look_for_ends()
            if now >= next_at:
                next_at = now + self._random.uniform(0.3, 1.7) * self._every_s
                self._act()
            time.sleep(0.1)
        self._calm()

    def _over(self) -> bool:
        """Whether the last stage is over, or the master has ended."""
        said = self._cluster.master.text
        if (stage := re.findall(r"stage \d+ of", said)[-1:]) != self._stage:
            self._stage, self._ended_in_stage = stage, 0
        return "Shape test stopping" in said or not self._cluster.master.running

    def _calm(self) -> None:
        """Everything that is frozen or cut off goes on, so that the run can end; no worker joins any more."""
        for place in self._places:
            place.worker.thaw()
            place.link.restore()
        self._cluster.master.thaw()
        over_at = time.monotonic()
        if self._cluster.master.wait(END_S) is None:
            self.faults.append(f"the master had not ended {END_S:g} s after the last action")
        for place in self._places:
            # Locust's own retries take five minutes in a worker that comes when the master is going or gone.
            if place.joined_at > over_at - 30 and place.worker.wait(10) is None:
                place.worker.end()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))

    def _look_for_ends(self) -> None:
        for place in self._places:
            if place.well and not place.worker.running and self._cluster.master.running:
                self.faults.append(f"{place.worker.name} ended by itself with exit code {place.worker.wait(0)}")
                place.well = False
                self._later(0, place.replace)

    def _act(self) -> None:
        action = self._random.choices(self._actions, [WEIGHTS[name] for name in self._actions])[0]
        place = self._random.choice(self._places)
        length_s = self._random.choice([self._random.uniform(0.5, 4), self._random.uniform(4, 25)])
        # All is drawn before it is decided, so that the same seed goes on in the same way.
        if action == "freeze-master":
            self._say(f"the master is frozen for {length_s / 4:.1f} s")
            master = self._cluster.master
            self._later(length_s / 4, master.thaw)
            master.freeze()
        elif place.well and self._can_spare(ends=action in ("leave", "kill", "kill-stalled")):
            place.well = False
            getattr(self, "_" + action.replace("-", "_"))(place, length_s)
        else:
            return
        self.happened[action] += 1

    def _can_spare(self, *, ends: bool) -> bool:
        """Whether one worker more may be unwell, or may end."""
        half = len(self._places) // 2
        if ends and self._ended_in_stage >= half:
            return False
        self._ended_in_stage += ends
        return sum(place.well for place in self._places) > half

    def _leave(self, place: Place, length_s: float) -> None:
        self._say(f"{place.worker.name} leaves")
        place.worker.leave()
        self._later(length_s, place.replace)

    def _kill(self, place: Place, length_s: float) -> None:
        self._say(f"{place.worker.name} is killed")
        place.worker.kill()
        self._later(length_s, place.replace)

    def _freeze(self, place: Place, length_s: float) -> None:
        self._say(f"{place.worker.name} is frozen for {length_s:.1f} s")
        place.worker.freeze()
        self._well_after(place, length_s, place.worker.thaw)

    def _stall(self, place: Place, length_s: float) -> None:
        self._say(f"the network of {place.worker.name} stalls for {length_s:.1f} s")
        place.link.hold()
        self._well_after(place, length_s, place.link.restore)

    def _cut(self, place: Place, length_s: float) -> None:
        self._say(f"the network of {place.worker.name} is cut for {length_s:.1f} s")
        place.link.refuse()
        self._well_after(place, length_s, place.link.restore)

    def _kill_stalled(self, place: Place, length_s: float) -> None:
        self._say(f"the network of {place.worker.name} stalls for {length_s:.1f} s, then it is killed")
        place.link.hold()

        def kill() -> None:
            place.worker.kill()
            place.replace()

        self._later(length_s, kill)

    def _well_after(self, place: Place, seconds: float, action: Callable[[], None]) -> None:
        def end() -> None:
            action()
            place.well = True

        self._later(seconds, end)

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def faults_of(found: Comparison) -> list[str]:
    """What must not be after a run with killed workers: only requests in flight at a kill may have no row."""
    faults = found.faults()
    lost = found.lost or 0
    for stage in found.stages:
        if stage.asked is not None and stage.measured < stage.asked - lost:
            faults.append(f"stage {stage.number}: {stage.measured} of {stage.asked}, and only {lost} are lost")
    if found.missing > lost:
        faults.append(f"{found.missing} requests of the stages are missing, {lost} are lost")
    expected = 3 if lost else 0
    if found.exit != expected:
        faults.append(f"exit code {found.exit} instead of {expected}")
    return faults


def soak(folder: Path, given: argparse.Namespace) -> int:
    spec = Spec.parse(given.spec)
    answer_s = spec.ttft_s + (given.tokens - 1) * spec.itl_s
    seconds = given.minutes * 60
    requests = math.ceil(given.users * given.stage_seconds / answer_s)
    stages = max(2, round(seconds / (given.stage_seconds + given.ramp + 2 * answer_s)))
    print(f"seed {given.seed}: {given.workers} workers, {given.users} users, {stages} stages of {requests} requests, "
          f"answers of {answer_s:g} s; files in {folder}", flush=True)  # fmt: skip
    cluster = Cluster(folder, name=f"churn, seed {given.seed}", spec=given.spec, max_seconds=3 * seconds + 1200)
    try:
        cluster.start_master(
            "--llm-output-tokens", f"{given.tokens},0", "--llm-ramp", f"{given.ramp:g}s",
            workers=given.workers, stages=[given.users] * stages, requests=requests,
        )  # fmt: skip
        churn = Churn(cluster, given.workers, seed=given.seed, every_s=given.every, actions=given.actions)
        cluster.await_rows(1, timeout_s=120 + 3 * answer_s)
        churn.run(2 * seconds + 120)
        found = cluster.end(1, workers_s=80)  # the churn has waited for the master
    finally:
        cluster.stop()
    print(f"\nwhat happened: {dict(churn.happened)}; the run took {cluster.lasted_s / 60:.1f} minutes")
    print(f"{TABLE_HEAD}\n{found.line()}\n")
    explain(found)
    faults = churn.faults + faults_of(found)
    for fault in faults:
        print(f"FAULT: {fault}")
    if faults:
        print(found.logs[-20000:])
    print(f"seed {given.seed}: {'FAILED' if faults else 'passed'}")
    return int(bool(faults))


def explain(found: Comparison) -> None:
    print(f"server saw {found.server_saw}, rows {found.rows}, lost by the manifest {found.lost}, "
          f"unaccounted {found.unaccounted}, not in flight at a kill {found.unexplained}")  # fmt: skip
    print(f"double answers {found.double_responses}, request ids {found.double_requests}, "
          f"prompts {found.double_prompts}")  # fmt: skip
    for stage in found.stages:
        print(f"stage {stage.number}: asked {stage.asked}, measured {stage.measured}, further {stage.further}")
    for note in found.notes[-40:]:
        print(f"note: {note[:300]}")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--every", type=float, default=8.0, metavar="S", help="mean time between two actions")
    parser.add_argument("--spec", default="ttft=4s,itl=400ms", help="of the simulator")
    parser.add_argument("--tokens", type=int, default=20, help="of an answer")
    parser.add_argument("--stage-seconds", type=float, default=45.0, metavar="S",
                        help="a stage has as many requests as its users do in this time")  # fmt: skip
    parser.add_argument("--ramp", type=float, default=10.0, metavar="S")
    parser.add_argument("--actions", type=lambda text: text.split(","), default=list(WEIGHTS),
                        help=f"some of {','.join(WEIGHTS)}")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="keep the files; without it they go when all is well")
    given = parser.parse_args(argv)
    if unknown := set(given.actions) - set(WEIGHTS):
        parser.error(f"--actions: unknown: {', '.join(sorted(unknown))}; choose from {', '.join(WEIGHTS)}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)

    def interrupted(number: int, _frame: Any) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    folder = Path(tempfile.mkdtemp(prefix="churn-"))
    code = 1
    try:
        code = soak(folder, given)
    finally:
        if code == 0 and not given.keep:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
        else:
            print(f"files: {folder}")
    return code


if __name__ == "__main__":
    sys.exit(main())
