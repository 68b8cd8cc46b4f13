"""The first failure of each kind has a line at once, all further ones are counted in one line at the end."""

from __future__ import annotations

import logging

import pytest

from llm_users.load.coordinator.failure_log import FailureLog
from llm_users.record import RequestRecord


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


def failed(code: str, message: str) -> RequestRecord:
    return RequestRecord(error_code=code, error_message=message)


def test_the_first_failure_of_each_kind_is_logged_and_others_are_counted(log: pytest.LogCaptureFixture) -> None:
    failures = FailureLog()
    for number in range(30):
        failures.add(failed("429", f"slow down, request id req_{number}"))
    failures.add(failed("500", "a bug"))
    assert [record.getMessage() for record in log.records] == [
        "first failure of this kind: 429: slow down, request id req_0",
        "first failure of this kind: 500: a bug",
    ]
    log.clear()
    failures.end()
    assert [record.getMessage() for record in log.records] == ["30 failures in all: 429: slow down, request id req_0"]


def test_requests_that_did_not_fail_are_not_logged(log: pytest.LogCaptureFixture) -> None:
    failures = FailureLog()
    for code in ("", "buffered", "aborted", "cancelled"):
        failures.add(failed(code, ""))
    failures.end()
    assert not log.records


def test_many_kinds_do_not_fill_the_log(log: pytest.LogCaptureFixture) -> None:
    failures = FailureLog()
    for number in range(500):
        failures.add(failed(f"code{number}", "the words"))
    failures.end()
    assert len(log.records) < 60
