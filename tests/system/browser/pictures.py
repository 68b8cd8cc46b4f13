"""Take the pictures of the LLM tab in docs/images: ``.venv/bin/python -m tests.system.browser.pictures``.

The command starts a sweep on the simulated endpoint and takes pictures in its last stage, light and dark: the charts
with the server's metrics, then the top of the tab. It takes none of the top and exits with code 1 if a finished stage
does not have the client health "ok", or if the tab shows a banner.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.ports import free_port
from tests.project import ROOT
from tests.system.browser.conftest import ARGUMENTS, chromium

FOLDER = ROOT / "docs" / "images"
SWEEP = (1, 2, 4, 8, 16)
WIDTH = 1280  # the tables stand side by side from 1250 px
RUN = (
    "--llm-simulator", "ttft=150ms,itl=7ms,jitter=0.1,capacity=8,metrics=vllm",
    "--llm-sweep", ",".join(map(str, SWEEP)), "--llm-stage-time", "30s",
    "--llm-slo", "ttft_p95<0.25,tpot_p95<0.012", "--autostart",
)  # fmt: skip


def main() -> int:
    """Take the pictures, or print why not."""
    port = str(free_port())
    environment = {**os.environ, "OPENAI_API_KEY": "unused"}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w") as log, sync_playwright() as playwright:
        command = [Path(sys.executable).with_name("llm-bench"), "--web-port", port, *RUN, "--csv", f"{folder}/out/run"]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            return take(browser, f"http://127.0.0.1:{port}")
        finally:
            browser.close()
            process.terminate()
            process.wait()


def take(browser: Browser, root: str) -> int:
    """Open the tab in the last stage, and take the pictures when the browser no longer disturbs the client."""
    await_state(root, lambda state: _is_in_last_stage(state) and state["progress"]["phase"] == "MEASURE")
    page = browser.new_page(viewport={"width": WIDTH, "height": 900})
    page.goto(f"{root}/?tab=llm")
    page.wait_for_selector("#llm-curve-ttft canvas")
    page.wait_for_timeout(14_000)  # the health of the last 10 s
    take_server(browser, root)
    state = await_state(root, lambda state: not state["banners"] or not _is_in_last_stage(state))
    health = {str(row["concurrency"]): row["health"] for row in state["stages"] if row["finished"]}
    if set(health.values()) != {"ok"} or not _is_in_last_stage(state):
        print(f"The machine is too busy for the pictures: {health}, {[each['text'] for each in state['banners']]}")
        return 1
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_timeout(1000)
        section = page.get_by_role("region", name="Throughput against latency").bounding_box()
        assert section is not None
        height = section["y"] + section["height"] + 16
        path = FOLDER / f"live-tab-{scheme}.png"
        page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        print(path)
    return 0


def take_server(browser: Browser, root: str) -> None:
    """Take the pictures of the charts from the output tokens to the server's metrics, on the page without Locust."""
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(f"{root}/llm")
        page.wait_for_selector("#llm-server canvas")
        page.wait_for_timeout(1000)
        first, last = (page.locator(f"figure:has(#llm-{chart})").bounding_box() for chart in ("tokens", "server"))
        assert first is not None
        assert last is not None
        top, bottom = first["y"] - 8, last["y"] + last["height"] + 8
        path = FOLDER / f"live-tab-server-{scheme}.png"
        page.screenshot(path=path, full_page=True, clip={"x": 0, "y": top, "width": WIDTH, "height": bottom - top})
        page.close()
        print(path)


def _is_in_last_stage(state: dict[str, Any]) -> bool:
    return (state["progress"] or {}).get("stage") == len(SWEEP)


def await_state(root: str, is_reached: Callable[[dict[str, Any]], bool], timeout_s: float = 300) -> dict[str, Any]:
    """Return the first state of the run that meets the condition."""
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        time.sleep(1)
        try:
            with urllib.request.urlopen(f"{root}/llm/state.json", timeout=10) as response:
                state: dict[str, Any] = json.load(response)
        except OSError:  # Locust is still starting
            continue
        if is_reached(state):
            return state
    raise SystemExit("the last stage did not begin")


if __name__ == "__main__":
    sys.exit(main())
