"""HTML elements as text. All text from files or servers goes through ``escaped``; only this module creates markup."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from llm_reports.markdown.text import plain

NOTHING = "-"
_LONG = 20  # letters; a longer column name may wrap, but not at every word


class Markup(str):
    """Text that is already HTML. All other values are escaped when they are put into an element."""

    __slots__ = ()


def escaped(value: object) -> str:
    """Return a value as HTML text: ``Markup`` unchanged, ``None`` as a dash, control characters as spaces."""
    if isinstance(value, Markup):
        return value
    return NOTHING if value is None else html.escape(plain(str(value)))


def element(tag: str, content: object = "", **attributes: object) -> Markup:
    """Return an element. ``class_`` is class, ``data_label`` is data-label; ``True`` is an attribute without value."""
    given = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(plain(str(value)))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{tag}{given}>{escaped(content)}</{tag}>")


def joined(parts: Iterable[object], between: str = "\n") -> Markup:
    """Join several pieces into one."""
    return Markup(between.join(escaped(part) for part in parts))


def listed(texts: Iterable[object], class_: str = "notes") -> Markup:
    """Return a list element; empty markup when there are no items."""
    items = [element("li", text) for text in texts]
    return element("ul", joined(items), class_=class_) if items else Markup("")


def notes_list(texts: Iterable[object], most: int = 4) -> Markup:
    """Return the notes below a table; more than ``most`` are folded, so that the tables of many runs stay together."""
    notes = list(texts)
    list_element = listed(notes)
    return folded(f"{len(notes)} notes", list_element, class_="on-paper") if len(notes) > most else list_element


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    texts: Sequence[str] = (),
    id_: str = "",
    titled: bool = False,
) -> Markup:
    """Return a table in a box that scrolls horizontally; the first column contains the row headers.

    ``texts`` are the names of text columns. ``titled``: the table has a heading, so its caption is for screen readers
    only.
    """
    kinds = ["text" if name in texts else "" for name in header]
    body = []
    numeric = [True] * len(header)
    cells = [[escaped(value) for value in row] for row in rows]
    for row in cells:
        for i, cell in enumerate(row):
            numeric[i] = numeric[i] and (cell == NOTHING or _is_number(cell))
    classes = [
        kind or ("number" if is_number and cells else None) for kind, is_number in zip(kinds, numeric, strict=True)
    ]
    header_classes = [
        " ".join(filter(None, (kind, "long" if len(name) > _LONG else ""))) or None
        for kind, name in zip(classes, header, strict=True)
    ]
    for row in cells:
        line = [
            element("td" if i else "th", Markup(cell), class_=classes[i], scope=None if i else "row")
            for i, cell in enumerate(row)
        ]
        body.append(element("tr", joined(line, "")))
    head = joined(
        (element("th", name, scope="col", class_=kind) for name, kind in zip(header, header_classes, strict=True)), ""
    )
    content = joined(
        [
            element("caption", caption, class_="llm-sr" if titled else None),
            element("thead", element("tr", head)),
            element("tbody", joined(body)),
        ]
    )
    table_element = element("table", content, id=id_ or None)
    return element("div", table_element, class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(pairs: Mapping[str, object]) -> Markup:
    """Return a list of names and values, one pair per line; pairs without a value are omitted."""
    parts = [joined([element("dt", name), element("dd", value)], "") for name, value in pairs.items() if value]
    return element("dl", joined(parts), class_="facts")


def section(identity: str, title: str, *parts: object) -> Markup:
    """Return a section with its heading."""
    heading = element("h2", title, id=f"{identity}-title")
    return element("section", joined([heading, *parts]), id=identity, aria_labelledby=f"{identity}-title")


def folded(summary: str, *parts: object, class_: str = "") -> Markup:
    """Return a collapsed element that shows its parts when the user clicks its summary."""
    return element("details", joined([element("summary", summary), *parts]), class_=class_ or None)


def chart(identity: str, words: str) -> Markup:
    """Return the container of a chart; ``words`` describe it for screen readers and where scripts do not run."""
    return element("div", "", id=identity, data_label=words)


def figure(identity: str, words: str, *captions: str, words_id: str = "") -> Markup:
    """Return a figure with its description below it; with ``words_id``, a script can update the description."""
    first: object = element("span", words, id=words_id) if words_id else words
    caption = joined([first, *(text for text in captions if text)], " ")
    return element("figure", joined([chart(identity, words), element("figcaption", caption)]))


def choice(identity: str, label: str, options: Mapping[str, str], chosen: str = "") -> Markup:
    """Return a labelled selection; without ``chosen``, the first option is selected."""
    items = joined(
        (element("option", text, value=value, selected=value == chosen) for value, text in options.items()), ""
    )
    return element("label", joined([label, element("select", items, id=identity)]))


def check(identity: str, label: str, *, checked: bool = False) -> Markup:
    """Return a labelled check box."""
    box = Markup(f'<input type="checkbox" id="{identity}"{" checked" if checked else ""}>')
    return element("label", joined([box, label], " "), class_="check")


def controls(*parts: Markup) -> Markup:
    """Return a row of controls."""
    return element("div", joined(parts), class_="controls")


def number(value: float, decimals: int = 0, unit: str = "") -> str:
    """Return a number with the given number of decimals and its unit; a dash when it is not finite."""
    return f"{value:,.{decimals}f}{unit}" if math.isfinite(value) else NOTHING


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("%").replace(",", "").strip())
    except ValueError:
        return False
    return True
