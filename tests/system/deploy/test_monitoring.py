"""The files for Prometheus and Grafana agree with each other, with Compose and with the table of metrics."""

from __future__ import annotations

import itertools
from typing import Any

import yaml

from llm_users.web.prometheus import PROMETHEUS_METRICS
from tests.dashboard import FILE, dashboard, expressions, names_and_labels
from tests.system.deploy.manifests import DEPLOY, compose_services

GRAFANA = DEPLOY / "grafana"
SAMPLE_LABELS = {
    name: {*metric.labels, *labels}
    for metric in PROMETHEUS_METRICS
    for name, labels in (
        [(f"{metric.name}_bucket", ["le"]), (f"{metric.name}_sum", []), (f"{metric.name}_count", [])]
        if metric.type == "histogram"
        else [(metric.name, [])]
    )
}
ADDED_BY_PROMETHEUS = {"job", "instance"}


def read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / path).read_text())
    return content


def test_expressions_use_metrics_and_labels_that_exist() -> None:
    used = set()
    for title, expression in expressions():
        selectors = names_and_labels(expression)
        assert selectors, (title, expression)
        for name, labels in selectors:
            assert name in SAMPLE_LABELS, (title, name)
            assert labels <= SAMPLE_LABELS[name] | ADDED_BY_PROMETHEUS, (title, name, labels)
            used.add(name)
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            ((name, _),) = names_and_labels(variable["query"]["query"])
            assert variable["definition"] == variable["query"]["query"] == f"label_values({name}, {variable['name']})"
            assert variable["name"] in SAMPLE_LABELS[name] | ADDED_BY_PROMETHEUS
    assert {name for name in used if name.endswith("_bucket")} == {
        f"{m.name}_bucket" for m in PROMETHEUS_METRICS if m.type == "histogram"
    }


def test_the_panels_have_an_id_a_place_and_the_chosen_data_source() -> None:
    content = dashboard()
    panels = content["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) >= 10
    places = [(panel["title"], panel["gridPos"]) for panel in panels]
    for title, place in places:
        assert set(place) == {"x", "y", "w", "h"}, title
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, title
    for (one, a), (other, b) in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one} and {other} overlap"
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels:
        assert panel["type"] in {"timeseries", "stat", "table"}
        assert panel["datasource"] == source, panel["title"]
        assert all(target["datasource"] == source for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert panel["description"], panel["title"]
    variables = content["templating"]["list"]
    assert variables[0]["name"] == variables[0]["type"] == "datasource"
    assert variables[0]["query"] == "prometheus"
    assert content["id"] is None, "Grafana gives the number when it imports the file"
    assert content["schemaVersion"] >= 36
    assert content["uid"] == FILE.stem


def test_compose_mounts_what_prometheus_and_grafana_read() -> None:
    services = compose_services(profile="monitoring")
    assert set(services) == {"prometheus", "grafana"}
    mounted = {}
    for service in services.values():
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
                assert mode == ["ro"]
                mounted[target] = DEPLOY / source
    assert mounted["/etc/prometheus/prometheus.yml"].is_file()
    (provider,) = read("grafana/provisioning/dashboards/locust-llm.yml")["providers"]
    assert mounted[provider["options"]["path"]] == FILE.parent
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{FILE.name}"
    assert mounted["/etc/grafana/provisioning"] == GRAFANA / "provisioning"
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    config = read("prometheus/prometheus.yml")
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    (job,) = config["scrape_configs"]
    assert job["metrics_path"] == "/llm/metrics"
    assert job["static_configs"] == [{"targets": ["master:8089"]}]
    assert {"master"} <= compose_services().keys()


def test_only_this_machine_sees_prometheus_and_grafana_and_nobody_can_log_in() -> None:
    services = compose_services(profile="monitoring")
    ports = [port for service in services.values() for port in service["ports"]]
    assert sorted(ports) == ["127.0.0.1:3000:3000", "127.0.0.1:9090:9090"]
    settings = services["grafana"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert settings["GF_AUTH_BASIC_ENABLED"] == "false"
    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
