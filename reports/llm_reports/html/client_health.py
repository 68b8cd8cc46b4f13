"""The sections about the load generator's health and about the configuration of the run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pandas import isna

from llm_reports.content import Content
from llm_reports.html.elements import Markup, element, facts, folded, joined, listed, number, section, table
from llm_reports.metrics.groups import NOT_WELL, Group, loads_of
from llm_reports.metrics.stage_load import loads_in_words
from llm_reports.run import Run
from llm_users.record import COL

_ORDER = (*reversed(NOT_WELL), "ok")
_VERDICTS = {
    "saturated": "The client was saturated: in some stages the load generator was the limit, and the figures include "
    "its delay. Add workers or lower the load before you trust these figures.",
    "disturbed": "The client was disturbed: in some stages other programs or a CPU limit took CPU time from the load "
    "generator, and the figures include its delay. Repeat these stages on a quieter machine or with dedicated cores.",
    "strained": "The client was strained in some stages: part of the tail may be the load generator's own delay.",
    "ok": "The client was healthy: the load generator kept up in every stage, so the figures show the endpoint.",
    "": "It is unknown whether the client kept up: the input does not contain figures of the load generator, or too "
    "few because its stages were measured for less than 2 s.",
}
_CLIENT = (
    (COL.client_cpu_share_max, "CPU of the busiest process (%)", 100, 0),
    ("others_cpu_share", "CPU of other programs (%)", 100, 0),
    ("steal_share", "CPU of other guests (%)", 100, 0),
    (COL.lag_p99_s, "Lag p99 (ms)", 1000, 2),
    ("lag_own_p99_s", "Own part of the lag p99 (ms)", 1000, 2),
    (COL.queue_p99_s, "Queue p99 (ms)", 1000, 2),
    (COL.forced_start_share, "Forced starts (%)", 100, 1),
    (COL.coalesced_share, "Coalesced chunks (%)", 100, 2),
    (COL.first_coalesced_share, "Coalesced first chunks (%)", 100, 2),
)
_SHOWN = {
    "llm_sweep",
    "llm_rate",
    "llm_arrivals",
    "llm_max_in_flight",
    "llm_overflow",
    "llm_requests",
    "llm_stage_time",
    "llm_warmup",
    "llm_input_tokens",
    "llm_output_tokens",
    "llm_seed",
}


def verdict(content: Content, labels: Sequence[str]) -> Markup:
    """Return the section with the worst verdict on the client over all stages and the figures that it is based on."""
    healths = {group.health for group in content.groups}
    worst = next((health for health in _ORDER if health in healths), "")
    if worst == "ok" and "" in healths:
        worst = ""
    concerned = [label for label, group in zip(labels, content.groups, strict=True) if group.health == worst]
    which = f"Marked {worst}: {'; '.join(concerned)}." if worst in NOT_WELL else ""
    lines = list(_client_rows(content.groups, labels))
    header = ("Stage", "Client", *(name for _, name, *_ in _CLIENT), "Stamps")
    return element(
        "section",
        joined(
            [
                element("h2", "Client health", id="health-title"),
                element("p", _VERDICTS[worst]),
                element("p", which) if which else "",
                folded("Figures of the load generator", table("Per stage, worst process", header, lines))
                if lines
                else "",
            ]
        ),
        id=COL.health,
        class_=f"health {worst or 'unknown'}",
        aria_labelledby="health-title",
    )


def configuration(content: Content) -> Markup:
    """Return the section that describes each run: its rows, the options that shape the load, and its manifest."""
    parts: list[object] = []
    for run in content.runs:
        manifest = run.manifest
        options = manifest.get("options")
        options_shown = {
            name.removeprefix("llm_").replace("_", " "): value
            for name, value in (options.items() if isinstance(options, dict) else ())
            if name in _SHOWN and value not in (None, "", [])
        }
        parts += [
            element("h3", run.name) if len(content.runs) > 1 else "",
            facts(
                {
                    **_of_rows(run),
                    COL.endpoint: manifest.get("host"),
                    **options_shown,
                    "clock": manifest.get("clock"),
                    "tokenizer": _name_of(manifest.get("tokenizer")),
                    "simulated": "yes: the endpoint was this project's simulator" if manifest.get("simulator") else "",
                }
            ),
        ]
        if manifest:
            text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
            lines = joined((element("code", line) for line in text.splitlines()), "\n")
            parts.append(folded("Complete manifest", element("pre", lines)))
    if content.warnings:
        parts += [element("h3", "Warnings"), listed(content.warnings)]
    return section("configuration", "Run", *parts)


def _of_rows(run: Run) -> dict[str, object]:
    rows = run.requests
    names = {
        called: ", ".join(sorted({str(name) for name in rows[column] if name}))
        for column, called in ((COL.framework, COL.framework), (COL.model, COL.model), (COL.api, "API"))
    }
    return {
        **names,
        "load": loads_in_words(loads_of(run)),
        "requests": f"{len(rows):,}, {run.measured:,} of them measured",
        "started": f"{run.started:%Y-%m-%d %H:%M:%S} UTC" if run.started is not None else "",
    }


def word(health: str) -> Markup:
    """Return a verdict as a coloured word."""
    return element("span", health, class_=f"word {health}") if health else Markup("-")


def _client_rows(groups: Sequence[Group], labels: Sequence[str]) -> Iterator[list[object]]:
    for group, label in zip(groups, labels, strict=True):
        stages = group.run.stages
        for _, stage in stages[stages[COL.stage] == group.stage].iterrows() if group.stage is not None else ():
            figures = [number(_float(stage[key]) * scale, places) for key, _, scale, places in _CLIENT]
            yield [label, word(group.health), *figures, stage[COL.stamp_source] or "-"]


def _float(value: Any) -> float:
    return float("nan") if isna(value) else float(value)


def _name_of(tokenizer: Any) -> object:
    return tokenizer.get("name") if isinstance(tokenizer, dict) else tokenizer
