"""What deploy/ says, taken apart: documents, and the processes that an engine would start for them.

The operators' rules (what they add to which arguments) are written down here from their sources; no engine is asked.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.project import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = DEPLOY / "compose.yaml"
SECRET = "made-up-key-for-tests"
ENDPOINT = "https://endpoint.example/v1"
_VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


@dataclass
class Process:
    """One container: its role, its arguments, its environment, the names of its secret files."""

    role: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    secret_files: list[str] = field(default_factory=list)
    replicas: int = 1


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def of_kind(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in KUBERNETES:
        for document in documents(path):
            if document["kind"] == kind:
                yield path.name, document


def the(kind: str, name: str, file: str) -> dict[str, Any]:
    (found,) = (document for path, document in of_kind(kind) if path == file and document["metadata"]["name"] == name)
    return found


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Compose's ``${NAME:-default}`` and ``${NAME:?message}`` in every text of a document; they stay texts.

    Raises ``AssertionError`` for a variable that has to be given, and for any other form of ``$``.
    """
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def put_in(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        given = variables.get(name, "")
        assert given or kind == "-", f"{name}: {rest}"
        return given or rest

    assert value.count("$") == len(_VARIABLE.findall(value)), f"a form of interpolation that is not known: {value}"
    return _VARIABLE.sub(put_in, value)


def compose_file(**variables: str) -> dict[str, Any]:
    return dict(interpolate(yaml.safe_load(COMPOSE.read_text()), {"LLM_HOST": ENDPOINT, **variables}))


def compose_services(*, profile: str | None = None, **variables: str) -> dict[str, dict[str, Any]]:
    """The services that start with a profile only, or those that always start."""
    services = compose_file(**variables)["services"]
    wanted = [] if profile is None else [profile]
    return {name: service for name, service in services.items() if service.get("profiles", []) == wanted}


def compose_processes(**variables: str) -> list[Process]:
    return [
        Process(name, service["command"], service.get("environment", {}), service.get("secrets", []),
                service["deploy"].get("replicas", 1))
        for name, service in compose_services(**variables).items()
    ]  # fmt: skip


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    return dict(job["spec"]["template"]["spec"])


def job_processes(*, with_secret: bool = True) -> list[Process]:
    """The Jobs of jobs.yaml, in a cluster with or without the Secret."""
    return [_process_of(the("Job", f"llm-{role}", "jobs.yaml"), role, with_secret) for role in ("master", "worker")]


def _process_of(job: dict[str, Any], role: str, with_secret: bool = True) -> Process:
    (container,) = pod_of(job)["containers"]
    environment = {}
    for source in container.get("envFrom", []):
        environment |= the("ConfigMap", source["configMapRef"]["name"], "jobs.yaml")["data"]
    for variable in container.get("env", []):
        assert set(variable["valueFrom"]) == {"secretKeyRef"}
        if with_secret:
            environment[variable["name"]] = SECRET
        else:
            # Kubernetes does not start a container whose Secret is missing and required.
            assert variable["valueFrom"]["secretKeyRef"].get("optional") is True, variable
    return Process(role, container["args"], environment, replicas=job["spec"].get("parallelism", 1))


def operator_processes() -> list[Process]:
    """What Locust's own operator starts: the same arguments for both roles, split as a shell does."""
    test = the("LocustTest", "llm-sweep", "locusttest.yaml")
    arguments = shlex.split(test["spec"]["args"])
    return [
        Process("master", ["--master", *arguments]),
        Process(
            "worker", ["--worker", "--master-host", "llm-sweep-master", *arguments], replicas=test["spec"]["workers"]
        ),
    ]


def operator_v2_jobs() -> dict[str, dict[str, Any]]:
    """The Jobs that the other operator makes of locusttest-v2.yaml, by role."""
    return {role: _operator_v2_job(role) for role in ("master", "worker")}


def _operator_v2_job(role: str) -> dict[str, Any]:
    test = the("LocustTest", "llm-sweep", "locusttest-v2.yaml")
    spec = test["spec"]
    workers = spec["worker"]["replicas"]
    own = spec[role]["command"].split()
    if role == "master":
        assert not spec["master"]["autostart"]
        assert not spec["master"]["autoquit"]["enabled"]
        added = [
            "--master",
            "--master-port=5557",
            f"--expect-workers={workers}",
            "--enable-rebalancing",
            "--only-summary",
        ]
    else:
        added = ["--worker", "--master-port=5557", "--master-host=llm-sweep-master"]
    mounts = [
        {key: value for key, value in mount.items() if key != "target"}
        for mount in spec["volumeMounts"]
        if mount["target"] in (role, "both")
    ]
    container = {
        "name": f"llm-sweep-{role}",
        "image": spec["image"],
        "imagePullPolicy": spec["imagePullPolicy"],
        "args": [*own, *added],
        "env": spec["env"]["variables"],
        "resources": spec[role]["resources"],
        "securityContext": spec["security"]["containerSecurityContext"],
        "volumeMounts": mounts,
    }
    named = {mount["name"] for mount in mounts}
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [volume for volume in spec["volumes"] if volume["name"] in named],
        "securityContext": spec["security"]["podSecurityContext"],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"llm-sweep-{role}"},
        "spec": {"parallelism": 1 if role == "master" else workers, "template": {"spec": pod}},
    }


def operator_v2_processes(*, with_secret: bool = True) -> list[Process]:
    return [_process_of(job, role, with_secret) for role, job in operator_v2_jobs().items()]
