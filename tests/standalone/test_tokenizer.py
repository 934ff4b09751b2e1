"""CLIP's tokenizer from open_clip's merges, against ids known from SD1."""

import json

import pytest

from lib_pivotal.standalone.tokenizer import VOCABULARY_SIZE, clip_tokenizer, write_tokenizer

KNOWN = {
    # CLIP ViT-L/14's ids, as OpenAI's tokenizer and the web UI give them
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "A  Photo of a CAT": [320, 1125, 539, 320, 2368],
    "": [],
}


@pytest.mark.parametrize(("text", "ids"), KNOWN.items())
def test_known_ids(text: str, ids: list[int]) -> None:
    assert clip_tokenizer()(text).input_ids == [49406, *ids, 49407]


def test_padding_is_the_end_token() -> None:
    ids = clip_tokenizer()("a cat", padding="max_length", max_length=77).input_ids
    assert len(ids) == 77
    assert ids[:4] == [49406, 320, 2368, 49407]
    assert set(ids[4:]) == {49407}


def test_folder_holds_what_transformers_reads(tmp_path) -> None:
    folder = write_tokenizer(tmp_path / "text")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert len(vocabulary) == VOCABULARY_SIZE == len(clip_tokenizer())
    assert vocabulary["!"] == 0
    assert vocabulary["<|endoftext|>"] == 49407
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert merges[1] == "i n"
    assert len(merges) == 1 + 48_894


def test_any_text_comes_back() -> None:
    tokenizer = clip_tokenizer()
    text = "naïve, 猫 & ünïcödé"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
