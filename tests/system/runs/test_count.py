"""--llm-count: the output tokens of both sides, with a tokenizer that counts exactly what the simulator sends.

The simulator's tokens are words, and the tokenizer of the test has one token per word.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_users.simulator.launch import launch
from tests.system.locust_runs import Finished, Locust

ANSWERS, TOKENS = 12, 30


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    backend.save(str(path))
    return path


def run(locust: Locust, spec: str, tokenizer: Path, *options: str) -> Finished:
    with launch(f"ttft=20ms,itl=5ms,tokens={TOKENS}{spec}", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-sweep", "3", "--llm-requests", str(ANSWERS),
                          "--llm-warmup", "0", "--llm-output-tokens", f"{TOKENS},0", "--llm-tokenizer", str(tokenizer),
                          "--llm-prompt", "Say something.", *options)  # fmt: skip
    assert done.code == 0, done.err
    return done


def counts(done: Finished) -> set[tuple[str, str, str, str]]:
    columns = ("output_tokens", "output_tokens_source", "output_tokens_usage", "output_tokens_counted")
    return {tuple(row[name] for name in columns) for row in done.rows()}  # type: ignore[misc]


def note(done: Finished) -> str:
    text = " ".join(done.out.split())
    return text.partition("count of output tokens differs")[2].partition(" - ")[0]


def test_equal_counts_are_in_both_columns_without_a_note(locust: Locust, words: Path) -> None:
    done = run(locust, "", words, "--llm-count", "usage")
    assert counts(done) == {("30", "usage", "30", "30")}
    assert not note(done)
    assert counts(run(locust, "", words)) == {("30", "usage", "", "")}  # not asked for


@pytest.mark.parametrize(
    ("spec", "usage", "counted", "reason"),
    [
        # The stop token is one of the 30 tokens of usage and has no text.
        (",tokens=10,finish=stop,stop_token=silent", 10, 9, "usage probably includes a stop token per answer"),
        (",reasoning=10,reasoning_shown=none", 30, 20,
         f"usage includes {10 * ANSWERS} reasoning tokens that the answers do not show"),
        (",reasoning=20,reasoning_shown=none,reasoning_counted=off", 30, 10,
         "usage probably includes reasoning that the answers do not show"),
    ],
)  # fmt: skip
def test_the_note_says_by_how_much_the_counts_differ_and_why(
    spec: str, usage: int, counted: int, reason: str, locust: Locust, words: Path
) -> None:
    options = ["--llm-output-tokens", "10,0"] if "tokens=10" in spec else []
    done = run(locust, spec.replace(",tokens=10", ""), words, "--llm-count", "usage", *options)
    assert counts(done) == {(str(usage), "usage", str(usage), str(counted))}
    assert f"{usage * ANSWERS} by usage, {counted * ANSWERS} counted in {ANSWERS} answers; {reason}" in note(done)


def test_the_tokenizer_divides_when_it_is_asked_to(locust: Locust, words: Path) -> None:
    done = run(locust, ",reasoning=10,reasoning_shown=none", words, "--llm-count", "tokenizer")
    assert counts(done) == {("20", "tokenizer", "30", "20")}
    for row in done.rows():
        latency_s = float(row["end_to_end_latency_s"])
        assert float(row["request_output_throughput_token_per_s"]) == pytest.approx(20 / latency_s, rel=1e-6)
        # 20 visible tokens, 5 ms apart.
        assert float(row["tpot_s"]) == pytest.approx(0.005, rel=0.1)


def test_another_vocabulary_is_named(locust: Locust, words: Path) -> None:
    done = run(locust, "", words, "--llm-count", "usage", "--llm-tokenizer", str(letters(words)))
    for _, _, usage, counted in counts(done):
        assert (usage, int(counted) > 60) == ("30", True)  # a word has more than two letters
    assert "the model probably has another vocabulary: give its tokenizer with --llm-tokenizer" in note(done)


def letters(words: Path) -> Path:
    """Return a tokenizer with one token per character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    path = words.with_name("letters.json")
    backend.save(str(path))
    return path
