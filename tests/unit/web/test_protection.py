"""The web interface refuses requests of other sites, foreign host names, and what an open page must not do."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from flask.testing import FlaskClient
from locust import argument_parser, task
from locust.argument_parser import get_parser
from locust.env import Environment
from locust.web import WebUI

import llm_users
from llm_users import OpenAIUser
from llm_users.extension import wiring_of

NAMED = "http://127.0.0.1:9/v1"
ELSEWHERE = "http://127.0.0.1:19/v1"
FORM = {"user_count": "1", "spawn_rate": "1", "host": NAMED}


class Chat(OpenAIUser):
    """A user class whose users never ask anything."""

    @task
    def ask(self) -> None:
        self.wait()


class Page:
    """The real web interface with the extension, called through WSGI: rules are tested without binding an address."""

    def __init__(self, folder: Path, bound: str, login: bool, given: dict[str, Any]) -> None:
        parsed = get_parser(default_config_files=[]).parse_args([])
        vars(parsed).update(host=NAMED, csv_prefix=str(folder / "run"), headless=False, **given)
        self.environment = Environment(user_classes=[Chat], host=NAMED, parsed_options=parsed)
        llm_users.attach(self.environment)
        self.runner = self.environment.create_local_runner()
        self.web_ui = WebUI(self.environment, bound, 8089, web_login=login, delayed_start=True)
        self.starts: list[tuple[int, float]] = []
        self.runner.start = lambda users, rate, **_: self.starts.append((users, rate))  # type: ignore[method-assign]
        wiring = wiring_of(self.environment)
        assert wiring is not None
        assert wiring.coordinating is not None
        wiring.coordinating.show_in_web()
        self.role = wiring.coordinating
        self.client: FlaskClient = self.web_ui.app.test_client()

    def swarm(self, headers: dict[str, str] | None = None, **form: str) -> tuple[int, dict[str, Any]]:
        answer = self.client.post(
            "/swarm", data={**FORM, **form}, headers={"Host": "127.0.0.1:8089", **(headers or {})}
        )
        gevent.sleep(0.01)  # Locust starts the test in a greenlet
        return answer.status_code, json.loads(answer.data) if answer.is_json else {}

    def close(self) -> None:
        wiring = wiring_of(self.environment)
        if wiring is not None and wiring.coordinating is not None:
            wiring.coordinating.close()
        self.runner.quit()


@pytest.fixture(scope="module", autouse=True)
def one_description_of_the_options() -> Iterator[None]:
    """Locust describes the options for its form anew for every page, in a time that grows with their square."""
    with pytest.MonkeyPatch.context() as patch:
        described = functools.cache(argument_parser.ui_extra_args_dict)
        patch.setattr(argument_parser, "ui_extra_args_dict", lambda: copy.deepcopy(described()))
        yield


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("sys.argv", ["locust"])  # Locust's form reads the options of the command line
    made: list[Page] = []

    def make(bound: str = "127.0.0.1", *, login: bool = False, **given: Any) -> Page:
        made.append(Page(tmp_path, bound, login, given))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),  # scripts
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}, True),  # behind a reverse proxy
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:5000"}, False),  # another port of this machine
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:8089"}, True),
        ({"Origin": "http://127.0.0.1"}, False),
        ({"Origin": "http://127.0.0.1:notaport"}, False),
        ({"Host": "127.0.0.1", "Origin": "http://127.0.0.1"}, True),  # both mean port 80
        ({"Origin": "https://load.example.com"}, True),  # --llm-web-origin
    ],
)
def test_other_sites_cannot_start_a_test(page: Any, headers: dict[str, str], allowed: bool) -> None:
    shown = page(llm_web_origin=["https://load.example.com"])
    status, answer = shown.swarm(headers)
    if allowed:
        assert (status, answer["success"], shown.starts) == (200, True, [(1, 1.0)]), answer
    else:
        assert (status, answer["success"], shown.starts) == (403, False, [])
        assert "another site" in answer["message"]


@pytest.mark.parametrize("path", ["/stop", "/stats/reset", "/user", "/nowhere"])
def test_other_sites_cannot_change_anything_else(page: Any, path: str) -> None:
    answer = page().client.post(path, headers={"Host": "127.0.0.1:8089", "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8089", True), ("127.0.0.1:8089", True), ("[::1]:8089", True), ("127.8.8.8", True),
        ("locust.localhost:8089", True), ("load.example.com", True), ("evil.example:8089", False),
        ("127.0.0.1.evil.example:8089", False), ("[::2]:8089", False), ("localhost.evil.example", False),
    ],
)  # fmt: skip
def test_a_foreign_host_name_reads_nothing_of_a_page_on_loopback(page: Any, host: str, allowed: bool) -> None:
    client = page(llm_web_origin=["https://load.example.com"]).client
    for path in ("/llm/state.json", "/stats/requests", "/"):
        assert (client.get(path, headers={"Host": host}).status_code == 200) is allowed, path


def test_a_page_for_the_network_answers_to_every_name(page: Any) -> None:
    assert page("0.0.0.0").client.get("/llm/state.json", headers={"Host": "load.internal"}).status_code == 200


def test_no_site_may_read_the_extensions_answers(page: Any) -> None:
    client = page().client
    for path in ("/llm/state.json", "/llm", "/llm/assets/live.js", "/llm/download/rows.csv"):
        answer = client.get(path, headers={"Host": "localhost", "Origin": "http://evil.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers, path


def test_a_request_that_the_login_refuses_changes_nothing(page: Any) -> None:
    shown = page("127.0.0.1", login=True)
    shown.web_ui.app.secret_key = "for this test"
    shown.web_ui.login_manager.user_loader(lambda _: None)
    before = shown.environment.shape_class
    for path in ("/swarm", "/nowhere/swarm"):
        answer = shown.client.post(path, data={"llm_sweep": "1,2", "host": "http://user:pass-word@x/v1"})
        assert answer.status_code in (302, 404)
    assert (shown.starts, shown.environment.shape_class, shown.environment.host) == ([], before, NAMED)


@pytest.mark.parametrize("name", ["llm_prompts", "llm_header_env", "llm_trace", "llm_client_cert", "llm_tokenizer"])
def test_an_open_page_cannot_have_files_or_variables_read(page: Any, name: str) -> None:
    status, answer = page("0.0.0.0").swarm(
        **{name: "X=DATABASE_PASSWORD" if name == "llm_header_env" else "/etc/passwd"}
    )
    assert (status, answer["success"]) == (200, False)
    assert "--" + name.replace("_", "-") in answer["message"]
    assert "--web-login" in answer["message"]


def test_a_host_that_is_no_url_is_refused_with_the_reason(page: Any) -> None:
    status, answer = page().swarm(host="http://[::1")
    assert (status, answer["success"]) == (200, False)
    assert "the host is not a URL" in answer["message"]


def test_an_open_page_takes_the_values_of_the_start(page: Any, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Why?\n")
    shown = page("0.0.0.0", llm_prompts=str(prompts))
    assert shown.swarm(llm_prompts=str(prompts))[1]["success"]
    assert not shown.swarm(llm_prompts="")[1]["success"]  # even less than at the start is another value


@pytest.mark.parametrize(
    ("bound", "login", "form", "withheld"),
    [
        ("0.0.0.0", False, {}, False),
        ("0.0.0.0", False, {"host": ELSEWHERE}, True),
        ("0.0.0.0", False, {"host": NAMED + "/other"}, False),  # the same server
        ("0.0.0.0", False, {"llm_targets": f"a@{ELSEWHERE}=1"}, True),
        ("", False, {"host": ELSEWHERE}, True),
        ("127.0.0.1", False, {"host": ELSEWHERE}, False),
        ("localhost", False, {"host": ELSEWHERE}, False),
    ],
)
def test_an_open_page_sends_keys_only_to_endpoints_of_the_start(
    page: Any, bound: str, login: bool, form: dict[str, str], withheld: bool
) -> None:
    shown = page(bound, login=login)
    assert shown.swarm(**form)[1]["success"]
    assert shown.role.withholds_keys is withheld


def test_an_open_page_cannot_move_a_user_class_to_another_host(page: Any) -> None:
    shown = page("0.0.0.0")
    answer = shown.client.post("/user", json={"user_class_name": "Chat", "host": ELSEWHERE})
    assert json.loads(answer.data)["success"] is False
    assert Chat.host is None


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"llm_sweep": "1,x"}, "--llm-sweep: "),
        ({"llm_sweep": "1,2", "llm_rate": "5"}, "--llm-rate"),
        ({"llm_sweep": "1", "llm_slo": "ttft_p95<<1"}, "--llm-slo: "),
        ({"llm_sweep": "", "llm_prompts": "/nowhere/prompts.txt"}, "--llm-prompts: "),
        ({"llm_sweep": "1", "host": ""}, "no endpoint: "),
        ({"llm_sweep": "1", "host": "localhost:8000/v1"}, "must start with http:// or https://"),
    ],
)
def test_the_form_shows_why_a_start_is_refused(
    page: Any, form: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    shown = page()
    status, answer = shown.swarm(**form)
    assert (status, answer["success"], shown.starts) == (200, False, [])
    assert words in answer["message"]
    assert shown.environment.host == NAMED, "a refused form changes nothing"
    assert shown.swarm(llm_sweep="")[1]["success"], "the corrected form starts"
