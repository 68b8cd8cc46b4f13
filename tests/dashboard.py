"""The dashboard of `deploy/grafana/`: its panels, and the names and labels in its expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.project import ROOT

FILE = ROOT / "deploy" / "grafana" / "dashboards" / "locust-llm.json"
_SELECTOR = re.compile(r"\b(locust_llm_\w+)(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\bby \(([^)]*)\)")


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def expressions() -> Iterator[tuple[str, str]]:
    """(Title of the panel or variable, expression in PromQL), with values in place of the variables."""
    content = dashboard()
    for panel in content["panels"]:
        for target in panel["targets"]:
            yield panel["title"], with_values(target["expr"])
    for annotation in content["annotations"]["list"]:
        yield annotation["name"], with_values(annotation["expr"])


def with_values(expression: str) -> str:
    for variable, value in {"$__rate_interval": "10s", "$__interval": "5s", "$job": ".*", "$model": ".*"}.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"an unknown variable: {expression}"
    return expression


def names_and_labels(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that the expression expects of it."""
    grouping = {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",")}
    found = []
    for name, selector in _SELECTOR.findall(expression):
        labels = {part.split("=")[0].strip(" !~") for part in selector.split(",") if part}
        found.append((name, labels | grouping))
    return found
