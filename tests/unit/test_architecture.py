"""Who may import whom. The arrows run downwards only; what is light to import stays light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.project import ROOT
from tests.unit.source_tree import imports, module_of, sources

BASE = {
    "_version", "distributions", "number_words", "outcome", "prices", "quantile", "quota", "record", "run_files",
    "secrets", "server_metric", "verdict",
}  # fmt: skip

# Room -> the rooms of llm_users that it may import, besides those of BASE. BASE imports only itself.
MAY_IMPORT: dict[str, set[str]] = {
    "base": set(),
    "transport": set(),
    "prompts": set(),
    "simulator": set(),
    "server_metrics": {"transport"},
    "options": {"prompts"},
    "load.protocol": set(),
    "collect": {"load.protocol"},
    "load": {"load.protocol", "load.worker", "options", "prompts"},
    "load.worker": {"collect", "load", "load.protocol", "options", "prompts", "transport"},
    "load.coordinator": {"collect", "load", "load.protocol", "options", "prompts"},
    "users": {"load.worker", "options", "prompts", "transport"},
    "web": {"collect", "load.protocol", "options"},
    "otel": set(),
    "calibration": {"collect", "options", "simulator"},
    "quick": {"calibration", "options", "simulator", "transport"},
    "extension": {
        "calibration", "collect", "load", "load.coordinator", "load.protocol", "load.worker", "options", "otel",
        "prompts", "quick", "server_metrics", "simulator", "transport", "users", "web",
    },
    "cli": {"calibration", "extension", "options", "quick"},
}  # fmt: skip

# Single arrows against the rule, and why.
EXCEPTIONS = {
    # An endpoint that does not list its models is told with the classification that requests have; there is only one.
    ("llm_users.load.worker.process", "llm_users.users.failures"),
    # The simulated Bedrock frames its events with the codec that the client decodes them with; other implementations
    # check both (tests/unit/interop).
    ("llm_users.simulator.bedrock.wire", "llm_users.transport.eventstream"),
    # Before a stage the coordinator compares its load with what this machine could measure when it was calibrated.
    ("llm_users.load.coordinator.worker_pool", "llm_users.calibration.capacity"),
    # A locustfile that imports a User class needs nothing else: its import registers options and listeners, once.
    ("llm_users.users.llm", "llm_users.extension"),
}

# Room -> packages from outside that it must not know.
FORBIDDEN = {
    "base": {"locust", "gevent", "pandas"},
    "prompts": {"locust", "pandas"},
    "transport": {"locust", "pandas", "openai", "boto3"},
    "simulator": {"locust", "gevent", "pandas", "openai", "boto3"},
    "users": {"pandas", "csv", "pathlib", "flask"},
    "collect": {"locust", "pandas", "openai", "boto3"},
    "load": {"pandas", "openai", "boto3", "flask"},
    "load.protocol": {"locust", "gevent", "pandas"},
    "load.worker": {"pandas", "openai", "boto3", "flask"},
    "load.coordinator": {"pandas", "openai", "boto3", "flask"},
    "server_metrics": {"locust", "pandas", "openai", "boto3"},
    "web": {"locust", "pandas", "openai", "boto3"},
    "calibration": {"locust", "gevent", "pandas"},
    "quick": {"locust", "gevent", "pandas"},
    "options": {"locust", "gevent", "pandas"},
    "otel": {"pandas", "openai", "boto3", "flask"},
    "llm_reports": {"locust", "gevent", "geventhttpclient", "openai", "boto3"},
}


def room_of(module: str) -> str:
    parts = module.split(".")
    if parts[0] != "llm_users":
        return parts[0]
    if len(parts) == 1:
        return "face"
    if parts[1] in BASE:
        return "base"
    if parts[1] == "load" and len(parts) > 2 and parts[2] in {"protocol", "worker", "coordinator"}:
        return f"load.{parts[2]}"
    return "extension" if parts[1] == "wiring" else parts[1]  # the folder of what ``extension`` ties together


def test_arrows_run_downwards_only() -> None:
    wrong = sorted(
        f"{module} imports {used}"
        for path in sources()
        if (module := module_of(path)).split(".")[0] == "llm_users" and module != "llm_users"
        for used in imports(path)
        if used.startswith("llm_users.")
        and room_of(used) not in {"base", room_of(module), *MAY_IMPORT[room_of(module)]}
        and (module, used) not in EXCEPTIONS
    )
    assert not wrong, "\n".join(wrong)


def test_every_room_has_its_rule() -> None:
    rooms = {room_of(module_of(path)) for path in sources()} - {"face", "llm_reports", "locustfiles"}
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
    used = {
        name
        for path in (ROOT / "reports" / "llm_reports").rglob("*.py")
        for name in imports(path)
        if name.startswith("llm_users")
    }
    assert used <= {f"llm_users.{name}" for name in BASE}


def test_only_the_wiring_calls_the_report_side() -> None:
    callers = {
        module_of(path)
        for path in (ROOT / "llm_users").rglob("*.py")
        if any(name.split(".")[0] == "llm_reports" for name in imports(path))
    }
    assert callers
    assert {room_of(module) for module in callers} <= {"extension"}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import llm_users", {"locust", "gevent", "pandas", "openai", "msgspec", "transformers"}),
        ("import llm_users.record", {"locust", "gevent", "pandas", "openai", "transformers"}),
        ("import llm_users.simulator.main", {"locust", "gevent", "pandas", "openai", "transformers"}),
        ("import llm_reports", {"locust", "gevent", "pandas"}),
        ("import llm_reports; llm_reports.load, llm_reports.tables", {"locust", "gevent", "openai"}),
        ("import llm_reports.end_of_run", {"locust", "gevent", "pandas"}),
        ("import llm_reports.metrics.steadiness", {"locust", "gevent", "pandas"}),  # a run calls it after each stage
        # A master imports the user classes too, and sends no requests.
        (
            "from llm_users import OpenAIUser",
            {"openai", "boto3", "botocore", "pandas", "transformers", "torch", "opentelemetry"},
        ),
        ("from llm_users import AnthropicUser", {"openai", "boto3", "botocore", "pandas", "transformers"}),
        ("from llm_users import BedrockUser", {"openai", "pandas", "transformers"}),
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


@pytest.mark.parametrize("name", ["OpenAIUser", "AnthropicUser", "BedrockUser"])
def test_the_interpreter_is_patched_before_an_sdk_imports_ssl(name: str) -> None:
    # Otherwise gevent warns of errors, and the import takes twice as long.
    run_python(
        f"import warnings\nwarnings.filterwarnings('error', message='Monkey-patching')\nfrom llm_users import {name}"
    )


@pytest.mark.parametrize("package", ["llm_users", "llm_reports"])
def test_dir_lists_the_public_names_without_loading_them(package: str) -> None:
    listed = run_python(
        f"import sys, {package}\n"
        f"assert set({package}.__all__) <= set(dir({package}))\n"
        "assert not {'locust', 'pandas'} & set(sys.modules)\n"
        f"print(*dir({package}))"
    )
    assert {"llm_users": "OpenAIUser", "llm_reports": "compare_runs"}[package] in listed.split()
    assert "TYPE_CHECKING" not in listed.split()


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
    meaningless = {
        "base", "common", "functions", "general", "helper", "helpers", "lib", "misc", "shared", "stuff", "tools",
        "util", "utilities", "utils",
    }  # fmt: skip
    folders = {path.parent for path in sources()}
    assert not [
        place for place in {*sources(), *folders} if place.stem in meaningless or place.stem.startswith("base_")
    ]
    # A locustfile's folder is put at the front of sys.path: it would shadow the package of that name.
    assert not {path.stem for path in (ROOT / "locustfiles").glob("*.py")} & {"openai", "boto3", "locust", "reports"}


def test_folders_can_be_overseen() -> None:
    assert len(list((ROOT / "llm_users").glob("*.py"))) <= 15
    for folder in {path.parent for path in (ROOT / "reports" / "llm_reports").rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= 16, folder


def test_locustfiles_can_be_read_in_a_minute() -> None:
    assert all(len(path.read_text().splitlines()) <= 60 for path in (ROOT / "locustfiles").glob("*.py"))
