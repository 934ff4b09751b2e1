"""Reading captions, finding words in them, and the chain of changes at each draw."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.captions import WordFinder, caption_from_name, decode, legal_name, read_captions, split_tags

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
    ("lines", "captions"), [("join", ("a, b, c, a, b",)), ("draw", ("a, b", "c")), ("first", ("a, b",))]
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
    ("words", "join", "caption"),
    [
        (r"[^_]+", ", ", "a red, hat.v2"),
        (r"[a-z]+", " ", "a red hat v"),
        (r"_([a-z]+)", " ", "hat"),
        (r"\d+$", " ", "2"),
        ("zzz", " ", ""),
    ],
)
def test_caption_from_name_by_the_web_uis_filename_word_regex(words: str, join: str, caption: str) -> None:
    """As modules/textual_inversion/dataset.py has it: `re.sub(numbers at the start)`, `findall`, `join`."""
    stem = "0012-a red_hat.v2"
    assert caption_from_name(stem, words, join) == caption
    assert caption == join.join(re.findall(words, re.sub(r"^[-\d]+\s*", "", stem)))


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
def test_words_are_found_as_the_tokenizer_would(text: str, found: tuple[str, ...]) -> None:
    assert WordFinder(["hanako", "hanako_summer", "taro"])(text) == found


def test_no_words() -> None:
    assert WordFinder([])("anything") == ()


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
