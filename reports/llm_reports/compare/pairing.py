"""The order of the requests of a stage, and their pairing with another run's by prompt index.

Requests are paired when the manifests show that the prompt lengths are the same.

Paired prompts can have different texts. Their lengths, caps and order follow from the seed and the options; the text
may differ between runs, so that the prompts of an earlier run are not in the server's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame

from llm_reports.llmperf.results import duration_s
from llm_reports.metrics.groups import Group, start_times
from llm_reports.metrics.outcomes import dropped
from llm_users.record import COL

PROMPT_OPTIONS = (
    "llm_seed", "llm_input_tokens", "llm_output_tokens", "llm_length_mix", "llm_prompt", "llm_prompts",
    "llm_prompts_order", "llm_shared_prefix", "llm_images", "llm_conversations", "llm_turns", "llm_trace",
    "llm_trace_window", "llm_trace_unit",
)  # fmt: skip
"""Options in the manifest that determine the lengths, caps and order of prompts."""
MOST_BIASED = 0.02
"""Largest difference between all input tokens of the paired prompts of both runs, as a share of the tokens.

Such a difference changes the times of the whole run, and pairing would count it as a change of the server. A larger one
still pairs when it is within ``CHANCE`` standard errors, because the texts of paired prompts differ. In 190 pairs of
equal runs of the simulator, which counts words, its standard deviation was 0.6 % with 20 prompts of 550 tokens and
0.14 % with 400; with prompts of 30 tokens it was 2.0 and 0.5 %.
"""
CHANCE = 3.0
"""Standard errors of the difference between all input tokens that chance explains.

Of the equal pairs above, 0.1 % of those with 20 prompts of 550 tokens were refused, and none with more prompts; with
prompts of 30 tokens 0.5 % (20 prompts) to 0 % (400), but 34 % to 0 % without this condition. A true difference of 3 %
was refused in 97 % of the pairs with 20 prompts of 550 tokens, and in all with 100; one of 10 % always.
"""
MOST_APART = 0.15
"""Largest mean difference between the input tokens of two paired prompts, regardless of its sign, as a share.

A server whose tokenizer is not the client's counts slightly different tokens for different texts of the same length. In
the equal pairs above, the mean difference was 1.9 % for prompts of 550 tokens, and 7.0 % for prompts of 30 tokens; with
20 prompts it was at most 3.3 and 13.9 %. It cancels over the run, and its spread is part of the intervals. Prompts of
LLMPerf's default lengths in a wrong order would differ by 31 % on average.
"""
_LEAST_COMMON = 0.8  # share of the smaller run; below, most prompts of a pair of blocks would be omitted


@dataclass(frozen=True)
class Pairing:
    """The rows of both runs in the order of their prompts; row i of both runs is the same prompt.

    ``rows`` is ``None`` when the runs cannot be paired; ``reason`` then states why. ``complete``: every measured
    request of both runs has a partner.
    """

    rows: tuple[DataFrame, DataFrame] | None
    complete: bool
    reason: str


def pairing(base: Group, other: Group) -> Pairing:
    """Pair the measured requests of two stages by prompt index."""
    reason = _different_options(base, other)
    if reason:
        return Pairing(None, False, reason)
    known = [group.measured[group.measured[COL.prompt_index].notna()] for group in (base, other)]
    if any(rows[COL.prompt_index].duplicated().any() for rows in known):
        return Pairing(None, False, "some prompt indexes occur more than once")
    first, second = (rows.set_index(rows[COL.prompt_index].astype("int64")).sort_index() for rows in known)
    common = first.index.intersection(second.index).sort_values()
    fewest, most = sorted((len(base.measured), len(other.measured)))
    if len(common) < _LEAST_COMMON * fewest:
        return Pairing(None, False, f"only {len(common)} of {fewest} prompts were measured in both runs")
    rows = (first.loc[common], second.loc[common])
    for column, name in ((COL.input_tokens, "input tokens"), (COL.requested_output_tokens, "output caps")):
        before, after = (frame[column].to_numpy(np.float64, na_value=np.nan) for frame in rows)
        both = ~(np.isnan(before) | np.isnan(after))
        total = float(before[both].sum()) or 1.0
        differences = after[both] - before[both]
        apart, bias = float(np.abs(differences).sum()) / total, abs(float(differences.sum())) / total
        by_chance = (
            CHANCE * float(differences.std(ddof=1)) * math.sqrt(len(differences)) / total if both.sum() > 1 else 0
        )
        if apart >= MOST_APART:
            return Pairing(None, False, f"the {name} of the same prompts differ by {100 * apart:.1f} % on average")
        if bias >= max(MOST_BIASED, by_chance):
            return Pairing(None, False, f"the {name} of all prompts together differ by {100 * bias:.1f} %")
    return Pairing(rows, len(common) == most, "")


def _different_options(base: Group, other: Group) -> str:
    without = [group.run.name for group in (base, other) if "llm_seed" not in group.run.options]
    if without:
        return f"the manifest of {' and '.join(without)} does not contain the seed and the lengths of the prompts"
    different = [name for name in PROMPT_OPTIONS if base.run.options.get(name) != other.run.options.get(name)]
    names = ", ".join("--" + name.replace("_", "-") for name in different)
    return f"the runs differ in {names}" if different else ""


def in_order(rows: DataFrame) -> DataFrame:
    """Return the rows in the order of their starts.

    Dropped requests do not have a start time; they take the position that their prompt has among the other prompts.
    """
    if dropped(rows[COL.error_code]).any():
        rows = rows.assign(started_at=start_times(rows))
    return rows.sort_values([COL.started_at, COL.request_id], kind="stable")


def at_once(group: Group) -> int:
    """Return the number of requests in flight: the users, or the average in an open loop (Little's law)."""
    if not group.load.is_open:
        return max(group.concurrency or 1, 1)
    took_s, lasted_s = float(group.measured[COL.end_to_end_latency_s].sum()), duration_s(group)
    return max(1, round(took_s / lasted_s)) if lasted_s > 0 else 1
