"""Compose file and Kubernetes manifests: valid by their schemas, in agreement with each other and with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import jsonschema
import kubernetes_validate
import pytest

import llm_users
from llm_users.options.table import OPTIONS
from tests.documented import PAGES
from tests.system.deploy.manifests import (
    COMPOSE,
    DEPLOY,
    KUBERNETES,
    ROOT,
    Process,
    compose_file,
    compose_processes,
    compose_services,
    documents,
    job_processes,
    of_kind,
    operator_processes,
    operator_v2_jobs,
    operator_v2_processes,
    pod_of,
    the,
)

FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
IMAGE = f"locust-llm:{llm_users.__version__}"
# backoffLimitPerIndex came with 1.28, and is on without being asked for since 1.29.
VERSIONS = ("1.29", "1.33", "1.37")
DEPLOYMENTS = {
    "compose": compose_processes,
    "jobs": job_processes,
    "operator": operator_processes,
    "operator_v2": operator_v2_processes,
}
USER = 10001
# Read, not imported: that module brings Locust along, which patches the interpreter.
_SOURCE = (ROOT / "llm_users" / "wiring" / "coordinator.py").read_text()
INTERRUPTED_GRACE_S = float(re.findall(r"^INTERRUPTED_GRACE_S = ([\d.]+)$", _SOURCE, flags=re.MULTILINE)[0])

_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_QUANTITIES = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
_ROLE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"requests": _QUANTITIES, "limits": _QUANTITIES},
        },
    },
}
_ROLE_V2 = {**_ROLE["properties"], "command": {"type": "string", "minLength": 1}, "extraArgs": {"type": "array"}}
# The fields of both operators' resources; what a resource of theirs does not know would be dropped without a word.
OPERATOR_SPECS: dict[str, dict[str, Any]] = {
    "locust.io/v1": {
        "type": "object",
        "additionalProperties": False,
        "required": ["workers"],
        "properties": {
            "annotations": _TEXTS,
            "labels": _TEXTS,
            "image": {"type": "string"},
            "imagePullPolicy": {"enum": ["IfNotPresent", "Always", "Never"]},
            "imagePullSecrets": {"type": "array", "items": {"required": ["name"]}},
            "workers": {"type": "integer", "minimum": 1},
            "args": {"type": "string"},
            "env": {
                "type": "array",
                "items": {"required": ["name"], "additionalProperties": False, "properties": {"name": {}, "value": {}}},
            },
            "master": _ROLE,
            "worker": _ROLE,
            "locustfile": {
                "type": "object",
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
                "properties": {"content": {"type": "string"}, "configMap": {"required": ["name"]}},
            },
            "metrics": {"properties": {"intervalSeconds": {"type": "integer"}}},
        },
    },
    "locust.io/v2": {
        "type": "object",
        "additionalProperties": False,
        "required": ["image", "master", "worker"],
        "properties": {
            "image": {"type": "string"},
            "imagePullPolicy": {"enum": ["IfNotPresent", "Always", "Never"]},
            "imagePullSecrets": {"type": "array"},
            "master": {
                "type": "object",
                "additionalProperties": False,
                "required": ["command"],
                "properties": {
                    **_ROLE_V2,
                    "autostart": {"type": "boolean"},
                    "autoquit": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {"enabled": {"type": "boolean"}, "timeout": {"type": "integer", "minimum": 0}},
                    },
                },
            },
            "worker": {
                "type": "object",
                "additionalProperties": False,
                "required": ["command", "replicas"],
                "properties": {**_ROLE_V2, "replicas": {"type": "integer", "minimum": 1, "maximum": 500}},
            },
            "testFiles": {"type": "object"},
            "scheduling": {"type": "object"},
            "env": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "configMapRefs": {},
                    "secretRefs": {},
                    "variables": {"type": "array"},
                    "secretMounts": {},
                },
            },
            "volumes": {"type": "array"},
            "volumeMounts": {
                "type": "array",
                "items": {"properties": {"target": {"enum": ["master", "worker", "both"]}}},
            },
            "security": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"podSecurityContext": {}, "containerSecurityContext": {}},
            },
            "observability": {"type": "object"},
        },
    },
}


def processes() -> list[tuple[str, Process]]:
    return [(name, process) for name, deployment in DEPLOYMENTS.items() for process in deployment()]


def pods() -> dict[str, dict[str, Any]]:
    """The pod of every Job, Pod and custom resource that says what its pod is like."""
    found = {document["metadata"]["name"]: pod_of(document) for _, document in of_kind("Job")}
    found |= {f"v2 {role}": pod_of(job) for role, job in operator_v2_jobs().items()}
    found |= {document["metadata"]["name"]: document["spec"] for _, document in of_kind("Pod")}
    return found


# Schemas.


@pytest.mark.parametrize("version", VERSIONS)
def test_what_kubernetes_knows_is_valid(version: str) -> None:
    known = [d for path in KUBERNETES for d in documents(path) if not d["apiVersion"].startswith("locust.io/")]
    assert {d["kind"] for d in known} == {
        "ConfigMap",
        "Job",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "Service",
    }
    for document in [*known, *operator_v2_jobs().values()]:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_would_find_a_field_that_does_not_exist() -> None:
    job = the("Job", "llm-worker", "jobs.yaml")
    job["spec"]["backofLimitPerIndex"] = job["spec"].pop("backoffLimitPerIndex")
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimitPerIndex"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_custom_resources_have_the_fields_of_their_operators() -> None:
    found = [document for _, document in of_kind("LocustTest")]
    assert {document["apiVersion"] for document in found} == set(OPERATOR_SPECS)
    for document in found:
        jsonschema.validate(document["spec"], OPERATOR_SPECS[document["apiVersion"]])


def test_the_compose_file_is_valid() -> None:
    options = compose_spec.PyOptions()
    options.apply_merge = True
    parsed = options.from_yaml(COMPOSE.read_text())
    parsed.validate()
    assert sorted(parsed.service_names()) == ["grafana", "master", "prometheus", "worker"]
    with pytest.raises(ValueError, match="stop_grace_periode"):
        options.from_yaml(COMPOSE.read_text().replace("stop_grace_period", "stop_grace_periode", 1))


# Agreement with the package and among the files.


def test_every_option_that_is_written_exists() -> None:
    flags = {option.flag for option in OPTIONS}
    variables = {option.variable for option in OPTIONS}
    for path in FILES:
        text = path.read_text()
        assert set(re.findall(r"--llm-[a-z-]*[a-z]", text)) <= flags, path
        assert set(re.findall(r"LOCUST_LLM_[A-Z_]+", text)) <= variables, path
        assert {f"--{name}" for name in re.findall(r"^(llm-[a-z-]+) =", text, flags=re.MULTILINE)} <= flags, path


def test_one_image_everywhere_named_after_the_version() -> None:
    others = {service["image"] for service in compose_services(profile="monitoring").values()}
    assert all(re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", image) for image in others), "versions are pinned"
    for path in FILES:
        images = re.findall(r"(?:image: |--tag )(\S+)", path.read_text())
        assert set(images) <= {IMAGE, *others}, path
    assert {container["image"] for pod in pods().values() for container in pod["containers"]} == {IMAGE}


@pytest.mark.parametrize("name", ["job.yaml", "jobs.yaml"])
def test_the_commands_in_the_header_of_a_job_are_those_of_the_page(name: str) -> None:
    page = PAGES["docs/deploy.md"].splitlines()
    header = (DEPLOY / "kubernetes" / name).read_text().partition("apiVersion")[0]
    commands = [line.partition("   # ")[0].rstrip() for line in re.findall(r"^#     (.*)$", header, re.MULTILINE)]
    assert len(commands) >= 3
    assert [command for command in commands if command not in page] == []


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_master_expects_as_many_workers_as_there_are(name: str) -> None:
    master, worker = DEPLOYMENTS[name]()
    words = " ".join(master.arguments).replace("=", " ").split()
    assert int(words[words.index("--expect-workers") + 1]) == worker.replicas == 4


def test_indexed_workers_are_all_there_at_once() -> None:
    spec = the("Job", "llm-worker", "jobs.yaml")["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", spec["parallelism"])


def test_workers_call_the_master_by_the_name_it_has() -> None:
    service = the("Service", "llm-master", "jobs.yaml")
    (worker,) = (process for process in job_processes() if process.role == "worker")
    assert worker.arguments[worker.arguments.index("--master-host") + 1] == service["metadata"]["name"]
    labels = the("Job", "llm-master", "jobs.yaml")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (worker,) = (process for process in compose_processes() if process.role == "worker")
    assert worker.arguments[worker.arguments.index("--master-host") + 1] in compose_file()["services"]


def test_the_network_policy_lets_the_workers_in() -> None:
    policy = the("NetworkPolicy", "llm-master", "jobs.yaml")["spec"]
    labels = {
        role: the("Job", f"llm-{role}", "jobs.yaml")["spec"]["template"]["metadata"]["labels"]
        for role in ("master", "worker")
    }
    assert policy["podSelector"]["matchLabels"].items() <= labels["master"].items()
    assert policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= labels["worker"].items()


def test_ports_are_the_documented_ones() -> None:
    page = (ROOT / "docs" / "distributed.md").read_text()
    assert "| 5557 | the master" in page
    assert "| 8089 | the master" in page
    assert re.search(r"^EXPOSE 8089 5557$", (DEPLOY / "Containerfile").read_text(), flags=re.MULTILINE)
    (port,) = the("Service", "llm-master", "jobs.yaml")["spec"]["ports"]
    (container,) = pod_of(the("Job", "llm-master", "jobs.yaml"))["containers"]
    assert port["port"] == 5557
    assert {p["name"]: p["containerPort"] for p in container["ports"]} == {port["targetPort"]: 5557}
    assert container["readinessProbe"]["tcpSocket"]["port"] == port["targetPort"]
    master = compose_file()["services"]["master"]
    assert master["ports"] == ["127.0.0.1:8089:8089"], "for this machine only"
    assert "('127.0.0.1', 5557)" in master["healthcheck"]["test"][-1]


def test_result_files_end_in_a_volume() -> None:
    for name in ("compose", "jobs", "operator_v2"):
        master = DEPLOYMENTS[name]()[0]
        assert master.arguments[master.arguments.index("--csv") + 1].startswith("/results/"), name
    (single,) = pods()["llm-test"]["containers"]
    assert single["args"][single["args"].index("--csv") + 1].startswith("/results/")
    assert "--llm-report" in single["args"]
    for name in ("llm-test", "llm-master", "v2 master", "llm-results"):
        pod = pods()[name]
        (volume,) = (m["name"] for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/results")
        (claim,) = (v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if v["name"] == volume)
        assert claim == "llm-results"
    # kubectl leaves a claim that exists as it is, so both files can be applied in one namespace.
    assert the("PersistentVolumeClaim", claim, "job.yaml") == the("PersistentVolumeClaim", claim, "jobs.yaml")
    for service in compose_services().values():
        assert service["volumes"] == ["results:/results"]


# Safety.


def test_no_key_is_written_and_only_those_who_need_one_get_it() -> None:
    for path in FILES:
        assert not re.search(r"sk-\w{8}|[A-Z_]*(KEY|TOKEN|SECRET|PASSWORD)[A-Z_]*: *[\"']?\w{12}", path.read_text()), (
            path
        )
    assert not list(of_kind("Secret")), "a Secret in a file is a key in a file"
    for name, process in processes():
        has_key = "OPENAI_API_KEY" in {*process.environment, *process.secret_files}
        assert has_key == ((process.role == "worker" and name != "operator") or name == "operator_v2"), (
            name,
            process.role,
        )
    for _, document in of_kind("ConfigMap"):
        assert all(name.startswith("LOCUST_") for name in document["data"])


def test_nothing_runs_as_root_or_may_become_it() -> None:
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == USER
        for container in pod["containers"]:
            own = container["securityContext"]
            assert not own["allowPrivilegeEscalation"]
            assert own["readOnlyRootFilesystem"]
            assert own["capabilities"]["drop"] == ["ALL"]
    for service in compose_file()["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert not service.get("privileged")


def test_everything_is_limited_and_has_time_to_end() -> None:
    for name, pod in pods().items():
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
    for name in ("llm-master", "llm-worker"):
        assert pods()[name]["terminationGracePeriodSeconds"] >= 3 * INTERRUPTED_GRACE_S
        assert not pods()[name]["automountServiceAccountToken"]
        assert not pods()[name]["enableServiceLinks"], "LLM_MASTER_PORT=tcp://... and the like stay out"
    for service in compose_file()["services"].values():
        assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys()
    for service in compose_services().values():
        assert int(service["stop_grace_period"].removesuffix("s")) >= 3 * INTERRUPTED_GRACE_S


def test_the_page_names_every_file_and_variable() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    for path in FILES:
        assert str(path.relative_to(ROOT)) in page, path
    for variable in set(re.findall(r"\$\{(\w+):", COMPOSE.read_text())):
        assert f"`{variable}`" in page, variable
    assert f"locust-llm:{llm_users.__version__}" in page


def test_the_examples_in_comments_keep_the_job_valid() -> None:
    """A variable can occur only once in a container, so the comment on a search says to replace the sweep."""
    text = (DEPLOY / "kubernetes" / "job.yaml").read_text()
    assert "replace the\n            # LOCUST_LLM_SWEEP above" in text
    (container,) = pod_of(the("Job", "llm-test", "job.yaml"))["containers"]
    names = [variable["name"] for variable in container["env"]]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", ["docs/deploy.md", "deploy/kubernetes/job.yaml", "deploy/kubernetes/jobs.yaml"])
def test_the_log_is_followed_without_a_race_against_the_pod(path: str) -> None:
    """``kubectl wait`` on a label fails while no pod has it; ``kubectl logs`` on the Job waits for the pod."""
    text = (ROOT / path).read_text()
    assert not re.search(r"kubectl wait .* pod -l", text)
    follows = re.findall(r"kubectl logs -f .*", text)
    assert follows
    assert all(line.endswith("--pod-running-timeout=5m") for line in follows)


def test_configuration_examples_say_the_same() -> None:
    with (DEPLOY / "locust.toml").open("rb") as file:
        section = tomllib.load(file)["tool"]["locust"]
    lines = [line for line in Path(DEPLOY / "locust.conf").read_text().splitlines() if line and line[0] != "#"]
    plain = dict(line.split(" = ", 1) for line in lines)
    as_plain = {
        name: f"[{', '.join(value)}]"
        if isinstance(value, list)
        else str(value).lower()
        if value is True
        else str(value)
        for name, value in section.items()
    }
    assert plain == as_plain
