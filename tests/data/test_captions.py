"""Reading captions, finding words in them, and the chain of changes at each draw."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.caption_chain import CaptionPipeline, CaptionSettings
from lib_pivotal.data.captions import (
    Cut,
    EmbeddingFinder,
    as_letters,
    caption_from_name,
    decode,
    legal_name,
    pairs,
    peeled,
    read_captions,
    single_tags,
    split_group,
    split_tags,
    with_pairs_alone,
)
from lib_pivotal.data.records import Picture
from lib_pivotal.data.tags import same_tag, tag_counts
from lib_pivotal.prompts import parse_emphasis
from lib_pivotal.standalone.cli import main
from tests.conftest import write_pictures

# -- files


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a, b\n", "a, b"),
        ("größe, 花".encode(), "größe, 花"),
        (b"\xef\xbb\xbfa, b", "a, b"),
        ("a, 花".encode("utf-16"), "a, 花"),
        (b"a, b,\r\n\r\nc\r\n", "a, b, c"),
        (b"a\x00, b", "a, b"),
        (b"", ""),
        (b"  \n , \n", ""),
    ],
)
def test_read_captions(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert read_captions(path) == ((text,) if text else (), "")


@pytest.mark.parametrize(
    ("data", "text", "named"),
    [
        ("a, b, c".encode("utf-16-le"), "a, b, c", ""),
        ("a, b, c".encode("utf-16-be"), "a, b, c", ""),
        ("日本, 1girl, 女の子".encode("utf-16-le"), "日本, 1girl, 女の子", ""),
        ("日本, 1girl, 女の子".encode("utf-16-be"), "日本, 1girl, 女の子", ""),
        (b"a\0b, c", "ab, c", ""),
        ("\ufeffa, b".encode("utf-16-be"), "a, b", ""),
        ("女の子, ぼうし".encode("cp932"), "女の子, ぼうし", "Shift-JIS"),
        ("少女".encode("cp932"), "少女", "Shift-JIS"),
        ("größe, café, señor".encode("cp1252"), "größe, café, señor", "Windows-1252"),
        (b"a\x81 b", "a\ufffd b", "Windows-1252"),
    ],
)
def test_encodings(tmp_path: Path, data: bytes, text: str, named: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    found, remark = read_captions(path)
    assert found == (text,) and (named in remark if named else not remark)


@pytest.mark.parametrize(
    ("lines", "captions"), [("join", ("a, b, c, a, b",)), ("random", ("a, b", "c")), ("first", ("a, b",))]
)
def test_lines_of_a_caption_file(tmp_path: Path, lines: str, captions: tuple[str, ...]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a, b\n\n c,\na, b\n")
    assert read_captions(path, lines)[0] == captions


@given(st.binary(max_size=60))
def test_any_bytes_are_text(data: bytes) -> None:
    decode(data)[0].encode("utf-8")


def test_captions_in_an_old_encoding_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("größe".encode("cp1252"))
    found, remark = read_captions(path)
    assert found == ("größe",) and "UTF-8" in remark


@pytest.mark.parametrize(
    ("stem", "caption"),
    [
        ("00012-0-a_red_cat", "a red cat"),
        ("hanako, smile", "hanako, smile"),
        ("IMG_0042", ""),
        ("DSC-12", ""),
        ("000123", ""),
        ("Screenshot (3)", ""),
        ("3 cats", "cats"),
        ("imgur", "imgur"),
    ],
)
def test_caption_from_name(stem: str, caption: str) -> None:
    assert caption_from_name(stem) == caption


@pytest.mark.parametrize(
    ("embeddings", "join", "caption"),
    [
        (r"[^_]+", ", ", "a red, hat.v2"),
        (r"[a-z]+", " ", "a red hat v"),
        (r"_([a-z]+)", " ", "hat"),
        (r"\d+$", " ", "2"),
        ("zzz", " ", ""),
    ],
)
def test_caption_from_name_by_the_web_uis_filename_embedding_regex(embeddings: str, join: str, caption: str) -> None:
    """As modules/textual_inversion/dataset.py has it: `re.sub(numbers at the start)`, `findall`, `join`."""
    stem = "0012-a red_hat.v2"
    assert caption_from_name(stem, embeddings, join) == caption
    assert caption == join.join(re.findall(embeddings, re.sub(r"^[-\d]+\s*", "", stem)))


# -- words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hanako, smile", ("hanako",)),
        ("a photo of Hanako.", ("hanako",)),
        ("hanakos", ()),
        ("xhanako", ()),
        ("hanako-chan, hanako2", ("hanako",)),
        ("(hanako:1.2)", ("hanako",)),
        ("hanako_summer", ("hanako_summer",)),
        ("taro and hanako_summer and hanako", ("taro", "hanako_summer", "hanako")),
        ("", ()),
    ],
)
def test_embeddings_are_found_as_the_tokenizer_would(text: str, found: tuple[str, ...]) -> None:
    assert EmbeddingFinder(["hanako", "hanako_summer", "taro"])(text) == found


def test_no_embeddings() -> None:
    assert EmbeddingFinder([])("anything") == ()


# -- tags


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("a, b,, c ", ["a", "b", "c"]),
        ("(red hair, smile:1.2), hat", ["(red hair, smile:1.2)", "hat"]),
        ("[a, (b, c)], d", ["[a, (b, c)]", "d"]),
        (":(, hat, ;)", [":(", "hat", ";)"]),
        (":), hat", [":)", "hat"]),
        (r"saber \(fate, stay\), hat", [r"saber \(fate", r"stay\)", "hat"]),
        ("", []),
    ],
)
def test_brackets_hold_together(caption: str, tags: list[str]) -> None:
    assert split_tags(caption) == tags


@pytest.mark.parametrize(("text", "name"), [("My Girl 2", "my-girl"), ("10_aoi", "aoi"), ("...", "myword")])
def test_legal_names(text: str, name: str) -> None:
    assert legal_name(text) == name


FACES = [
    *(":(", ":)", ":[", ":]", ">:)", ">:(", ";(", ";)", "(:", "):", "[:", "=)", ":'(", ":-)", ";-(", ":((", ":))"),
    *(":3", "^_^", "[", "(", ")", "]", r"\(", "c(", "d:", ":<", ":>", ":/", ";3", "o_o", "@_@", ">_<", "\\o/", "\\m/"),
]
PLAIN = ["aoi", "blue hair", "1girl", r"saber \(fate\)", "long_hair", "d.va"]
GROUPS = {
    "(red hair:1.2)": [("red hair", 1.2)],
    "(smile, hat:1.3)": [("smile, hat", 1.3)],
    "((bow))": [("bow", 1.21)],
    "(smile:1.2)": [("smile", 1.2)],
    "[wall]": [("wall", 1 / 1.1)],
    "saber_(fate)": [("saber_", 1.0), ("fate", 1.1)],
    "(smile, :))": [("smile, :)", 1.1)],
    "(smile, :3)": [("smile, :3", 1.1)],
    "(:(, red:1.2)": [(":(, red", 1.2)],
    "(red, >:):1.2)": [("red, >:)", 1.2)],
}
ANY = st.text(alphabet="()[]:;=\\,^_<>' ab13.-", max_size=24)
TAGS = st.lists(st.sampled_from([*FACES, *PLAIN, *GROUPS]), max_size=8)


def weighed(text: str) -> list[tuple[str, float]]:
    """What prompts make of a text, letter by letter."""
    return [(letter, round(weight, 6)) for piece, weight in parse_emphasis(text) for letter in piece]


def meant(tags: list[str]) -> list[tuple[str, float]]:
    """What the authors of these tags meant."""
    found: list[tuple[str, float]] = []
    for place, tag in enumerate(tags):
        pieces = GROUPS.get(tag, [(re.sub(r"\\([()]|)", r"\1", tag), 1.0)])
        for text, weight in [(", ", 1.0)][: min(place, 1)] + pieces:
            found += [(letter, round(weight, 6)) for letter in text]
    return found


@pytest.mark.parametrize("face", FACES)
def test_a_face_does_not_weigh_what_follows(face: str) -> None:
    caption = f"aoi, {face}, blue hair, (smile:1.2), hat"
    drawn = CaptionPipeline()(caption, concept="", rng=random.Random(0))
    assert weighed(drawn) == meant(["aoi", face, "blue hair", "(smile:1.2)", "hat"])


@given(TAGS)
def test_tags_are_trained_as_they_were_meant(tags: list[str]) -> None:
    assert weighed(with_pairs_alone(", ".join(tags))) == meant(tags)


@given(TAGS, st.integers(0, 2**16), st.booleans())
def test_a_shuffled_caption_is_of_the_same_tags(tags: list[str], seed: int, emphasis: bool) -> None:
    pipeline = CaptionPipeline(CaptionSettings(shuffle=True, emphasis=emphasis))
    drawn = pipeline(", ".join(tags), concept="", rng=random.Random(seed))
    order = list(tags)
    random.Random(seed).shuffle(order)
    letters = [(re.sub(r"\\([()])", r"\1", tag), 1.0) for tag in order]
    literal = [(letter, 1.0) for letter in ", ".join(text for text, _ in letters)]
    assert weighed(drawn) == (meant(order) if emphasis else literal)


def test_brackets_of_two_tags_make_no_pair_in_another_order() -> None:
    pipeline = CaptionPipeline(CaptionSettings(shuffle=True))
    drawn = {pipeline("hat), (bow", concept="", rng=random.Random(seed)) for seed in range(9)}
    assert drawn == {r"hat\), \(bow", r"\(bow, hat\)"}


@given(ANY)
def test_nothing_weighs_to_the_end_and_no_letter_is_lost(text: str) -> None:
    written = with_pairs_alone(text)
    assert with_pairs_alone(written) == written
    parsed = parse_emphasis(f"{written}, zzz")
    assert parsed[-1][0].endswith("zzz") and parsed[-1][1] == pytest.approx(1.0)
    taken = {place for pair in pairs(text) for place in (pair.start, *range(pair.close, pair.end))}
    left = "".join(sign for place, sign in enumerate(text) if place not in taken)
    unescaped = re.sub(r"\\([()\[\]\\]?)", r"\1", left)
    assert "".join(piece for piece, _ in parse_emphasis(written)) == unescaped


@given(ANY)
def test_without_emphasis_captions_are_literal(text: str) -> None:
    assert parse_emphasis(as_letters(text)) == [(re.sub(r"\\([()\[\]])", r"\1", text), 1.0)]


@given(TAGS)
def test_tags_are_never_lost_nor_joined(tags: list[str]) -> None:
    caption = ", ".join(tags)
    assert split_tags(caption) == tags
    cut = Cut("##", ",")
    assert cut.join(cut.parts(caption)) == caption
    assert cut.tags(f"aoi ## {caption}") == ["aoi", *tags]
    faces = {tag for tag in tags if tag in FACES}
    twins = {r"\("} if "(" in faces else set()  # one tag, written in two ways
    assert faces - twins <= set(single_tags(caption)) & set(tag_counts([caption]))
    assert len({same_tag(face) for face in faces - {r"\("}}) == len(faces - {r"\("})


@given(ANY)
def test_what_is_peeled_is_the_whole(text: str) -> None:
    opening, inside, closing = peeled(text)
    assert opening + inside + closing == text
    group = split_group(text)
    if group is not None:
        assert group[0] + group[2] and "".join(group[1]).replace(" ", "") in text.replace(",", "").replace(" ", "")


def test_pruned_and_written_captions_keep_their_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {"1": "aoi, :(, red hair, (smile, :):1.2)", "2": "aoi, :), red hair, :]"}
    texts["3"] = "aoi, red hair, >:), hat, (:"
    root = write_pictures(tmp_path / "set", texts)
    embedding = {"name": "aoi", "prune": True, "absorb": ["red hair", ":]"]}
    (tmp_path / "run.json").write_text(json.dumps({"words": [embedding]}))
    assert main(["captions", str(root), str(tmp_path / "run.json"), "--write"]) == 0
    capsys.readouterr()
    assert [(root / f"{n}.txt").read_text().strip() for n in (1, 2, 3)] == [
        "aoi, :(, (smile, :):1.2)", "aoi, :)", "aoi, >:), hat, (:"
    ]  # fmt: skip


def test_tidied_captions_keep_brackets_on_both_sides_of_a_mark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "set", {"1": "aoi, (hat ||| bow), long hair, very long hair"})
    run = {"words": [{"name": "aoi"}], "data": {"prune_mode": "minimal"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert main(["captions", str(root), str(tmp_path / "run.json"), "--write"]) == 0
    capsys.readouterr()
    assert (root / "1.txt").read_text().strip() == "aoi, (hat ||| bow), very long hair"


def test_the_longest_caption_is_measured_with_its_letters() -> None:
    pipeline = CaptionPipeline(CaptionSettings())
    picture = Picture("1.png", Path("1.png"), "aoi, :(, hat", 8, 8, "")
    assert pipeline.longest(picture, len) == pipeline.draw(picture, rng=random.Random(0)) == r"aoi, :\(, hat"
