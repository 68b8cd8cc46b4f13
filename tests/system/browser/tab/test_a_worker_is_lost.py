"""A worker is killed while somebody watches: the page says so, and goes on saying so until the next test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from llm_users.simulator.launch import Simulator
from tests.ports import free_port
from tests.system.browser.tab.conftest import SWEEP, OpenUrl, Web
from tests.system.browser.tab.test_sweep_in_the_tab import start_from_form


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "LOCUST_"))}

    def start(port: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "workers.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "locust", "-f", SWEEP, "--worker", "--master-port", port],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=tmp_path, env=environment,
            )  # fmt: skip
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def test_it_is_said_until_the_next_test(
    start_web: Callable[..., Web],
    start_worker: Callable[[str], Any],
    simulator: Simulator,
    open_url: OpenUrl,
    screenshots: Path,
) -> None:
    rpc = str(free_port())
    web = start_web("--master", "--master-bind-port", rpc, "--expect-workers", "2", "--host", simulator.url,
                    "--llm-sweep", "4,4", "--llm-requests", "100", "--autostart")  # fmt: skip
    workers = [start_worker(rpc) for _ in range(2)]
    web.await_start()
    page = open_url(f"{web.root}/?tab=llm")
    rows = page.locator("#llm-table-workers tbody tr")
    expect(rows).to_have_count(2)
    expect(page.locator(".llm-stage")).to_contain_text("MEASURE")
    lost = page.locator(".llm-banner").filter(has_text=re.compile(r"Worker \d was lost in stage \d"))
    assert lost.count() == 0
    page.wait_for_function(  # both have something to lose
        "[...document.querySelectorAll('#llm-table-workers tbody tr')].every(r => Number(r.cells[3].textContent) > 0)"
    )
    workers[1].kill()

    # While the sweep goes on with the other one: the banner, a word for those who hear the page, one row less.
    expect(lost).to_be_visible(timeout=15_000)
    expect(lost).to_contain_text("Problem: ")
    expect(page.locator(".llm-progress [aria-live=polite]")).to_contain_text("at the top of the page")
    expect(rows).to_have_count(1, timeout=15_000)
    expect(page.locator("#llm-cpu .llm-chart-legend button")).to_have_text(["maximum", "mean"])
    page.screenshot(path=screenshots / "live-worker-lost.png")

    # At the end it stays, with how many requests are missing; the next test knows nothing of it.
    expect(page.locator(".llm-stage")).to_contain_text("2 stages finished", timeout=60_000)
    missing = page.locator(".llm-banner").filter(has_text=re.compile(r"\d+ of the \d+ requests .* were lost"))
    expect(missing).to_be_visible()
    expect(lost).to_be_visible()
    page.reload()
    expect(lost).to_be_visible()
    page.get_by_role("button", name="New").click()
    start_from_form(page, llmSweep="1", llmRequests="5")
    expect(page.locator(".llm-stage")).to_contain_text("1 stage finished", timeout=30_000)
    assert lost.count() == missing.count() == 0
