"""What a person must know before believing the charts, in plain words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_users.collect.client_health import OK, SATURATED, advice, reasons, verdict
from llm_users.outcome import Outcome
from llm_users.record import RequestRecord, StageRecord
from llm_users.secrets import redact
from llm_users.web.run_view import Course

_MOST_NAMES = 32  # of models: whoever makes up one per request gets the first few
_MOST_NOTES = 20

_LOST = re.compile(r"(worker \d+)\b.* (?:was|were) lost\b")
"""Of the run's notes, those of a worker that is gone, or of its requests."""


@dataclass
class Seen:
    """What the rows of a run have had in them."""

    rows: int = 0
    user_stamps: int = 0
    buffered: int = 0
    dropped: int = 0
    held: int = 0
    tokenizer: int = 0
    models: set[str] = field(default_factory=set)
    frameworks: set[str] = field(default_factory=set)
    apis: set[str] = field(default_factory=set)

    def add(self, record: RequestRecord) -> None:
        """One row."""
        self.rows += 1
        self.user_stamps += record.stamp_source == "user"
        is_dropped = record.outcome is Outcome.DROPPED
        self.dropped += is_dropped
        self.held += not is_dropped and (record.held_s or 0.0) > 0
        self.buffered += record.buffered
        self.tokenizer += record.output_tokens_source == "tokenizer"
        for names, name in ((self.models, record.model), (self.frameworks, record.framework), (self.apis, record.api)):
            if name and len(names) < _MOST_NAMES:
                names.add(name)


def banners(coordinator: Course, seen: Seen, client: StageRecord | None) -> list[dict[str, str]]:
    """The banners, the worst first; ``client`` says how the workers are now."""
    writer = coordinator.writer
    found: list[tuple[str, str]] = []
    if coordinator.refused:
        found.append(("bad", f"The run was refused: {coordinator.refused}"))
    notes = writer.notes[:_MOST_NOTES] if writer is not None else []
    found += [(_level(note, notes), note[:1].upper() + note[1:]) for note in notes]
    processes = max(1, len(coordinator.worker_names))
    if client is not None and (now := verdict(client)) not in (None, OK):
        said = f"The client is {now} now ({'; '.join(reasons(client)[:3])}): {advice(client, processes)}."
        found.append(("bad" if now == SATURATED else "warn", said))
    for stage in writer.stages if writer is not None else ():
        if stage.health in (None, OK):
            continue
        said = f"In stage {stage.stage} the client was {stage.health} ({'; '.join(reasons(stage)[:3])})"
        meaning = "its figures are partly the client's own" if stage.health == SATURATED else "take it with care"
        found.append(("bad" if stage.health == SATURATED else "warn", f"{said}: {meaning}."))
    if seen.dropped:
        found.append(
            ("warn", f"{seen.dropped} requests found no place among --llm-max-in-flight and were dropped; they count "
                     "as failed.")
        )  # fmt: skip
    if seen.held:
        found.append(
            ("info", f"{seen.held} requests waited for a place among --llm-max-in-flight: they came later than the "
                     "rate says.")
        )  # fmt: skip
    if seen.buffered:
        found.append(
            ("warn", f"{seen.buffered} answers came all at once although a stream was asked for: no first token was "
                     "seen in them. Something on the way, often a proxy, buffers.")
        )  # fmt: skip
    if seen.user_stamps:
        found.append(
            ("warn", f"{seen.user_stamps} of {seen.rows} answers were stamped by the program, not by the kernel: "
                     "times include the client's own delay.")
        )  # fmt: skip
    if seen.tokenizer:
        found.append(
            ("info", f"Output tokens of {seen.tokenizer} answers were counted by the local tokenizer, because the "
                     "server did not say how many it sent.")
        )  # fmt: skip
    found.sort(key=lambda each: ("bad", "warn", "info").index(each[0]))
    return [{"level": level, "text": redact(text)} for level, text in found]


def _level(note: str, notes: Sequence[str]) -> str:
    """A worker that is gone takes requests with it, unless it came back."""
    lost = _LOST.match(note)
    if lost is None or any(other.startswith(f"{lost[1]} was back") for other in notes):
        return "warn"
    return "bad"
