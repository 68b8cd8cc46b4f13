"""The banners of the LLM tab: what a user must know before relying on the charts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_users.collect.client_health import OK, SATURATED, advice, reasons, verdict
from llm_users.collect.writer import RunWriter
from llm_users.outcome import Outcome
from llm_users.record import RequestRecord, StageRecord
from llm_users.secrets import redact

_MOST_NAMES = 32  # of models; of a run with a different name per request, the first names
_MOST_NOTES = 20

_NUMBER = re.compile(r"\d[\d.,]*")

_LOST = re.compile(r"(worker \d+)\b.* (?:was|were) lost\b", re.IGNORECASE)
"""Matches notes about a lost worker or about requests that were lost with it."""


_INFORMATION = re.compile(r"no \w+ in the environment: requests carry no key|Bedrock: |worker \d+ (?:joined|was back)")
"""Matches notes that describe the run and need no action."""


@dataclass
class Seen:
    """Counts of what the rows of a run contain."""

    rows: int = 0
    user_stamps: int = 0
    buffered: int = 0
    unstreamed: int = 0
    dropped: int = 0
    held: int = 0
    tokenizer: int = 0
    models: set[str] = field(default_factory=set)
    frameworks: set[str] = field(default_factory=set)
    apis: set[str] = field(default_factory=set)

    def add(self, record: RequestRecord) -> None:
        """Count one row."""
        self.rows += 1
        self.user_stamps += record.stamp_source == "user"
        is_dropped = record.outcome is Outcome.DROPPED
        self.dropped += is_dropped
        self.held += not is_dropped and (record.held_s or 0.0) > 0
        self.buffered += record.buffered
        self.unstreamed += record.ok and not record.streamed
        self.tokenizer += record.output_tokens_source == "tokenizer"
        for names, name in ((self.models, record.model), (self.frameworks, record.framework), (self.apis, record.api)):
            if name and len(names) < _MOST_NAMES:
                names.add(name)


def banners(
    seen: Seen, client: StageRecord | None, refused: str | None, writer: RunWriter | None, *, processes: int
) -> list[dict[str, Any]]:
    """Return the banners, the most severe first. Banners that differ only in their numbers are one with a count.

    ``client`` describes the present state of the ``processes`` workers; ``refused`` is the reason why the run was
    refused.
    """
    texts: list[tuple[str, str]] = []
    if refused:
        texts.append(("bad", f"The run was refused: {refused}"))
    notes = writer.notes[:_MOST_NOTES] if writer is not None else []
    texts += [(_level(note, notes), note[:1].upper() + note[1:]) for note in notes]
    if client is not None and (now := verdict(client)) not in (None, OK):
        text = f"The client is {now} now ({'; '.join(reasons(client)[:3])}): {advice(client, max(1, processes))}."
        texts.append(("bad" if now == SATURATED else "warn", text))
    texts += _stage_banners(writer.stages if writer is not None else ())
    counted = (
        (seen.dropped, "warn", f"{seen.dropped} requests exceeded --llm-max-in-flight and were dropped; they count as "
         "failed."),
        (seen.held, "info", f"{seen.held} requests waited because of --llm-max-in-flight, so they were sent later than "
         "the rate requires."),
        (seen.buffered, "warn", f"{seen.buffered} answers arrived at once although the client requested a stream, so "
         "their time to first token is unknown. Something between client and server, often a proxy, buffers answers."),
        (seen.unstreamed, "info", f"{seen.unstreamed} answers were not streamed (--llm-no-stream, or stream=False in a "
         "call), so they have no time to first token, TPOT and gaps."),
        (seen.user_stamps, "warn", f"{seen.user_stamps} of {seen.rows} answers have timestamps of the program, not of "
         "the kernel, so their times include the client's own delay."),
        (seen.tokenizer, "info", f"The local tokenizer counted the output tokens of {seen.tokenizer} answers, because "
         "the server did not report their number."),
    )  # fmt: skip
    texts += [(level, text) for count, level, text in counted if count]
    texts.sort(key=lambda banner: ("bad", "warn", "info").index(banner[0]))
    keys = [(level, text if _LOST.match(text) else _NUMBER.sub("0", text)) for level, text in texts]
    counts, last = Counter(keys), dict(zip(keys, texts, strict=True))
    return [{"level": key[0], "text": redact(text), "count": counts[key]} for key, (_, text) in last.items()]


def _stage_banners(stages: Sequence[StageRecord]) -> list[tuple[str, str]]:
    """Return one banner for each verdict on the client that is not "ok", with the numbers of its stages."""
    by_health: defaultdict[str, list[StageRecord]] = defaultdict(list)
    for stage in stages:
        if stage.health not in (None, OK):
            by_health[stage.health].append(stage)
    banners = []
    for health, affected in by_health.items():
        numbers = [str(stage.stage) for stage in affected]
        where = f"stage {numbers[0]}" if len(numbers) == 1 else f"stages {', '.join(numbers[:-1])} and {numbers[-1]}"
        why = "; ".join(reasons(affected[-1])[:3])
        if len(numbers) > 1:
            why = f"stage {numbers[-1]}: {why}"
        is_saturated = health == SATURATED
        meaning = "the figures partly measure the client itself" if is_saturated else "use the figures with caution"
        banners.append(("bad" if is_saturated else "warn", f"In {where} the client was {health} ({why}): {meaning}."))
    return banners


def _level(note: str, notes: Sequence[str]) -> str:
    """Return the level of a note: "bad" for an early end of the run and for a worker that was lost and did not come
    back, "info" without a need to act, else "warn".
    """
    if _INFORMATION.match(note):
        return "info"
    if note.startswith("the run was ended: "):
        return "bad"
    lost = _LOST.match(note)
    if lost is None or any(other.startswith(f"{lost[1]} was back") for other in notes):
        return "warn"
    return "bad"
