"""The line about a locustfile that cannot be loaded names the place in the code of the user."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from llm_users.wiring.locustfile_errors import describe


def load(path: Path) -> str:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(Exception) as caught:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    error = caught.value
    assert error.__traceback__ is not None
    return describe(error.with_traceback(error.__traceback__.tb_next))  # without the frame of this test


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_syntax_error_shows_the_line(folder: Path) -> None:
    (folder / "mine.py").write_text("x = 1\nclass A(:\n")
    assert load(folder / "mine.py") == "mine.py, line 2: SyntaxError: invalid syntax: class A(:"


def test_a_missing_package_is_named_with_the_python_that_misses_it(folder: Path) -> None:
    (folder / "mine.py").write_text("import no_such_package\n")
    said = load(folder / "mine.py")
    assert said.startswith("mine.py, line 1: ModuleNotFoundError: No module named 'no_such_package'")
    assert said.endswith(f"install the package for {sys.executable}")


def test_an_error_in_an_imported_module_of_the_user_has_its_place(folder: Path) -> None:
    (folder / "helper_of_mine.py").write_text("\nvalue = int('x')\n")
    (folder / "mine.py").write_text("import helper_of_mine\n")
    said = load(folder / "mine.py")
    assert said.startswith("helper_of_mine.py, line 2: ValueError: invalid literal")
    assert said.endswith("For the traceback, run: python mine.py")


def test_an_error_inside_a_library_has_the_place_of_the_call(folder: Path) -> None:
    (folder / "mine.py").write_text("import json\n\njson.loads('{')\n")
    assert load(folder / "mine.py").startswith("mine.py, line 3: JSONDecodeError: ")
