"""Small tokenizers of every family, trained on the sonnets when a test asks for one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from llm_users.prompts import Tokenizer
from llm_users.prompts.sonnets import sonnets

POEMS = ["\n".join(lines) for lines in sonnets().values()]


def byte_level_bpe() -> Backend:
    """As GPT-2 and most of today's models have it."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        POEMS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    return backend


def metaspace_unsplit() -> Backend:
    """As Llama 2 has it: a mark before the text, spaces as marks, merges across words, bytes for the unknown."""
    learner = Backend(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(POEMS, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    # "\n" is in the vocabulary by training; taken out, it becomes a byte token as in Llama 2.
    words = [word for word in learnt["vocab"] if "\n" not in word] + [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    merges = [tuple(merge) for merge in learnt["merges"] if "\n" not in "".join(merge)]
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return backend


def unigram() -> Backend:
    """As T5 has it: line breaks and runs of spaces become one space, words are split with a mark before each."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    backend.train_from_iterator(POEMS, trainer)
    return backend


def word_piece() -> Backend:
    """As BERT has it: lower case, and one unknown token for a word that cannot be pieced together."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    backend.train_from_iterator(POEMS, trainer)
    return backend


def word_level() -> Backend:
    """Whole words between spaces, most of them unknown."""
    backend = Backend(models.WordLevel({"[UNK]": 0, "the": 1, "of": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


FAMILIES: dict[str, Callable[[], Backend]] = {
    make.__name__: make for make in (byte_level_bpe, metaspace_unsplit, unigram, word_piece, word_level)
}


def shared_tokens(tokenizer: Tokenizer, first: str | None, second: str | None) -> int:
    """The number of tokens of the text with which both begin, byte for byte."""
    assert first
    assert second
    return tokenizer.count(os.path.commonprefix([first, second]))  # noqa: RUF071 - texts, not paths
