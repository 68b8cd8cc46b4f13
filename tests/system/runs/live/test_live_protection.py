"""The LLM tab's addresses are as protected as Locust's own, and no secret is in what they say."""

from __future__ import annotations

import http.cookiejar
import json
import re
import urllib.request
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator
from tests.system.locust_runs import Locust
from tests.system.runs.live.conftest import Starter

pytestmark = pytest.mark.slow

PROTECTED = """
from flask import Blueprint, redirect, request
from flask_login import UserMixin, login_user
from locust import events
from llm_users import OpenAIUser
from locust import task

class Person(UserMixin):
    id = "somebody"

@events.init.add_listener
def protect(environment, **_):
    if environment.web_ui:
        environment.web_ui.app.secret_key = "for this test"
        environment.web_ui.login_manager.user_loader(lambda _: Person())
        @environment.web_ui.app.route("/base/enter")
        def enter():
            login_user(Person())
            return "in"

class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat("hello")
"""


def test_base_path_and_login(web: Starter, tmp_path: Path, simulator: Simulator) -> None:
    locustfile = tmp_path / "protected.py"
    locustfile.write_text(PROTECTED)
    page = web("--host", simulator.url, "--web-login", base_path="/base", locustfile=str(locustfile))
    for path in ("/llm/state.json", "/llm/download/rows.csv", "/llm/download/report.html", "/stats/requests"):
        status, body = page.ask(path)
        assert status == 302, path
        assert b"login" in body
    outside = page.base.removesuffix("/base")
    page.base, base = outside, page.base
    assert page.ask("/llm/state.json")[0] == 404
    page.base = base
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    with opener.open(page.base + "/enter", timeout=10) as entered:
        assert entered.read() == b"in"
    with opener.open(page.base + "/llm/state.json", timeout=10) as answer:
        assert json.load(answer)["run"] is None
    page.end()


SECRET = "sk-live-7Qm2Xk9RtW4vBn8ZpLc3"


def test_no_secret_in_state_or_form_and_the_form_still_works(web: Starter, simulator: Simulator) -> None:
    body = json.dumps({"metadata": {"token": SECRET}})
    page = web(
        "--host", simulator.url.replace("http://", f"http://user:{SECRET}@"),
        "--llm-extra-body", body, "--llm-sweep", "1", "--llm-requests", "3",
        env={"OPENAI_API_KEY": SECRET},
    )  # fmt: skip
    form = page.ask("/")[1].decode()
    assert SECRET not in form
    found = re.search(r"window\.templateArgs = (\{.*?\})\s*(?:;|\n|</script>)", form, re.DOTALL)
    assert found
    shown = json.loads(found[1])["extra_options"]["llm_extra_body"]["default_value"]
    assert "metadata" in shown
    # The browser sends back what it was shown: the masked text stands for the value.
    page.swarm(host=simulator.url, llm_extra_body=shown, llm_sweep="1", llm_requests="3")
    over = page.until(lambda s: s["progress"] is None and bool(s["stages"]) and s["stages"][0]["finished"], "the end")
    assert over["stages"][0]["ok"] == 3
    for path in ("/llm/state.json", "/", "/llm/download/rows.csv", "/llm/download/report.html", "/stats/report"):
        assert SECRET not in page.ask(path)[1].decode(), path
    assert page.running.process.poll() is None
    page.end()


def test_locusts_html_report_has_the_section_when_it_was_written(locust: Locust, simulator: Simulator) -> None:
    report = locust.folder / "report_{u}.html"
    done = locust.run(
        "--host", simulator.url, "--llm-sweep", "1,2", "--llm-requests", "5", "--html", str(report), "-u", "2"
    )
    assert done.code == 0, done.err
    page = (locust.folder / "report_2.html").read_text()
    assert page.count('id="llm-section"') == 1
    assert page.count('src="data:image/svg+xml;base64,') == 2  # the curve over the latency and over TTFT
    assert page.rstrip().endswith("</html>")
    assert "Time to First Token (seconds)" in page
