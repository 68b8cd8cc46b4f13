"""The history of the live view: bounded over hours, and a page gets what it does not have yet."""

from __future__ import annotations

from llm_users.web.history import MOST_SAMPLES, History


def test_the_history_of_eight_hours_is_bounded_and_goes_back_to_the_beginning() -> None:
    history = History()
    sizes = set()
    for second in range(8 * 3600):
        history.add({"t": float(second), "users": 4, "ttft_p50": float("nan")})
        sizes.add(len(history))
    assert max(sizes) == MOST_SAMPLES
    reset, samples = history.after(None)
    assert reset
    assert samples["t"][0] == 0
    assert samples["t"] == sorted(set(samples["t"]))
    assert samples["t"][-600:] == [float(second) for second in range(8 * 3600 - 600, 8 * 3600)]
    assert set(samples["ttft_p50"]) == {None}
    assert {len(values) for values in samples.values()} == {len(history)}


def test_a_page_gets_what_it_does_not_know() -> None:
    history = History()
    for second in range(5):
        history.add({"t": float(second)})
    assert history.after(history.seq) == (False, {name: [] for name in history.after(None)[1]})
    assert history.after(history.seq - 2)[1]["t"] == [3.0, 4.0]
    assert history.after(history.seq + 1)[0]
    old = history.seq
    history.forget()
    assert history.after(old)[0]
    history.add({"t": 0.0})
    assert history.after(old) == history.after(None)
