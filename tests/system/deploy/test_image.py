"""The image without an engine: what it copies exists and is enough, its entry script does what it says."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.system.deploy.conftest import ENTRYPOINT, environment
from tests.system.deploy.manifests import DEPLOY, ROOT

CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text()
BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"


def instructions(name: str) -> list[str]:
    """Arguments of each instruction of this name, continued lines joined."""
    lines = CONTAINERFILE.replace("\\\n", " ").splitlines()
    return [line.split(None, 1)[1] for line in lines if line.startswith(f"{name} ")]


def copied() -> list[tuple[list[str], str]]:
    """(sources, destination) of the copies from the checkout."""
    words = [line.split() for line in instructions("COPY") if not line.startswith("--from=")]
    plain = [[word for word in line if not word.startswith("--")] for line in words]
    return [(line[:-1], line[-1]) for line in plain]


def test_the_image_is_not_root_and_pins_its_python() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"10001:10001", user)
    assert f"--uid {user.partition(':')[0]} " in CONTAINERFILE
    bases = [line.split()[0] for line in instructions("FROM")]
    assert set(bases) == {"docker.io/library/python:3.11-slim"}, "constraints.txt was made with Python 3.11"
    assert "latest" not in CONTAINERFILE
    assert all(
        "--constraint constraints.txt" in step for step in " ".join(instructions("RUN")).split("pip install")[1:]
    )
    assert not re.search(r"^(ENV|ARG).*(KEY|TOKEN|SECRET)", CONTAINERFILE, flags=re.MULTILINE)


def test_what_is_copied_is_let_through_and_nothing_else_is() -> None:
    allowed = {line[1:] for line in IGNORE.splitlines() if line.startswith("!")}
    sources = {source for group, _ in copied() for source in group}
    assert IGNORE.splitlines()[1] == "*", "everything is left out unless named"
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


def test_the_copied_files_are_enough_to_build_the_package(tmp_path: Path) -> None:
    left_out = [line.removeprefix("**/") for line in IGNORE.splitlines() if line.startswith("**/")]
    assert fnmatch.fnmatch("a.pyc", left_out[1])
    for sources, destination in copied():
        for source in sources:
            if destination.startswith("/"):
                continue  # into the second stage
            target = tmp_path / (source if destination == "./" else destination)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns(*left_out))
            else:
                shutil.copy(ROOT / source, target)
    built = tmp_path / "built"
    built.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(built)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"llm_users/locustfiles/sweep.py", "llm_users/prompts/sonnets.txt", "llm_reports/main.py"} <= names


def test_every_command_of_the_build_is_shell() -> None:
    scripts = [*instructions("RUN"), Path(ENTRYPOINT).read_text()]
    for script in scripts:
        done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert os.access(ENTRYPOINT, os.X_OK)
    assert Path(ENTRYPOINT).read_text().startswith("#!/bin/sh\n")
    target = {source: to for group, to in copied() for source in group}["deploy/entrypoint.sh"]
    assert instructions("ENTRYPOINT") == [f'["{Path(target).name}"]']
    assert "--chmod=0755" in CONTAINERFILE


# The entry script.


def enter(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", ENTRYPOINT, *words], env=environment(SECRETS_DIR=str(folder), **variables), cwd=folder.parent,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "run secrets"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("written", "taken"),
    [("plain", "plain"), ("ends\n", "ends"), ("windows\r\n", "windows"), ("a b  c\n", "a b  c"),
     ("$HOME `id` \"'\\;\n", "$HOME `id` \"'\\;"), ("two\nlines\n", "two\nlines"), ("", "")],
)  # fmt: skip
def test_a_secret_file_becomes_the_variable_of_its_name(written: str, taken: str, secrets: Path) -> None:
    (secrets / "OPENAI_API_KEY").write_bytes(written.encode())
    done = enter(sys.executable, "-c", "import os; print(ascii(os.environ['OPENAI_API_KEY']))", folder=secrets)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ascii(taken)
    assert not done.stderr


def test_what_the_environment_has_stays(secrets: Path) -> None:
    (secrets / "OPENAI_API_KEY").write_text("of the file")
    for given in ("of the environment", ""):
        done = enter("printenv", "OPENAI_API_KEY", folder=secrets, OPENAI_API_KEY=given)
        assert done.stdout == given + "\n"


@pytest.mark.parametrize("name", ["openai-api-key", "1KEY", "KEY.txt", "A B", "x;id", "$(id)", "ключ"])
def test_a_name_that_is_no_variable_is_said_and_left(name: str, secrets: Path) -> None:
    (secrets / name).write_text("something")
    (secrets / "AFTER").write_text("taken all the same")
    done = enter("printenv", "AFTER", folder=secrets)
    assert (done.returncode, done.stdout) == (0, "taken all the same\n")
    assert "is not taken" in done.stderr
    assert "something" not in done.stderr


def test_folders_and_a_missing_folder_are_no_secrets(secrets: Path) -> None:
    (secrets / "kubernetes.io").mkdir()
    assert enter("true", folder=secrets).stderr == ""
    assert enter("true", folder=secrets / "missing").stderr == ""


def test_the_script_leaves_none_of_its_own_variables_behind(secrets: Path) -> None:
    (secrets / "KEY").write_text("x")
    names = set(enter("env", folder=secrets).stdout.split()) | {""}
    assert not [line for line in names if line.startswith(("file=", "name=", "given=", "value="))]


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_secret_that_cannot_be_read_ends_the_start(closed: str, secrets: Path) -> None:
    path = secrets / "OPENAI_API_KEY"
    path.write_text("hidden")
    (path if closed == "file" else secrets).chmod(0)
    # Root reads what it likes by a right that can be given up.
    limits = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*limits, "sh", ENTRYPOINT, "true"], env=environment(SECRETS_DIR=str(secrets)),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    secrets.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert "cannot be read by user" in done.stderr


@pytest.mark.parametrize("words", [[], ["--version"], ["-V"], ["llm-bench", "--version"], ["locust", "--version"]])
def test_arguments_alone_go_to_llm_bench(words: list[str], secrets: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("llm-bench", "locust"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (programs / name).chmod(0o755)
    done = enter(*words, folder=secrets, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    program, *rest = words if words and words[0] in ("llm-bench", "locust") else ["llm-bench", *words]
    assert done.stdout.split() == [program, *rest]


def test_the_script_becomes_the_command(secrets: Path) -> None:
    """Signals reach Locust only when no shell stands before it."""
    running = subprocess.Popen(
        ["sh", ENTRYPOINT, sys.executable, "-c", "import os; print(os.getpid())"],
        env=environment(SECRETS_DIR=str(secrets)), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, _ = running.communicate(timeout=30)
    assert int(out) == running.pid


def test_the_commands_of_the_build_name_what_the_image_has() -> None:
    (path,) = re.findall(r"^ENV PATH=(\S+):\$PATH", CONTAINERFILE, flags=re.MULTILINE)
    venvs = [
        words[-1] for step in instructions("RUN") for words in [shlex.split(step.split("&&")[0])] if "venv" in words
    ]
    assert [f"{venv}/bin" for venv in venvs] == [path]
    assert [line for line in instructions("COPY") if line.startswith("--from=")] == [
        f"--from=build {venvs[0]} {venvs[0]}"
    ]
