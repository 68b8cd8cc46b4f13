"""The tests' own order: folders mirror the packages, and tests import from each other only within a folder."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.project import ROOT

TESTS = ROOT / "tests"


def test_every_folder_is_a_package() -> None:
    assert not [folder for folder in {path.parent for path in TESTS.rglob("*.py")} if not has_init(folder)]


def has_init(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def test_helpers_of_several_folders_are_in_plainly_named_modules() -> None:
    wrong = []
    for path in TESTS.rglob("*.py"):
        folder = ".".join(path.parent.relative_to(ROOT).parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            place, _, name = module.rpartition(".")
            is_test = name == "conftest" or name.startswith("test_")
            if module.startswith("tests.") and is_test and place != folder:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(wrong)
