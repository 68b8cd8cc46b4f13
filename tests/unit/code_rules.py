"""Rules about the structure of the code, and the violations that exist today.

Each rule returns its violations as a mapping from a name (an importing module, a private name, a literal) to modules.
``known_violations.txt`` lists the violations of today; ``test_rules.py`` compares both. Lines can
only be removed from that file: ``python -m tests.unit.code_rules`` removes those that are not needed any more.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from llm_users.load.protocol.messages import MESSAGES
from llm_users.record import CONVERSATION_COLUMNS, REQUEST_COLUMNS, STAGE_COLUMNS
from tests.unit.source_tree import imports, product_modules, tree_of

KNOWN = Path(__file__).with_name("known_violations.txt")

# What violates a rule (an importing module, a private name, a literal), and the modules concerned.
Violations = dict[str, frozenset[str]]

# Private names of other packages that the project also uses for something else: named tuples, Locust's event hooks.
NAMES_OF_OTHERS = {"_handlers", "_make"}

# Without ``name``, the name of a metric, which is also an attribute of JUnit's XML and a key of JSON files.
COLUMNS = {column.name for column in REQUEST_COLUMNS + STAGE_COLUMNS + CONVERSATION_COLUMNS} - {"name"}
RUN_FILE = re.compile(r"_llm_[a-z]+(?=\.|$)")

# In these rooms of llm_users a literal such as "output_tokens" is a key of an API or of a message, not a column.
ROOMS_OF_OTHER_KEYS = {"load", "options", "prompts", "simulator", "transport", "users"}


@cache
def import_cycles() -> Violations:
    """Modules that import each other in a circle, also in functions and under TYPE_CHECKING.

    An import of the own package's ``__init__`` does not count. Key: the importing module; value: what it imports of
    its cycle.
    """
    modules = product_modules()
    graph = {
        module: {used for used in imports(path) if used in modules and not f"{module}.".startswith(f"{used}.")}
        for module, path in modules.items()
    }
    return {
        module: frozenset(graph[module] & cycle)
        for cycle in _strong_components(graph)
        if len(cycle) > 1
        for module in cycle
    }


def _strong_components(graph: Mapping[str, set[str]]) -> Iterator[set[str]]:
    """Tarjan's algorithm: the largest sets of modules in which each one reaches each other one."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> Iterator[set[str]]:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for used in graph[module]:
            if used not in number:
                yield from visit(used)
                lowest[module] = min(lowest[module], lowest[used])
            elif used in stack:
                lowest[module] = min(lowest[module], number[used])
        if lowest[module] == number[module]:
            start = stack.index(module)
            yield set(stack[start:])
            del stack[start:]

    for module in graph:
        if module not in number:
            yield from visit(module)


@cache
def private_access() -> Violations:
    """Private members of classes and modules that another module reads, sets or imports. Key: the private name.

    ``self._name`` counts when only a base class in another module defines the name.
    """
    found: dict[str, set[str]] = defaultdict(set)
    modules = product_modules()
    names = set().union(*map(_defined_in, modules)) - NAMES_OF_OTHERS
    for module, path in modules.items():
        names_of_others = names - _defined_in(module)
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"llm_users", "llm_reports"}:
                for alias in node.names:
                    if _is_private(alias.name) and f"{node.module}.{alias.name}" not in modules:
                        found[alias.name].add(module)
            elif isinstance(node, ast.ClassDef):
                for name in _own_uses(node) - _members(node):
                    if any(name in inherited for inherited in _inherited(node, module)):
                        found[name].add(module)
            elif isinstance(node, ast.Attribute) and node.attr in names_of_others and not _is_self(node.value):
                found[node.attr].add(module)
    return _frozen(found)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_self(node: ast.expr) -> bool:
    is_super = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return is_super or (isinstance(node, ast.Name) and node.id in {"self", "cls"})


@cache
def _defined_in(module: str) -> set[str]:
    """Private names of functions, classes, variables and attributes that a module defines."""
    return _members(tree_of(product_modules()[module]))


def _members(scope: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(scope):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names.add(node.attr)
    return {name for name in names if _is_private(name)}


def _own_uses(class_: ast.ClassDef) -> set[str]:
    attributes = (node for node in ast.walk(class_) if isinstance(node, ast.Attribute) and _is_self(node.value))
    return {node.attr for node in attributes if _is_private(node.attr)}


@cache
def _classes() -> dict[str, list[tuple[str, ast.ClassDef]]]:
    """Every class of the product with its module, by the class's name."""
    classes: dict[str, list[tuple[str, ast.ClassDef]]] = defaultdict(list)
    for module, path in product_modules().items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append((module, node))
    return classes


def _inherited(class_: ast.ClassDef, module: str) -> Iterator[set[str]]:
    """The private members of the base classes that are not in this module."""
    for base in class_.bases:
        name = ast.unparse(base).split("[")[0].split(".")[-1]
        for place, definition in _classes().get(name, []):
            if definition is not class_ and (place == module or place in imports(product_modules()[module])):
                if place != module:
                    yield _members(definition)
                yield from _inherited(definition, place)


@cache
def message_literals() -> Violations:
    """Names of messages that a module of llm_users spells. The name of a message is that of its class."""
    names = {message_type.kind for message_type in MESSAGES}
    return _places_of(lambda text: {text} & names, lambda module: module.startswith("llm_users"), fewest=1)


@cache
def run_file_literals() -> Violations:
    """The endings of a run's files, such as ``_llm_requests``, that more than one module spells."""
    return _places_of(lambda text: set(RUN_FILE.findall(text)), lambda _: True)


@cache
def column_literals() -> Violations:
    """Names of columns that more than one module spells.

    Outside of the report package only names with an underscore count: ``model`` and the like are keys of many things.
    """

    def columns_in(text: str) -> set[str]:
        return {text} & COLUMNS

    reports = _places_of(columns_in, lambda module: module.startswith("llm_reports"), fewest=1)
    users = _places_of(
        lambda text: {name for name in columns_in(text) if "_" in name},
        lambda module: module.startswith("llm_users.") and module.split(".")[1] not in ROOMS_OF_OTHER_KEYS,
        fewest=1,
    )
    places = {name: reports.get(name, frozenset()) | users.get(name, frozenset()) for name in {*reports, *users}}
    return {name: modules for name, modules in places.items() if len(modules) > 1}


def _places_of(names_in: Callable[[str], set[str]], counts: Callable[[str], bool], fewest: int = 2) -> Violations:
    """Names in the string literals of the modules that count, where at least ``fewest`` modules spell them."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in product_modules().items():
        if counts(module):
            for text in _literals(path):
                for name in names_in(text):
                    found[name].add(module)
    return {name: modules for name, modules in _frozen(found).items() if len(modules) >= fewest}


@cache
def _literals(path: Path) -> frozenset[str]:
    """The string literals of a file, parts of f-strings included, docstrings not."""
    tree = tree_of(path)
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in docstrings)
    return frozenset(node.value for node in constants if isinstance(node.value, str))


def _frozen(found: Mapping[str, set[str]]) -> Violations:
    return {name: frozenset(modules) for name, modules in found.items()}


RULES: dict[str, Callable[[], Violations]] = {
    "cycle": import_cycles,
    "private": private_access,
    "message": message_literals,
    "file": run_file_literals,
    "column": column_literals,
}


def known_violations() -> dict[str, Violations]:
    """The listed violations by rule. A line: rule, name, colon, modules; lines that are indented continue it."""
    known: dict[str, Violations] = {rule: {} for rule in RULES}
    text = re.sub(r"\n +", " ", KNOWN.read_text(encoding="utf-8"))
    for line in text.splitlines():
        if line and not line.startswith("#"):
            head, _, modules = line.partition(":")
            rule, name = head.split()
            assert name not in known[rule], f"{KNOWN.name} lists {rule} {name} twice"
            known[rule][name] = frozenset(modules.split())
    return known


def text_of(rule: str, violations: Violations) -> str:
    """Violations as lines of ``known_violations.txt``."""
    lines = (f"{rule} {name}: {' '.join(sorted(modules))}" for name, modules in sorted(violations.items()))
    return "\n".join(
        textwrap.fill(line, 120, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
        for line in lines
    )


def difference(some: Violations, others: Violations) -> Violations:
    """What ``some`` has and ``others`` does not have, module by module."""
    left = {name: modules - others.get(name, frozenset()) for name, modules in some.items()}
    return {name: modules for name, modules in left.items() if modules}


def shortened() -> str:
    """The text of ``known_violations.txt`` without the violations that do not exist any more."""
    comments = [line for line in KNOWN.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    parts = ["\n".join(comments)]
    for rule, known in known_violations().items():
        gone = difference(known, RULES[rule]())
        kept = text_of(rule, difference(known, gone))
        parts += [kept] if kept else []
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    KNOWN.write_text(shortened(), encoding="utf-8")
