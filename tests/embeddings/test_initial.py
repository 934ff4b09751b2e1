"""Init text: HCP's language, with errors that say where."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.embeddings.initial import (
    direction_rows,
    initial_vectors,
    is_directed,
    output_rows,
    parse_init_text,
    vectors_from_tensors,
)
from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.standalone.text import StandaloneTextEncoder
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from tests.embeddings.by_hand import outputs, text_encoder
from tests.golden.tiny_text import WIDTH, tiny_text_model


@pytest.fixture(scope="module")
def encoder():
    return StandaloneTextEncoder(tiny_text_model(), clip_tokenizer())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make(encoder, text, vectors, **options):
    (tensor,) = initial_vectors(text, vectors, encoder=encoder, generator=generator(), **options)
    return tensor


def test_pieces():
    pieces = parse_init_text("cat, *[0.017,3], long tail")
    assert [(p.kind, p.position, p.text, p.std, p.rows) for p in pieces] == [
        ("text", 0, "cat", 0.0, 0),
        ("random", 5, "", 0.017, 3),
        ("text", 17, "long tail", 0.0, 0),
    ]
    assert [p.text for p in parse_init_text(" a ,, b,")] == ["a", "b"]
    assert parse_init_text("") == []


def test_hcp_example(encoder):
    vectors = make(encoder, "cat, *[0.017,3], tail", 5)
    assert torch.equal(vectors[:1], encoder.embed_text("cat")[0])
    assert torch.equal(vectors[1:4], torch.randn(3, WIDTH, generator=generator()) * 0.017)
    assert torch.equal(vectors[4:], encoder.embed_text("tail")[0])
    assert torch.equal(make(encoder, "cat, *[0.017,3], tail", 2), vectors[:2])


def test_commas(encoder):
    rows = torch.cat([encoder.embed_text("cat")[0], encoder.embed_text("dog")[0]])
    assert torch.equal(make(encoder, "cat, dog", 2), rows)
    assert torch.equal(make(encoder, "cat, dog", 3, keep_commas=True), encoder.embed_text("cat, dog")[0])


def test_short_text_is_repeated_with_a_little_noise(encoder):
    vectors = make(encoder, "cat, dog", 5)
    source = torch.cat([encoder.embed_text("cat")[0], encoder.embed_text("dog")[0]])
    assert torch.equal(vectors[:2], source)
    difference = vectors[2:] - source[[0, 1, 0]]
    std = encoder.vocabulary_stats()[0].std
    assert 0.03 * std < float(difference.std()) < 0.2 * std


def test_random_zero_and_empty(encoder):
    assert torch.equal(make(encoder, "zero", 3), torch.zeros(3, WIDTH))
    std = encoder.vocabulary_stats()[0].std
    expected = torch.randn(75, WIDTH, generator=generator())
    assert torch.equal(make(encoder, "random", 75), expected * std)
    assert torch.equal(make(encoder, "  ", 75), expected * std)
    assert torch.equal(make(encoder, "Random", 75, std=0.5), expected * 0.5)


def test_same_generator_same_vectors(encoder):
    assert torch.equal(make(encoder, "*[1,2], a", 6), make(encoder, "*[1,2], a", 6))


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("cat, *[0.1", 6, "not closed"),
        ("*[0.1]", 1, "std 0 or above and n"),
        ("a, *[x,2]", 4, "std 0 or above"),
        ("a, *[0.1,0]", 4, "n from 1 to 75"),
        ("a, *[-1,2]", 4, "std 0 or above"),
        ("a, *[nan,2]", 4, "std 0 or above"),
        ("a, *[0.1,2.5]", 4, "std 0 or above"),
        ("*[0.1,2] b", 9, "comma is needed"),
        ("a *[0.1,2]", 3, "stand alone"),
    ],
)
def test_errors_say_where(encoder, text, position, problem):
    with pytest.raises(EmbeddingNameError, match=rf"character {position} .*{problem}"):
        make(encoder, text, 2)


def test_refusals(encoder):
    with pytest.raises(EmbeddingNameError, match="no tokens"):
        make(encoder, ", ,", 2)
    with pytest.raises(EmbeddingNameError, match="vectors = 76"):
        make(encoder, "cat", 76)
    with pytest.raises(EmbeddingNameError, match="std = -1"):
        make(encoder, "random", 2, std=-1)


def test_from_a_file(encoder):
    given_rows = torch.randn(3, WIDTH, generator=generator(5)).half()
    (same,) = vectors_from_tensors([given_rows], encoder=encoder, generator=generator())
    assert torch.equal(same, given_rows.float())
    (cut,) = vectors_from_tensors([given_rows], 2, encoder=encoder, generator=generator())
    assert torch.equal(cut, given_rows[:2].float())
    (more,) = vectors_from_tensors([given_rows], 7, encoder=encoder, generator=generator())
    assert more.shape == (7, WIDTH) and torch.equal(more[:3], given_rows.float())
    (row,) = vectors_from_tensors([torch.ones(WIDTH)], encoder=encoder, generator=generator())
    assert row.shape == (1, WIDTH)
    with pytest.raises(EmbeddingNameError, match="width"):
        vectors_from_tensors([torch.ones(2, WIDTH + 1)], encoder=encoder, generator=generator())
    with pytest.raises(EmbeddingNameError, match="not finite"):
        vectors_from_tensors([torch.full((2, WIDTH), torch.nan)], encoder=encoder, generator=generator())
    with pytest.raises(EmbeddingNameError, match="no vectors"):
        vectors_from_tensors([torch.ones(0, WIDTH)], 2, encoder=encoder, generator=generator())


@given(st.text(alphabet="ab ,*[]0.1", max_size=20))
def test_any_text_parses_or_is_refused_in_words(text):
    try:
        pieces = parse_init_text(text)
    except EmbeddingNameError as error:
        assert "character" in str(error)
    else:
        assert all(piece.text or piece.rows for piece in pieces)


@pytest.mark.parametrize(
    ("text", "directed"),
    [("cat", True), ("*[0.1,2], cat", True), *((text, False) for text in ("", " random ", "Zero", "*[0.1,2]", "*[0"))],
)
def test_which_init_texts_say_a_direction(encoder, text, directed):
    assert is_directed(text) is directed
    assert (direction_rows(text, tables=encoder) is not None) is directed


def test_direction_rows_are_those_that_training_begins_with(encoder):
    text = "long tail, *[0.1,2], cat"
    (known,), begun = direction_rows(text, tables=encoder), make(encoder, text, 5)
    assert torch.equal(known[[0, 1, 4]], begun[[0, 1, 4]])
    assert not known[2:4].any() and begun[2:4].all(), "what was sampled is not known any more"


def test_whole_tags_are_never_cut(encoder):
    """`red hair` takes two rows here: with three vectors `cat, red hair, dog` keeps the first two tags."""
    rows = {tag: encoder.embed_text(tag)[0] for tag in ("cat", "red hair", "dog")}
    assert [len(rows[tag]) for tag in rows] == [1, 2, 1]
    assert torch.equal(make(encoder, "cat, red hair, dog", 2)[1], rows["red hair"][0])  # as it was: half a tag
    whole = make(encoder, "cat, red hair, dog", 2, whole_tags=True)
    assert torch.equal(whole, torch.cat([rows["cat"], rows["dog"]]))
    assert torch.equal(
        make(encoder, "cat, red hair, dog", 3, whole_tags=True), torch.cat([rows["cat"], rows["red hair"]])
    )


def test_what_whole_tags_leave_over_is_random(encoder):
    std = encoder.vocabulary_stats()[0].std
    vectors = make(encoder, "cat, red hair", 6, whole_tags=True)
    assert torch.equal(vectors[:1], encoder.embed_text("cat")[0])
    assert torch.equal(vectors[3:], torch.randn(3, WIDTH, generator=generator()) * std)
    assert torch.equal(
        make(encoder, "red hair", 1, whole_tags=True, std=0.5), torch.randn(1, WIDTH, generator=generator()) * 0.5
    )


def test_tags_come_before_the_random_rows_of_a_text(encoder):
    vectors = make(encoder, "*[0.1,3], red hair, *[0.2,2]", 4, whole_tags=True)
    drawn = generator()
    assert torch.equal(vectors[:2], torch.randn(3, WIDTH, generator=drawn)[:2] * 0.1)
    assert torch.equal(vectors[2:], encoder.embed_text("red hair")[0])


def test_a_kept_comma_goes_with_its_tag(encoder):
    comma, dog = encoder.embed_text(",")[0], encoder.embed_text("dog")[0]
    vectors = make(encoder, "cat, red hair, dog", 3, whole_tags=True, keep_commas=True)
    assert torch.equal(vectors[1:], torch.cat([comma, dog]))


# ---- CrossInit ----


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_cross_init_begins_with_the_outputs_at_the_texts_tokens(family):
    """`red hair , cat` as a prompt: the outputs at `red`, `hair` and `cat`, by the text models themselves."""
    text, models = text_encoder(family)
    towers = initial_vectors("red hair, cat", 3, encoder=text, generator=generator(), start="cross_init")
    with torch.no_grad():
        wanted, _, _ = outputs(family, models, ["red hair", ",", "cat"])
    for tower, by_hand in zip(towers, wanted, strict=True):
        torch.testing.assert_close(tower, by_hand[[1, 2, 4]], rtol=1e-4, atol=1e-5)


def test_random_rows_beside_outputs_are_as_much_larger(encoder):
    texts = ["cat", "red hair"]
    rows, (scale,) = output_rows(encoder, texts)
    tokens = torch.cat([encoder.embed_text(text)[0] for text in texts])
    assert scale == pytest.approx(float(torch.cat([r for (r,) in rows]).norm(dim=1).mean() / tokens.norm(dim=1).mean()))
    vectors = make(encoder, "cat, *[0.1,2], red hair", 5, start="cross_init")
    drawn = torch.randn(2, WIDTH, generator=generator())
    torch.testing.assert_close(vectors[1:3], drawn * (0.1 * scale))
    assert torch.equal(vectors[[0, 3, 4]], torch.cat([r for (r,) in rows]))


def test_cross_init_of_no_text_and_of_too_much(encoder):
    assert torch.equal(make(encoder, "random", 3, start="cross_init"), make(encoder, "random", 3))
    assert torch.equal(make(encoder, "*[0.1,3]", 3, start="cross_init"), make(encoder, "*[0.1,3]", 3))
    many = ", ".join(["red hair"] * 40)
    rows, _ = output_rows(encoder, many.split(", "))
    assert [len(row) for (row,) in rows] == [2] * 25 + [0] * 15
    with pytest.raises(EmbeddingNameError, match="use one of tokens, cross_init"):
        make(encoder, "cat", 1, start="middle")
