"""What users install: the sdist carries the project, the wheel made from it runs in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import llm_users
from tests.project import ROOT

LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "out", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
# Without the network: setuptools is there already.
BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_{kind}(sys.argv[1]))"


def build(kind: str, source: Path, into: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind=kind), str(into)],
        cwd=source, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=LEFT_BEHIND)
    return build("sdist", tree, folder)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the sdist, which so has to carry everything."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)


def shipped_files() -> set[str]:
    """What has to be in the wheel: every module, every data file, the locustfiles in their place."""
    places = {"llm_users": "llm_users", "reports/llm_reports": "llm_reports", "locustfiles": "llm_users/locustfiles"}
    return {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in places.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_carries_everything_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == shipped_files()
    assert {"llm_users/py.typed", "llm_reports/py.typed", "llm_users/prompts/sonnets.txt"} <= names
    assert {"llm_users/locustfiles/sweep.py", "llm_users/locustfiles/chat.py"} <= names


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = f"locust_llm-{llm_users.__version__}.dist-info"
    metadata = archive.read(f"{info}/METADATA").decode()
    assert "\nName: locust-llm\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "# locust-llm" in metadata
    licences = {name.removeprefix(f"{info}/licenses/") for name in archive.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "reports/llm_reports/charts/assets/uPlot.LICENSE.txt"}


def test_the_sdist_carries_the_project(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
    }
    wanted |= {
        "locustfiles/sweep.py",
        "docs/columns.md",
        "tests/system/deploy/test_packaging.py",
        "llm_users/py.typed",
        ".ci/run",
    }
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*") if path.is_file()}
    assert "examples/images/square.png" in wanted
    assert wanted <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("out/", ".venv/", ".git/"))]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; the packages that it needs are borrowed from this one."""
    folder = tmp_path_factory.mktemp("installed") / "with space"
    install(folder, str(wheel))
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout with its own virtual environment, as ``make`` sets it up; the packages are borrowed, too."""
    folder = tmp_path_factory.mktemp("checkout") / "tree"
    shutil.copytree(ROOT, folder, ignore=LEFT_BEHIND)
    environment = folder / ".venv"
    install(environment, "--no-build-isolation", "--editable", str(folder))
    command = environment / "bin" / "locust"
    command.write_text(f"#!{environment}/bin/python\nfrom locust.main import main\n\nmain()\n")
    command.chmod(0o755)
    (environment / ".ready").touch()  # make has nothing left to install
    return folder


def install(folder: Path, *what: str) -> None:
    """Make a virtual environment without the network and install something in it."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    library = Path(output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    # Plain paths: hooks of an editable install in these folders do not run.
    (library / "borrowed.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("site-packages")))
    options = ["install", "-qq", "--no-index", "--no-deps", "--ignore-installed"]
    output(Path(sys.executable), "-m", "pip", "--python", str(python), *options, *what)


def output(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LOCUST_", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("command", "said"), [("llm-bench", "--llm-sweep"), ("llm-report", "PREFIX"), ("llm-simulator", "--ttft")]
)
def test_the_commands_work_where_the_wheel_is_installed(
    command: str, said: str, installed: Path, tmp_path: Path
) -> None:
    assert said in output(installed / "bin" / command, "--help", cwd=tmp_path)


@pytest.mark.parametrize("own_file", [None, "reports.py", "reports/__init__.py", "reports/notes.txt"])
def test_llm_bench_runs_the_packaged_locustfile_whatever_the_folder_holds(
    own_file: str | None, installed: Path, tmp_path: Path
) -> None:
    if own_file:
        (tmp_path / own_file).parent.mkdir(exist_ok=True)
        (tmp_path / own_file).write_text("raise RuntimeError('this file is of the user')\n")
    where = output(
        installed / "bin" / "python", "-c", "from llm_users.cli import locustfile; print(locustfile())", cwd=tmp_path
    )
    assert Path(where) == next(installed.resolve().glob("lib/*/site-packages/llm_users/locustfiles/sweep.py"))
    output(
        installed / "bin" / "llm-bench", "--headless", "--only-summary", "--llm-simulator", "ttft=5ms,itl=1ms",
        "--llm-sweep", "1", "--llm-requests", "2", "--llm-input-tokens", "30,5", "--llm-output-tokens", "5,1",
        "--csv", "out/run", "--llm-report", cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "out" / "run_report" / "report.md").is_file()


@pytest.mark.parametrize("folder", [".", "reports", "reports/llm_reports"])
def test_an_editable_install_has_one_copy_of_each_package_in_every_folder(folder: str, checkout: Path) -> None:
    code = "import llm_reports.run, llm_users.record, sys; print(llm_reports.__file__, llm_users.__file__)"
    found = output(checkout / ".venv" / "bin" / "python", "-c", code, cwd=checkout / folder).split()
    assert [Path(path) for path in found] == [
        checkout / "reports" / "llm_reports" / "__init__.py",
        checkout / "llm_users" / "__init__.py",
    ]
    assert "PREFIX" in output(checkout / ".venv" / "bin" / "llm-report", "--help", cwd=checkout / folder)


def test_make_bench_works_in_a_fresh_checkout(checkout: Path) -> None:
    text = output(
        "make", "bench", "SIMULATOR=ttft=5ms,itl=1ms",
        "SWEEP=--llm-sweep 1,2 --llm-requests 4 --llm-input-tokens 30,5 --llm-output-tokens 5,1", cwd=checkout,
    )  # fmt: skip
    assert "## Time to First Token (seconds)" in text
    assert text.endswith("Files: out/bench/")
    assert (checkout / "out" / "bench" / "run_report" / "report.md").is_file()


def test_constraints_name_exact_versions_and_no_places() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+-]+", line) for line in lines)
    assert not [line for line in lines if line.startswith(("locust-llm", "pip=="))]
