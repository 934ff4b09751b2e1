"""Prompts are read as the web UI reads them: against what its own files answered (tests/golden/make_prompts.py)."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.prompts import (
    PromptNames,
    RememberingTokenizer,
    lay_out,
    parse_emphasis,
    tokenize,
)
from lib_pivotal.standalone.tokenizer import clip_tokenizer

GOLDEN = json.loads((Path(__file__).parent / "golden" / "prompts.json").read_text(encoding="utf-8"))
COMMA = 267
ASCII = st.characters(max_codepoint=126)


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer()


@pytest.fixture(scope="module")
def table(tokenizer):
    return PromptNames(GOLDEN["words"], tokenizer)


def layout(prompt, table, tokenizer, **options):
    return lay_out(prompt, table, tokenizer=tokenizer, comma_id=COMMA, **options)


@pytest.mark.parametrize("record", GOLDEN["prompts"], ids=lambda record: record["prompt"][:30])
def test_same_as_web_ui(record, table, tokenizer):
    assert [list(piece) for piece in parse_emphasis(record["prompt"])] == record["parsed"]
    found = layout(record["prompt"], table, tokenizer, embeddings_move=False)
    assert found.token_count == record["token_count"]
    assert len(found.chunks) == len(record["chunks"])
    for ours, theirs in zip(found.chunks, record["chunks"], strict=True):
        assert ours.tokens == theirs["tokens"]
        assert ours.multipliers == theirs["multipliers"]
        assert [list(embedding) for embedding in ours.embeddings] == theirs["words"]


def test_moving_embeddings_differs_only_where_the_web_ui_loses_one(table, tokenizer):
    different = []
    for record in GOLDEN["prompts"]:
        ours = layout(record["prompt"], table, tokenizer)
        host = layout(record["prompt"], table, tokenizer, embeddings_move=False)
        assert [chunk.tokens for chunk in ours.chunks] == [chunk.tokens for chunk in host.chunks]
        for chunk in ours.chunks:
            for place, name in chunk.embeddings:  # every word stands on the places that were kept for it
                assert chunk.tokens[place : place + GOLDEN["words"][name]] == [0] * GOLDEN["words"][name]
        if ours != host:
            different.append(record["prompt"])
            lost = [
                name
                for chunk in host.chunks
                for place, name in chunk.embeddings
                if chunk.tokens[place : place + GOLDEN["words"][name]] != [0] * GOLDEN["words"][name]
            ]
            assert lost, "differs without need"
    assert 1 <= len(different) <= 5


def test_longest_name_wins_then_the_first(tokenizer):
    table = PromptNames({"aoi": 1, "aoi-san": 2, "AOI": 3}, tokenizer)
    ids = tokenize(tokenizer, ["aoi-san"])[0]
    assert table.find(ids, 0) == ("aoi-san", len(ids))
    assert table.find(tokenize(tokenizer, ["Aoi"])[0], 0)[0] == "aoi"


def test_embedding_of_one_existing_token(tokenizer):
    table = PromptNames({"cat": 3}, tokenizer)
    assert len(tokenize(tokenizer, ["cat"])[0]) == 1
    (chunk,) = layout("a cat, cats", table, tokenizer).chunks
    assert chunk.embeddings == [(2, "cat")]
    (chunk,) = layout("concat", table, tokenizer).chunks  # con + cat: heard there too, as in the web UI
    assert chunk.embeddings == [(2, "cat")]


def test_renaming_moves_nothing(tokenizer):
    text = "(x, {w} in a hat:1.2), {w}, " + "tag, " * 40
    one = layout(text.replace("{w}", "aoi"), PromptNames({"aoi": 6}, tokenizer), tokenizer)
    name = "quitelongername-of-mine"
    other = layout(text.replace("{w}", name), PromptNames({name: 6}, tokenizer), tokenizer)
    assert [chunk.tokens for chunk in one.chunks] == [chunk.tokens for chunk in other.chunks]
    assert [[place for place, _ in chunk.embeddings] for chunk in one.chunks] == [
        [place for place, _ in chunk.embeddings] for chunk in other.chunks
    ]


def test_sixteen_embeddings_in_one_prompt(tokenizer):
    sizes = {f"{letter}zq": 4 for letter in "abcdefghijklmnop"}
    chunks = layout(", ".join(sizes), PromptNames(sizes, tokenizer), tokenizer).chunks
    assert [name for chunk in chunks for _, name in chunk.embeddings] == list(sizes)
    assert len(chunks) == 2


def test_errors_say_where(tokenizer):
    with pytest.raises(EmbeddingNameError, match=r"character 4: '1\.2\.3'"):
        parse_emphasis("(a:1.2.3)")
    with pytest.raises(EmbeddingNameError, match="no tokens"):
        PromptNames({" ": 1}, tokenizer)
    with pytest.raises(EmbeddingNameError, match="76 vectors"):
        PromptNames({"aoi": 76}, tokenizer)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=12), st.text(alphabet=ASCII, max_size=30)), max_size=4))
def test_remembered_ids_are_the_tokenizers(texts):
    tokenizer = clip_tokenizer()
    remembering = RememberingTokenizer(tokenizer, capacity=5)
    for _ in range(2):
        assert tokenize(remembering, texts) == [tokenize(tokenizer, [text])[0] for text in texts]


def test_pieces_without_end_are_not_remembered(tokenizer):
    remembering = RememberingTokenizer(tokenizer)
    texts = ["red " + "x" * 101, "y" * 5000, "", "z" * 100]
    assert tokenize(remembering, texts) == [tokenize(tokenizer, [text])[0] for text in texts]
    assert list(remembering._ids) == ["z" * 100]


def test_remembered_ids_of_golden_prompts(tokenizer):
    remembering = RememberingTokenizer(tokenizer)
    texts = [piece for record in GOLDEN["prompts"] for piece, _ in record["parsed"]]
    assert tokenize(remembering, texts) == tokenize(tokenizer, texts)
    with_ends = remembering(["a cat"], truncation=True, add_special_tokens=True)["input_ids"][0]
    assert with_ends == tokenizer(["a cat"])["input_ids"][0]


PIECES = [*"()[]:,\\", "1.2", " ", "aoi", "ren", "BREAK", "cat", "1girl, ", "word " * 20]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_prompt_fills_whole_chunks(pieces):
    tokenizer = clip_tokenizer()
    table = PromptNames({"aoi": 4, "ren": 8}, tokenizer)
    found = layout("".join(pieces), table, tokenizer)
    for chunk in found.chunks:
        assert len(chunk.tokens) == len(chunk.multipliers) == 77
        assert chunk.tokens[0] == tokenizer.bos_token_id and chunk.tokens[-1] == tokenizer.eos_token_id
        for place, name in chunk.embeddings:
            assert place >= 1 and place + table.sizes[name] <= 76
            assert chunk.tokens[place : place + table.sizes[name]] == [0] * table.sizes[name]
