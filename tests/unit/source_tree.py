"""The source files of the product as module names, syntax trees and imports, for the tests of its structure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.project import ROOT


def sources() -> Iterator[Path]:
    """Every Python file that the distributions contain, ready-made locustfiles included."""
    for folder in ("llm_users", "reports/llm_reports", "locustfiles"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    """The dotted name under which a source file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "reports":
        parts = parts[1:]  # the folder that holds the package llm_reports
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def product_modules() -> dict[str, Path]:
    """The modules of ``llm_users`` and ``llm_reports``, by name."""
    paths = {module_of(path): path for path in sources()}
    return {name: path for name, path in paths.items() if name.split(".")[0] in {"llm_users", "llm_reports"}}


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, wherever in it; names of our own submodules are resolved."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where an arrow points"
            assert node.module is not None
            for alias in node.names:
                top = node.module.split(".")
                inside = (ROOT / "reports" if top[0] == "llm_reports" else ROOT).joinpath(*top, alias.name)
                is_module = inside.is_dir() or inside.with_suffix(".py").is_file()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return frozenset(found)
