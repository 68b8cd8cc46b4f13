"""The order of the tests: every folder is a package, helpers have modules, and `.ci/run` runs every test once."""

from __future__ import annotations

import ast
import re
from collections import Counter
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


def test_slow_tests_are_tests_of_the_system() -> None:
    """`make test` runs all of tests/unit; only `make test-system` leaves slow tests out."""
    mark = "pytest.mark." + "slow"
    assert not [path for path in (TESTS / "unit").rglob("test_*.py") if mark in path.read_text(encoding="utf-8")]


def test_ci_runs_every_file_of_the_system_tests_once() -> None:
    runs: Counter[Path] = Counter()
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    quiet = re.search(r"quiet=\(([^)]*)\)", script)
    assert quiet
    apart = files_with_tests(quiet[1])
    for arguments in re.findall(r"\bcheck ([^&;\n]+)", script):
        runs.update(apart if '"${quiet[@]}"' in arguments else files_with_tests(arguments) - ignored(arguments, apart))
    assert runs == Counter(files_with_tests("tests/system"))


def test_ci_runs_the_unit_tests_at_its_end_as_make_does() -> None:
    rule = re.search(r"^test: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert rule
    arguments = re.findall(r"/python -m pytest(.*)\n", rule[1])
    assert [re.findall(r'-m ("?)([a-z ]+)\1', words)[0][1] for words in arguments] == ["alone", "not alone"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.rstrip().endswith("".join(f"\npython -m pytest -p no:cacheprovider{words}" for words in arguments))


def files_with_tests(arguments: str) -> set[Path]:
    """The files with tests in the files and folders of the repository that a command names."""
    named = [ROOT / word for word in arguments.split() if word.startswith("tests/")]
    assert all(path.exists() for path in named), arguments
    return {file for path in named for file in ([path] if path.is_file() else path.rglob("test_*.py"))}


def ignored(arguments: str, apart: set[Path]) -> set[Path]:
    return apart if "--ignore=" in arguments else set()
