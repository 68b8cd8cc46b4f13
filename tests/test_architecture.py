"""Who may import whom. The arrows run downwards only; what is light to import stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Room -> the rooms of llm_users that it may import.
MAY_IMPORT = {
    "record": set(),
    "quantile": set(),
    "digits": set(),
    "arrivals": set(),
    "secrets": set(),
    "transport": set(),
    "prompts": set(),
    "simulator": set(),
    "plan": set(),
    "seat": {"plan"},
    "presence": {"seat"},
    "window": set(),
    "machine": set(),
    "samples": {"machine", "plan", "quantile"},
    "measurement": {"plan", "samples", "seat", "window"},
    "stage": {"measurement", "plan", "presence", "seat"},
    "open_gate": {"plan", "seat", "stage"},
    "prices": set(),
    "think_time": set(),
    "targets": set(),
    "option_values": {"arrivals", "prices", "prompts", "targets", "think_time"},
    "option_rules": {"option_values", "options", "prompts"},
    "options": {"arrivals", "option_rules", "option_values", "prices", "prompts", "targets", "think_time"},
    "endpoint": {"secrets"},
    "state_folder": set(),
    "threads": set(),
    "sent_texts": {"state_folder"},
    "capacity": {"record", "state_folder"},
    "calibration": {"capacity", "option_values", "quantile", "simulator"},
    "runtime": {"endpoint", "open_gate", "options", "plan", "prompts", "record", "secrets", "targets", "transport"},
    "collect": {"machine", "plan", "quantile", "record", "secrets", "stage", "transport"},
    "load": {
        "arrivals", "capacity", "collect", "endpoint", "open_gate", "options", "plan", "prices", "prompts", "quantile",
        "record", "runtime", "secrets", "stage", "targets", "threads", "transport",
    },
    "users": {
        "endpoint", "extension", "prompts", "quantile", "record", "runtime", "seat", "secrets", "stage", "targets",
        "transport",
    },
    "web": {"collect", "options", "plan", "quantile", "record", "secrets", "stage"},
    "extension": {
        "collect", "endpoint", "load", "options", "prompts", "record", "runtime", "secrets", "sent_texts", "simulator",
        "stage", "targets", "threads", "web",
    },
    "bench": {"calibration", "extension"},
}  # fmt: skip

# Single arrows against the rule, and why.
EXCEPTIONS = {
    # An endpoint that does not list its models is told with the classification that requests have; there is only one.
    ("llm_users.load.process", "llm_users.users.failures"),
    # The simulated Bedrock frames its events with the codec that the client decodes them with; other implementations
    # check both (tests/interop).
    ("llm_users.simulator.bedrock_wire", "llm_users.transport.eventstream"),
    # The face of the package names what it loads lazily, for type checkers.
    ("llm_users", "llm_users.extension"),
    ("llm_users", "llm_users.record"),
    ("llm_users", "llm_users.users.bedrock"),
    ("llm_users", "llm_users.users.llm"),
    ("llm_users", "llm_users.prompts.images"),
    ("llm_users", "llm_users.prompts.prompt"),
    ("llm_users", "llm_users.users.anthropic"),
    ("llm_users", "llm_users.users.azure"),
    ("llm_users", "llm_users.users.conversation"),
    ("llm_users", "llm_users.users.openai"),
}

# Room -> packages from outside that it must not know.
FORBIDDEN = {
    "record": {"locust", "gevent", "pandas"},
    "quantile": {"locust", "gevent", "pandas"},
    "prompts": {"locust", "pandas"},
    "transport": {"locust", "pandas", "openai", "boto3"},
    "simulator": {"locust", "gevent", "pandas", "openai", "boto3"},
    "users": {"pandas", "csv", "pathlib", "flask"},
    "collect": {"locust", "pandas", "openai", "boto3"},
    "load": {"pandas", "openai", "boto3", "flask"},
    "web": {"locust", "pandas", "openai", "boto3"},
    "state_folder": {"locust", "gevent", "pandas"},
    "sent_texts": {"locust", "gevent", "pandas"},
    "capacity": {"locust", "gevent", "pandas"},
    "calibration": {"locust", "gevent", "pandas"},
    "machine": {"locust", "gevent", "pandas"},
    "stage": {"locust", "pandas"},
    "option_values": {"locust", "gevent", "pandas"},
    "options": {"locust", "gevent", "pandas"},
    "runtime": {"locust", "pandas"},
    "endpoint": {"locust", "gevent", "pandas"},
    "reports": {"locust", "gevent", "geventhttpclient", "openai", "boto3"},
}


def sources() -> Iterator[Path]:
    for folder in ("llm_users", "reports", "locustfiles"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, wherever in it; names of our own submodules are resolved."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where an arrow points"
            assert node.module is not None
            for alias in node.names:
                inside = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = inside.is_dir() or inside.with_suffix(".py").is_file()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return frozenset(found)


def room_of(module: str) -> str:
    parts = module.split(".")
    room = parts[1] if parts[0] == "llm_users" and len(parts) > 1 else parts[0]
    return "extension" if room == "wiring" else room  # the folder of what ``extension`` ties together


def test_arrows_run_downwards_only() -> None:
    wrong = [
        f"{module} imports {used}"
        for path in sources()
        if (module := module_of(path)).split(".")[0] == "llm_users"
        for used in imports(path)
        if used.startswith("llm_users.")
        and room_of(used) != room_of(module)
        and room_of(used) not in MAY_IMPORT.get(room_of(module), set())
        and (module, used) not in EXCEPTIONS
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_its_rule() -> None:
    rooms = {room_of(module_of(path)) for path in sources()} - {"llm_users", "reports", "locustfiles"}
    assert rooms <= set(MAY_IMPORT), "a new room needs its arrows in MAY_IMPORT"


def test_exceptions_are_still_needed() -> None:
    real = {(module_of(path), used) for path in sources() for used in imports(path)}
    assert real >= EXCEPTIONS


def test_rooms_do_not_know_what_is_not_theirs() -> None:
    wrong = [
        f"{module_of(path)} imports {used}"
        for path in sources()
        for used in imports(path)
        if used.split(".")[0] in FORBIDDEN.get(room_of(module_of(path)), set())
    ]
    assert not wrong, "\n".join(wrong)


def test_the_report_side_sees_only_what_is_plain_data_or_arithmetic() -> None:
    used = {name for path in (ROOT / "reports").rglob("*.py") for name in imports(path) if name.startswith("llm_users")}
    plain = {"arrivals", "digits", "prices", "quantile", "record"}
    assert used <= {f"llm_users.{name}" for name in plain}


def test_only_the_wiring_calls_the_report_side() -> None:
    callers = {
        module_of(path)
        for path in (ROOT / "llm_users").rglob("*.py")
        if any(name.split(".")[0] == "reports" for name in imports(path))
    }
    assert callers
    assert {room_of(module) for module in callers} <= {"extension"}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import llm_users", {"locust", "gevent", "pandas", "openai", "msgspec", "transformers"}),
        ("import llm_users.record", {"locust", "gevent", "pandas", "openai", "transformers"}),
        ("import llm_users.simulator.main", {"locust", "gevent", "pandas", "openai", "transformers"}),
        ("import reports", {"locust", "gevent", "pandas"}),
        ("import reports; reports.load, reports.tables", {"locust", "gevent", "openai"}),
        ("from llm_users import OpenAIUser", {"pandas", "transformers", "torch"}),
    ],
)
def test_what_an_import_must_not_load(statement: str, absent: set[str]) -> None:
    assert not loaded_by(statement) & absent


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    return set(json.loads(run_python(code)))


def test_the_extension_registers_once_however_often_it_is_imported() -> None:
    counts = run_python(
        "import importlib, sys\n"
        "import locust\n"
        "def handlers():\n"
        "    e = locust.events\n"
        "    return [len(e.init._handlers), len(e.init_command_line_parser._handlers)]\n"
        "before = handlers()\n"
        "from llm_users import OpenAIUser, LLMUser\n"
        "once = handlers()\n"
        "import llm_users, llm_users.extension\n"
        "llm_users.OpenAIUser\n"
        "importlib.reload(llm_users.extension)\n"
        "print(before != once, once == handlers())"
    )
    assert counts.split() == ["True", "True"]


def test_exported_users_are_abstract() -> None:
    # A User class that is not becomes active by its mere presence in a locustfile.
    assert (
        run_python("import llm_users; print(llm_users.OpenAIUser.abstract, llm_users.LLMUser.abstract)") == "True True"
    )


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_files_are_named_after_what_they_hold() -> None:
    meaningless = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}
    wrong = [path for path in sources() if path.stem in meaningless or path.stem.startswith("base_")]
    assert not wrong
    # A locustfile's folder is put at the front of sys.path: it would shadow the package of that name.
    assert not {path.stem for path in (ROOT / "locustfiles").glob("*.py")} & {"openai", "boto3", "locust", "reports"}


def test_locustfiles_can_be_read_in_a_minute() -> None:
    assert all(len(path.read_text().splitlines()) <= 60 for path in (ROOT / "locustfiles").glob("*.py"))
