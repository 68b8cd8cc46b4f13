"""HTML elements as text. Whatever comes from a file or a server goes through ``escaped``; markup is made here only."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from llm_reports.markdown.text import plain

NOTHING = "-"
_LONG = 20  # letters; the name of a column that is longer may be broken, but not at every word


class Markup(str):
    """Text that is HTML already. Everything else is escaped when it is put into an element."""

    __slots__ = ()


def escaped(value: object) -> str:
    """A value as HTML text; ``Markup`` as it is, ``None`` as a dash, control characters as spaces."""
    if isinstance(value, Markup):
        return value
    return NOTHING if value is None else html.escape(plain(str(value)))


def element(tag: str, content: object = "", **attributes: object) -> Markup:
    """One element. ``class_`` is class, ``data_label`` is data-label; ``True`` is an attribute without a value."""
    given = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(plain(str(value)))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{tag}{given}>{escaped(content)}</{tag}>")


def joined(parts: Iterable[object], between: str = "\n") -> Markup:
    """Several pieces one after the other."""
    return Markup(between.join(escaped(part) for part in parts))


def listed(texts: Iterable[object], class_: str = "notes") -> Markup:
    """A list; nothing at all when there is nothing to list."""
    items = [element("li", text) for text in texts]
    return element("ul", joined(items), class_=class_) if items else Markup("")


def notes_list(texts: Iterable[object], most: int = 4) -> Markup:
    """Notes under a table; more than ``most`` are folded, so that the tables of many runs stay together."""
    notes = list(texts)
    made = listed(notes)
    return folded(f"{len(notes)} notes", made, class_="on-paper") if len(notes) > most else made


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    texts: Sequence[str] = (),
    id_: str = "",
    titled: bool = False,
) -> Markup:
    """A table in a box that scrolls sideways; the first column heads its row.

    ``texts`` name columns of words. When the table is ``titled`` already, its caption is for screen readers only.
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
    heads = [
        " ".join(filter(None, (kind, "long" if len(name) > _LONG else ""))) or None
        for kind, name in zip(classes, header, strict=True)
    ]
    for row in cells:
        line = [
            element("td" if i else "th", Markup(cell), class_=classes[i], scope=None if i else "row")
            for i, cell in enumerate(row)
        ]
        body.append(element("tr", joined(line, "")))
    head = joined((element("th", name, scope="col", class_=kind) for name, kind in zip(header, heads, strict=True)), "")
    content = joined(
        [
            element("caption", caption, class_="llm-sr" if titled else None),
            element("thead", element("tr", head)),
            element("tbody", joined(body)),
        ]
    )
    made = element("table", content, id=id_ or None)
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(pairs: Mapping[str, object]) -> Markup:
    """Names and values, one pair a line; pairs without a value are left out."""
    parts = [joined([element("dt", name), element("dd", value)], "") for name, value in pairs.items() if value]
    return element("dl", joined(parts), class_="facts")


def section(identity: str, title: str, *parts: object) -> Markup:
    """A section under its heading."""
    heading = element("h2", title, id=f"{identity}-title")
    return element("section", joined([heading, *parts]), id=identity, aria_labelledby=f"{identity}-title")


def folded(summary: str, *parts: object, class_: str = "") -> Markup:
    """What is shown when its line is clicked."""
    return element("details", joined([element("summary", summary), *parts]), class_=class_ or None)


def chart(identity: str, words: str) -> Markup:
    """The place of a figure; ``words`` say what it shows, for screen readers and where no script runs."""
    return element("div", "", id=identity, data_label=words)


def figure(identity: str, words: str, *captions: str, words_id: str = "") -> Markup:
    """A figure with what it shows in words below it; ``words_id`` lets a script say what it shows later."""
    first: object = element("span", words, id=words_id) if words_id else words
    said = joined([first, *(each for each in captions if each)], " ")
    return element("figure", joined([chart(identity, words), element("figcaption", said)]))


def choice(identity: str, label: str, options: Mapping[str, str], chosen: str = "") -> Markup:
    """A labelled choice; without another one chosen, the first option is."""
    made = joined(
        (element("option", text, value=value, selected=value == chosen) for value, text in options.items()), ""
    )
    return element("label", joined([label, element("select", made, id=identity)]))


def check(identity: str, label: str, *, checked: bool = False) -> Markup:
    """A labelled check box."""
    box = Markup(f'<input type="checkbox" id="{identity}"{" checked" if checked else ""}>')
    return element("label", joined([box, label], " "), class_="check")


def controls(*parts: Markup) -> Markup:
    """A row of controls."""
    return element("div", joined(parts), class_="controls")


def number(value: float, decimals: int = 0, unit: str = "") -> str:
    """A number with so many decimals and its unit; a dash when there is none."""
    return f"{value:,.{decimals}f}{unit}" if math.isfinite(value) else NOTHING


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("%").replace(",", "").strip())
    except ValueError:
        return False
    return True
