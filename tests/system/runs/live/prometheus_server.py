"""A real Prometheus that scrapes a run. `PROMETHEUS` names the folder of its programs, or they are on the path."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.ports import free_port
from tests.project import ROOT

CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
SCRAPE_INTERVAL_S = 1


def program(name: str) -> str | None:
    """The path of `prometheus` or `promtool`, or None."""
    return shutil.which(name, path=os.environ.get("PROMETHEUS") or None)


class Prometheus:
    """A process with the configuration of `deploy/`, but another target and a shorter interval."""

    def __init__(self, folder: Path, target: str) -> None:
        path = program("prometheus")
        assert path is not None
        config = yaml.safe_load(CONFIG.read_text())
        config["global"]["scrape_interval"] = f"{SCRAPE_INTERVAL_S}s"
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_port()}"
        self.base = f"http://{address}"
        with (folder / "prometheus.log").open("w") as log:
            self.process = subprocess.Popen(
                [path, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address={address}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
            )  # fmt: skip

    def query(self, expression: str, at_s: float | None = None) -> list[tuple[dict[str, str], float]]:
        """(Labels, value) of an instant query, now or at a time in Unix seconds."""
        fields = {"query": expression, **({} if at_s is None else {"time": f"{at_s:.3f}"})}
        address = f"{self.base}/api/v1/query?{urllib.parse.urlencode(fields)}"
        with urllib.request.urlopen(address, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        assert answer["status"] == "success", answer
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def one(self, expression: str, at_s: float | None = None) -> float:
        """The only value of an instant query."""
        ((_, value),) = self.query(expression, at_s)
        return value

    def until(self, done: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            try:
                if done():
                    return
            except OSError:
                pass
            assert self.process.poll() is None, "Prometheus has ended"
            time.sleep(0.2)
        raise AssertionError(f"{what} did not come within {timeout_s} s")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
