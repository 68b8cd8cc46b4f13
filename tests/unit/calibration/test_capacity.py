"""What is stored about this machine: when it is believed, and what is said of a load beyond it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from llm_users.calibration.capacity import Capacity, NoPlace, cores, excess, place, store, stored
from llm_users.record import StageRecord


def capacity(**more: Any) -> Capacity:
    figures: dict[str, Any] = {
        "host": socket.gethostname(), "cores": cores(), "python": "3.11.7", "version": "0.1.0",
        "date": "2026-01-01T00:00:00+0000", "streams": 256, "tokens_per_s": 10000.0, "processes": 1, "at_least": False,
        "gap_s": 0.02, "tokens": 64, "error_s": 0.001, **more,
    }  # fmt: skip
    return Capacity(**figures)


def stage(concurrency: int, tokens_per_s: float | None = 100.0, **more: Any) -> StageRecord:
    figures = {"measure_s": 5.0, **more}
    return StageRecord(stage=3, concurrency=concurrency, output_throughput_token_per_s=tokens_per_s, **figures)


def believed() -> tuple[Capacity | None, list[str]]:
    said: list[str] = []
    return stored(said.append), said


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCUST_LLM_CALIBRATION", str(tmp_path / "new" / "found.json"))
    return tmp_path / "new" / "found.json"


# The file.


def test_what_is_stored_is_read_again(path: Path) -> None:
    assert believed() == (None, [])
    assert store(capacity()) == path
    assert believed() == (capacity(), [])
    store(capacity(streams=300))
    assert believed() == (capacity(streams=300), [])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"cores": cores() + 1}])
def test_another_machine_is_not_this_one(path: Path, other: dict[str, Any]) -> None:
    store(capacity(**other))
    assert believed() == (None, [])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe\x00", b"[]", b"{}", b'{"streams": 256}', b" " * 100_000, b"[" * 50_000,
        json.dumps({"streams": -1}).encode(),
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_ignored_with_one_line(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    found, said = believed()
    assert found is None
    assert len(said) == 1
    assert str(path) in said[0]
    assert "\n" not in said[0]


@pytest.mark.parametrize(
    "change",
    [{"streams": 0}, {"streams": "256"}, {"streams": 1.5}, {"tokens_per_s": -1.0}, {"tokens_per_s": None},
     {"processes": 0}, {"format": "another"}, {"host": 1}, {"more": 1}],
)  # fmt: skip
def test_every_field_must_be_what_we_write(path: Path, change: dict[str, Any]) -> None:
    store(capacity())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    found, said = believed()
    assert (found, len(said)) == (None, 1)


def test_what_is_no_file_does_not_hold_up_a_run(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    assert believed()[0] is None
    path.unlink()
    path.mkdir()
    found, said = believed()
    assert (found, len(said)) == (None, 1)


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_other(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(OSError):
        store(capacity())
    assert list(path.parent.iterdir()) == [path]


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LOCUST_LLM_CALIBRATION", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert place() == tmp_path / "locust-llm" / "calibration.json"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert place() == Path("/home/somebody/.local/state/locust-llm/calibration.json")
    monkeypatch.setattr(Path, "home", _homeless)
    with pytest.raises(NoPlace, match="LOCUST_LLM_CALIBRATION"):
        place()
    assert stored(pytest.fail) is None


def _homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


# A stage beside it.


@pytest.mark.parametrize(
    ("of", "processes", "said"),
    [
        (stage(256), 1, None),
        (stage(512), 2, None),
        (stage(257), 1, "257 streams in 1 process; this machine was calibrated for 256 (llm-bench calibrate): "),
        (stage(600), 2, "600 streams in 2 processes; "),
        (stage(1, 10_400.0), 1, None),  # two runs of the same load differ
        (stage(1, 15_000.0), 1, "15000 tokens/s in 1 process; this machine was calibrated for 10000 (llm-bench"),
        (stage(1, 15_000.0, measure_s=0.5), 1, None),
        (stage(1, None, measure_s=None), 1, None),
        (stage(0, rate_per_s=50.0, concurrency_actual=256.0), 1, None),
        (stage(0, rate_per_s=50.0, concurrency_actual=300.4), 1, "300 streams in 1 process"),
    ],
)
def test_a_load_beyond_what_was_found_is_told_of(of: StageRecord, processes: int, said: str | None) -> None:
    text = excess(of, [None] if processes == 1 else [f"{socket.gethostname()}_{n:x}" for n in range(2)], capacity())
    assert (text is None) == (said is None)
    if said and text:
        assert text.startswith(f"stage 3: {said}")


def test_nothing_is_said_without_a_calibration_or_of_workers_elsewhere() -> None:
    here = f"{socket.gethostname()}_1f"
    assert excess(stage(9999), [None], None) is None
    assert excess(stage(9999), [], capacity()) is None
    assert excess(stage(9999), [here, "elsewhere_2f"], capacity()) is None
    assert excess(stage(9999), [here], capacity())


def test_the_advice_keeps_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_users.calibration.capacity.cores", lambda: 4)
    assert _advice(600, 1).endswith(": use --processes 3")
    assert _advice(2000, 1).endswith(": use --processes 4, one per core, and workers on other machines")
    assert _advice(2000, 4).endswith(": also use workers on other machines")


def test_capacity_is_counted_per_process() -> None:
    found = capacity(streams=400, processes=2, at_least=True)
    assert excess(stage(200), [None], found) is None
    text = excess(stage(201), [None], found)
    assert text is not None
    assert "this machine was calibrated for at least 400 in 2 processes (llm-bench calibrate): " in text
    assert text.endswith(" to be sure")


def test_a_disturbed_stage_is_told_of_the_other_programs_too() -> None:
    disturbed = dataclasses.replace(stage(9999), health="disturbed")
    assert str(excess(disturbed, [None], capacity())).endswith("; other programs also used its CPU")


def _advice(streams: int, processes: int) -> str:
    text = excess(stage(streams), [f"{socket.gethostname()}_{n}" for n in range(processes)], capacity())
    assert text is not None
    return text
