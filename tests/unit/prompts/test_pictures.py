"""Images in prompts: what the option takes, that they are images, that each is a different one, and always the same."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import Pictures, PromptError, PromptSource, Tokenizer, make_source
from llm_users.prompts.images import tiles


def source(tokenizer: Tokenizer | None, images: str, seed: int = 1, **more: Any) -> PromptSource:
    lengths = {
        "input_lengths": Distribution.parse("60,20", LENGTHS),
        "output_lengths": Distribution.parse("20", LENGTHS),
    }
    return make_source(tokenizer=tokenizer, seed=seed, pictures=Pictures.parse(images), **lengths, **more)  # type: ignore[arg-type]


def urls(prompts: PromptSource, index: int) -> list[str]:
    messages = prompts.prompt(index).messages
    assert messages
    return [part["image_url"]["url"] for part in messages[-1]["content"] if part["type"] == "image_url"]


def decoded(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    image.load()
    return image


@pytest.mark.parametrize("size", [(512, 512), (100, 80), (1, 1), (33, 1), (1, 33), (64, 32)])
def test_a_synthetic_image_is_a_png_of_its_size(size: tuple[int, int]) -> None:
    data = tiles(7, 3, *size)
    image = Image.open(io.BytesIO(data))
    image.load()  # checks every checksum
    assert (image.format, image.size, image.mode) == ("PNG", size, "RGB")
    assert len(data) < 8000
    across, down = -(-size[0] // 32), -(-size[1] // 32)
    colours = image.getcolors(maxcolors=100_000)
    assert colours
    assert 0.9 * across * down <= len(colours) <= across * down
    assert image.getpixel((0, 0)) == image.getpixel((min(31, size[0] - 1), min(31, size[1] - 1)))  # one tile


def test_prompts_get_text_and_images(default_tokenizer: Tokenizer) -> None:
    prompts = source(default_tokenizer, "2x64x48")
    plain = make_source(
        tokenizer=default_tokenizer,
        input_lengths=Distribution.parse("60,20", LENGTHS),
        output_lengths=Distribution.parse("20", LENGTHS),
        seed=1,
    )
    seen = []
    for index in range(20):
        prompt, expected = prompts.prompt(index), plain.prompt(index)
        assert prompt.messages
        (message,) = prompt.messages
        assert message["role"] == "user"
        assert message["content"][0] == {"type": "text", "text": expected.text}
        assert (prompt.text, prompt.input_tokens, prompt.max_tokens) == (None, None, expected.max_tokens)
        seen += urls(prompts, index)
        assert prompt == source(default_tokenizer, "2x64x48").prompt(index)
    assert {decoded(url).size for url in seen} == {(64, 48)}
    assert len(set(seen)) == len(seen) == 40
    assert urls(source(default_tokenizer, "2x64x48", seed=2), 0) != seen[:2]
    assert decoded(urls(source(default_tokenizer, "1"), 0)[0]).size == (512, 512)


def test_synthetic_images_of_two_runs_differ(default_tokenizer: Tokenizer) -> None:
    for given in ({}, {"text": "What is this?"}):
        one, two = (source(default_tokenizer, "2x64x64", run_key=key, **given) for key in ("one", "two"))
        seen = [{url for index in range(5) for url in urls(prompts, index)} for prompts in (one, two)]
        assert [len(images) for images in seen] == [10, 10]
        assert seen[0].isdisjoint(seen[1])


def test_images_of_a_folder_in_turn(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.{'png' if number % 2 else 'JPG'}", "PNG")
    (folder / "notes.txt").write_text("not an image")
    one, two = source(None, str(folder), text="Which?"), source(None, f"2:{folder}", text="Which?")
    first = [urls(one, index)[0] for index in range(10)]
    assert len(set(first[:5])) == 5
    assert first[5:] == first[:5]
    assert [url for index in range(5) for url in urls(two, index)] == first  # two at a time, in the same order


def test_images_go_to_what_the_user_said_last(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}]},
        {"role": "assistant", "content": "d", "prefix": True},
    ]  # fmt: skip
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"messages": turns}))
    messages = source(None, "1x8x8", file=file).prompt(0).messages
    assert messages
    assert [messages[place] for place in (0, 1, 3)] == [turns[place] for place in (0, 1, 3)]
    assert [part["type"] for part in messages[2]["content"]] == ["text", "image_url"]


@pytest.mark.parametrize("text", ["0", "1x2", "1x0x5", "1x9000x5", "0:.", "nowhere", "2:nowhere", "a" * 5000, ""])
def test_a_bad_option_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match=r"\bimages?\b"):
        Pictures.parse(text)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"has no images \(\.bmp, "):
        source(None, str(tmp_path), text="a")
