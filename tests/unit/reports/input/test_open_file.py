"""Inputs that are compressed, and standard input."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.errors import InputError
from llm_reports.main import main
from llm_users.run_files import REQUESTS_CSV, path_of
from tests.unit.reports.sweep_on_disk import write_sweep

Write = Callable[..., Path]
REPORT = [sys.executable, "-m", "llm_reports.main"]


def compressed(path: Path, into: Path) -> Path:
    into.mkdir(exist_ok=True)
    target = into / f"{path.name}.gz"
    with path.open("rb") as source, gzip.open(target, "wb") as file:
        shutil.copyfileobj(source, file)
    return target


def printed(*inputs: str | Path, data: bytes | None = None) -> str:
    done = subprocess.run([*REPORT, *map(str, inputs)], check=False, input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_compressed_run_gives_the_same_report(tmp_path: Path) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1, 4), requests=40)
    for path in sorted(tmp_path.glob("run_llm_*")):
        compressed(path, tmp_path / "packed")
    expected = llm_reports.report_run(prefix, out=tmp_path / "a")
    for given in ("packed/run", "packed", "packed/run_llm_requests.csv.gz"):
        report = llm_reports.report_run(tmp_path / given, out=tmp_path / "b")
        assert report.text == expected.text
        assert report.warnings == expected.warnings == ()
        assert (tmp_path / "b" / "summary.csv").read_text() == (tmp_path / "a" / "summary.csv").read_text()


def test_a_compressed_file_beside_its_original_is_one_input(tmp_path: Path) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1,), requests=20)
    compressed(path_of(prefix, REQUESTS_CSV), tmp_path)
    assert [run.name for run in llm_reports.load_all([tmp_path])] == ["run"]


def test_compressed_llmperf_files(tmp_path: Path, write_responses: Write) -> None:
    path = write_responses("vllm_tiny_individual_responses.json")
    (tmp_path / "vllm_tiny_summary.json").write_text(json.dumps({"num_concurrent_requests": 3, "model": "org/tiny"}))
    packed = [compressed(tmp_path / f"vllm_tiny_{name}.json", tmp_path / "packed")
              for name in ("individual_responses", "summary")]  # fmt: skip
    run, expected = llm_reports.load(packed[0]), llm_reports.load(path)
    assert run.name == expected.name == "vllm_tiny"
    assert run.requests.equals(expected.requests)
    assert set(run.requests["concurrency"]) == {3}


def test_rows_and_llmperf_json_from_standard_input(tmp_path: Path, write_responses: Write) -> None:
    rows = path_of(write_sweep(tmp_path / "run", levels=(1,), requests=30), REQUESTS_CSV)
    for path in (rows, write_responses("vllm_tiny_individual_responses.json", ok=40)):
        tables = llm_reports.tables([llm_reports.load(path)])
        for data in (path.read_bytes(), gzip.compress(path.read_bytes())):
            text = printed("-", data=data)
            figures = [line.split("|")[3:-1] for line in text.splitlines() if line.startswith("|") and "." in line]
            assert [[cell.strip() for cell in row] for row in figures] == [[*table.cells[0][2:]] for table in tables]


def test_standard_input_beside_a_file(tmp_path: Path) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1,), requests=30)
    rows = path_of(prefix, REQUESTS_CSV).read_bytes()
    text = printed("compare", prefix, "-", data=rows)
    assert "standard input" in text


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1,), requests=30)
    packed = compressed(path_of(prefix, REQUESTS_CSV), tmp_path / "packed")
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    assert main([str(packed)]) == 2
    assert "the compressed file is truncated or damaged" in capsys.readouterr().err
    packed.write_bytes(b"\x1f\x8b" + b"nonsense" * 20)
    with pytest.raises(InputError, match=r"run_llm_requests\.csv\.gz"):
        llm_reports.load(packed)


def test_nothing_on_standard_input() -> None:
    done = subprocess.run([*REPORT, "-"], check=False, input=b"", capture_output=True, timeout=60)
    assert done.returncode == 2
    assert b"-: the file is empty" in done.stderr
