"""Prompts that are built ahead: what is ready before a stage starts, and how much is held at most."""

from __future__ import annotations

import gevent
import pytest

from llm_users.load.worker.prompt_queue import MOST_TOKENS_AHEAD, PromptQueue
from llm_users.prompts import Prompt, PromptError
from tests.unit.load.prompt_source import Source, queue_of


def indices(queue: PromptQueue[Prompt], count: int) -> list[int]:
    return [queue.next().index for _ in range(count)]


def test_a_counted_stage_below_the_bound_is_built_before_it_starts_and_nothing_after() -> None:
    source = Source(500)
    queue = queue_of(source)
    queue.expect(300, least=4, counted=True)
    assert queue.progress == (300, 300)
    assert indices(queue, 300) == list(range(1, 901, 3))
    gevent.sleep(0.05)
    assert (source.made, queue.waits) == (300, [])


def test_a_stage_above_the_bound_starts_with_what_is_held_and_goes_on() -> None:
    source = Source(MOST_TOKENS_AHEAD // 20)
    queue = queue_of(source)
    queue.expect(60, least=4, counted=True)
    assert source.made <= 21
    assert indices(queue, 60) == list(range(1, 181, 3))
    gevent.sleep(0.05)
    assert source.made == 60


def test_each_user_has_a_prompt_to_start_with_whatever_the_bound() -> None:
    source = Source(MOST_TOKENS_AHEAD // 4)
    queue = queue_of(source)
    queue.expect(50, least=10, counted=True)
    assert queue.progress[0] == source.made == 10


def test_requests_that_wait_for_prompts_are_counted_and_get_them_in_order() -> None:
    source = Source(MOST_TOKENS_AHEAD // 2, seconds=0.05)
    queue = queue_of(source)
    queue.expect(8, least=1, counted=True)
    taken: list[int] = []
    gevent.joinall([gevent.spawn(lambda: taken.append(queue.next().index)) for _ in range(8)])
    assert taken == list(range(1, 25, 3))
    assert 4 <= len(queue.waits) <= 7
    assert max(queue.waits) > 0.1


def test_what_the_source_raises_reaches_who_waits() -> None:
    queue = queue_of(Source(10, bad=1))
    with pytest.raises(PromptError, match="prompt 1 cannot be made"):
        queue.expect(5, least=1)
    later = queue_of(Source(10, bad=4))
    later.foresee(1)
    assert later.next().index == 1
    with pytest.raises(PromptError, match="prompt 4"):
        later.next()


def test_building_ends_when_the_run_does() -> None:
    source = Source(10, seconds=0.02)
    queue = queue_of(source)
    expecting = gevent.spawn(queue.expect, 5000, least=4, counted=True)
    gevent.sleep(0.1)
    queue.close()
    expecting.get(timeout=2)
    made = source.made
    gevent.sleep(0.5)
    assert source.made <= made + 16
    started = len(indices(queue, made + 20))  # requests that have begun already still get theirs
    assert started == made + 20
