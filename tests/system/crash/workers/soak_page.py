"""Somebody who watches the soak all the time: the LLM tab in a headless Chromium, and what the page takes.

`make test-system SUITE=browser` and `pip install '.[web]'` install Playwright, which is imported only for a page.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def browser_path() -> str | None:
    """The Chromium that there is, if it can be driven."""
    if importlib.util.find_spec("playwright") is None:
        return None
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


class WatchingPage:
    """The open page."""

    def __init__(self, page: Any, processes: list[psutil.Process]) -> None:
        self._page = page
        self._session = page.context.new_cdp_session(page)
        self._session.send("HeapProfiler.enable")
        self._renderers = processes

    def heap_kb(self) -> float:
        """What its scripts hold, after the garbage is gone."""
        self._session.send("HeapProfiler.collectGarbage")
        return float(self._session.send("Runtime.getHeapUsage")["usedSize"]) / 1000

    def resident_kb(self) -> float:
        """Of the process that draws it."""
        return float(sum(process.memory_info().rss for process in self._renderers)) / 1000

    def seconds_shown(self) -> str:
        """What it says of the time since the start: that it is alive."""
        return str(self._page.locator(".llm-left").inner_text())


@contextmanager
def watching(path: str, url: str) -> Iterator[WatchingPage]:
    """Open the page, and have it open."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.wait_for_selector("#llm-tokens canvas", timeout=60_000)
        info = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
        renderers = [psutil.Process(int(each["id"])) for each in info if each["type"] == "renderer"]
        yield WatchingPage(page, renderers)
        browser.close()
