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
from email import message_from_bytes
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt

import llm_users
from tests.project import PROJECT, ROOT
from tests.system.deploy.built_packages import NOT_PACKAGED

REPOSITORY = PROJECT["urls"]["Repository"]


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


def metadata_of(wheel: Path) -> Message:
    info = f"locust_llm-{llm_users.__version__}.dist-info"
    return message_from_bytes(zipfile.ZipFile(wheel).read(f"{info}/METADATA"))


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Name"] == "locust-llm"
    assert metadata["Author"] == "locust-llm contributors"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    urls = dict(text.split(", ", 1) for text in metadata.get_all("Project-URL", []))
    assert urls["Repository"] == REPOSITORY
    assert all(url.startswith(REPOSITORY) for url in urls.values())
    licences = {name.partition("/licenses/")[2] for name in zipfile.ZipFile(wheel).namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "reports/llm_reports/charts/assets/uPlot.LICENSE.txt"}


def test_the_description_on_pypi_links_to_the_files_of_the_version(wheel: Path) -> None:
    description = str(metadata_of(wheel).get_payload())
    links = links_of(description)
    of_this_version = re.compile(rf"{re.escape(REPOSITORY)}/(blob|raw)/v{re.escape(llm_users.__version__)}/([^#]+)")
    files = [match for link in links if (match := of_this_version.match(link))]
    assert len(files) >= len({link for link in links_of((ROOT / "README.md").read_text()) if "://" not in link}) > 0
    assert all((ROOT / match[2]).is_file() for match in files)
    assert all(match[1] == ("raw" if match[2].endswith(".png") else "blob") for match in files)
    assert not [link for link in links if not urlsplit(link).scheme]


def test_every_kind_of_relative_link_becomes_absolute_and_code_stays(tmp_path: Path) -> None:
    code = '```python\nevents["a"](docs/b.md)\n```\n'
    (tmp_path / "llm_users").mkdir()
    for name in ("setup.py", "pyproject.toml", "llm_users/_version.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "README.md").write_text(
        "[![picture](docs/a.png)](docs/a.md) [`code`](./LICENSE) `[x](y.md)` [part](#usage) [mail](mailto:a@b.org)\n"
        '<picture><source srcset="docs/dark.png"><img src="docs/light.png"></picture> [out](https://locust.io)\n'
        f"[named][n]\n\n{code}\n[n]: docs/n.md#part\n"
    )
    script = "import runpy, setuptools; setuptools.setup = lambda **given: print(given['long_description'], end='')\n"
    script += "runpy.run_path('setup.py')"
    text = output(Path(sys.executable), "-c", script, cwd=tmp_path)
    page, raw = (f"{REPOSITORY}/{view}/v{llm_users.__version__}/" for view in ("blob", "raw"))
    assert links_of(text) == [
        f"{page}docs/a.md", f"{raw}docs/a.png", f"{page}LICENSE", f"{page}README.md#usage", "mailto:a@b.org",
        f"{raw}docs/dark.png", f"{raw}docs/light.png", "https://locust.io", f"{page}docs/n.md#part",
    ]  # fmt: skip
    assert code in text
    assert "`[x](y.md)`" in text


class LinksOfHtml(HTMLParser):
    """The targets of links and pictures, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset") and value]


def links_of(markdown: str) -> list[str]:
    parser = LinksOfHtml()
    parser.feed(MarkdownIt("commonmark").render(markdown))
    return parser.links


def test_the_sdist_carries_every_file_of_the_repository(sdist: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a checkout: git does not list the files")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {path for path in listed.stdout.splitlines() if (ROOT / path).is_file()} - names == set()
    made = {name for name in names if name in {"PKG-INFO", "setup.cfg"} or ".egg-info/" in name}
    assert not [name for name in names - made if not (ROOT / name).is_file()]
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
    shutil.copytree(ROOT, folder, ignore=NOT_PACKAGED)
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
