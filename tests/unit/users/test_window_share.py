"""The window share of answers as they come over the wire: also of those without chunk times."""

from __future__ import annotations

from collections.abc import Callable

from tests.stream_bytes import at_once, chat_events
from tests.unit.users.rig import Rig
from tests.wire_server import Wire


def test_an_answer_without_chunk_times_has_all_its_tokens_inside_the_window(
    rig_with: Callable[..., Rig], wire: Wire
) -> None:
    rig = rig_with(llm_warmup="0")
    record = rig.ask(wire.serve(at_once(chat_events("a", "b", "c"), "content-length")).url).record
    assert (record.error_code, record.phase, record.output_tokens) == ("buffered", "measure", 3)
    assert (record.window_share, record.window_tokens) == (1.0, 3.0)


def test_an_answer_outside_the_window_has_no_part_in_it(rig_with: Callable[..., Rig], wire: Wire) -> None:
    rig = rig_with(llm_warmup="1", llm_requests="5")
    record = rig.ask(wire.serve(at_once(chat_events("a", "b", "c"))).url).record
    assert (record.phase, record.ok, record.output_tokens) == ("warmup", True, 3)
    assert (record.window_share, record.window_tokens) == (0.0, 0.0)
