"""The workshop inside the web UI: what it writes is what one gets in pictures."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import RequestFailedError
from tests.live.situations import Situation

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture
def s(pivotal: Situation) -> Situation:
    return pivotal


def work(s: Situation, verb: str, **body: Any) -> Any:
    return s.webui.call(f"/pivotal/v1/bundles/{verb}", body)


def test_a_renamed_word_makes_the_same_picture(s: Situation) -> None:
    old, new = s.fresh(), s.fresh()
    file = s.bundle({old: s.vectors(1)}, parts=("unet", "te"))
    before = s.pixels(f"<lora:{file}:1> a {old} face")
    work(s, "rename", name=file, renames={old: new})
    assert s.pixels(f"<lora:{file}:1> a {new} face") == before
    assert s.pixels(f"<lora:{file}:1> a {old} face") != before


def test_join_delete_and_add(s: Situation) -> None:
    one, two = s.fresh(), s.fresh()
    files = s.bundle({one: s.vectors(2)}), s.bundle({two: s.vectors(3)})
    refs = s.embedding(s.vectors(2)), s.embedding(s.vectors(3))
    joined = s.fresh("joined")
    work(s, "join", names=list(files), new_name=joined)
    assert s.pixels(f"<lora:{joined}:1> {one} and {two}") == s.pixels(f"{refs[0]} and {refs[1]}")
    work(s, "delete", name=joined, words=[two])
    assert s.pixels(f"<lora:{joined}:1> {one} and {two}") == s.pixels(f"{refs[0]} and {two}")
    work(s, "add", name=joined, embeddings=[refs[1]])
    assert s.pixels(f"<lora:{joined}:1> {one} and {refs[1]}@{joined}") == s.pixels(f"{refs[0]} and {refs[1]}")


def test_strip_and_split(s: Situation) -> None:
    word = s.fresh()
    file = s.bundle({word: s.vectors(4)}, parts=("unet", "te"))
    stripped = s.fresh("stripped")
    work(s, "strip", name=file, parts=["te"], new_name=stripped)
    assert s.pixels(f"<lora:{stripped}:1> a {word}") == s.pixels(f"<lora:{file}:0:1> a {word}")
    for layout in ("a1111", "a1111_pt"):
        written = [Path(path) for path in work(s, "split", name=file, layout=layout)["written"]]
        embedding = next(path for path in written if path.stem == word)
        target = s.fresh("apart")
        (s.webui.embeddings_folder / f"{target}{embedding.suffix}").write_bytes(embedding.read_bytes())
        s.webui.call("/sdapi/v1/refresh-embeddings", {})
        assert s.pixels(f"a {target} face") == s.pixels(f"<words:{file}> a {word} face")


def test_converted_there_and_back_makes_the_same_picture(s: Situation) -> None:
    """diffusers' layout and kohya's again; words stay behind, as those loaders know none."""
    word = s.fresh()
    file = s.bundle({word: s.vectors(9)}, parts=("unet", "te"))
    back = s.fresh("back")
    there = Path(work(s, "convert", name=file, layout="diffusers")["written"][0])
    (s.webui.lora_folder / f"{s.fresh('diffusers')}.safetensors").write_bytes(there.read_bytes())
    s.webui.call("/sdapi/v1/refresh-loras", {})
    named = next(path.stem for path in s.webui.lora_folder.glob("diffusers*.safetensors"))
    again = Path(work(s, "convert", name=named, layout="kohya")["written"][0])
    (s.webui.lora_folder / f"{back}.safetensors").write_bytes(again.read_bytes())
    s.webui.call("/sdapi/v1/refresh-loras", {})
    whole = s.pixels(f"<lora:{file}:1> a face")
    assert s.pixels(f"<lora:{back}:1> a face") == whole != s.pixels("a face")
    assert s.pixels(f"<lora:{back}:1> a {word} face") != s.pixels(f"<lora:{file}:1> a {word} face")


@pytest.mark.parametrize("layout", ["a1111", "a1111_pt", "kohya", "hcp", "diffusers"])
def test_each_form_of_embedding_that_this_web_ui_takes(s: Situation, layout: str) -> None:
    """v1.10.1 reads A1111's, diffusers' and kohya's files by their single tensor; HCP's pickle as its own."""
    word, target = s.fresh(), s.fresh("apart")
    file = s.bundle({word: s.vectors(8)})
    written = [Path(path) for path in work(s, "split", name=file, layout=layout)["written"]]
    embedding = next(path for path in written if path.name.split(".")[0] == word)
    (s.webui.embeddings_folder / f"{target}{embedding.suffix}").write_bytes(embedding.read_bytes())
    s.webui.call("/sdapi/v1/refresh-embeddings", {})
    assert s.pixels(f"a {target} face") == s.pixels(f"<words:{file}> a {word} face") != s.pixels("a face")


def test_verify_asks_the_web_uis_own_loader(s: Situation) -> None:
    word, odd = s.fresh(), f"{s.fresh()}.v2"
    good, dotted = s.bundle({word: s.vectors(5)}, parts=("unet",)), s.bundle({odd: s.vectors(6)})
    assert not any("without this extension" in problem for problem in work(s, "verify", name=good)["problems"])
    told = work(s, "verify", name=dotted)["problems"]
    assert any("knows other names" in problem for problem in told)


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("rename", {"name": "nothing-here", "renames": {}}, 400),
        ("rename", {"name": "x"}, 422),
        ("rename", {"name": 3, "renames": {}}, 422),
        ("strip", {"name": "x", "parts": ["te"], "path": "/etc/passwd"}, 422),
        ("fly", {"name": "x"}, 404),
    ],
)
def test_what_cannot_be_done_is_said(s: Situation, verb: str, body: dict[str, Any], status: int) -> None:
    with pytest.raises(RequestFailedError, match=f": {status} "):
        work(s, verb, **body)


def test_no_file_leaves_the_folder(s: Situation) -> None:
    file = s.bundle({s.fresh(): s.vectors(7)})
    with pytest.raises(RequestFailedError, match="without folders"):
        work(s, "strip", name=file, parts=["te"], new_name="../outside")


CRAFTED = {
    "list": '{"bundle_emb.a.clip_l": {"dtype": "F16", "shape": [[1], 768], "data_offsets": [0, 0]}}',
    "digits": f'{{"__metadata__": {{"x": {"1" * 5000}}}}}',
    "deep": f'{{"bundle_emb.a.clip_l": {{"dtype": "F16", "shape": {"[" * 100_000}{"]" * 100_000}}}}}',
    "half": '{"bundle_emb.\\ud800.clip_l": {"dtype": "F16", "shape": [0, 64], "data_offsets": [0, 0]}}',
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_a_crafted_file_costs_the_others_nothing(s: Situation, kind: str) -> None:
    """A header that no program writes: the other files are listed, and their words work beside its tag."""
    word, crafted = s.fresh(), s.fresh("crafted")
    reference, file = s.embedding(s.vectors(10)), s.bundle({word: s.vectors(10)})
    path = s.webui.lora_folder / f"{crafted}.safetensors"
    raw = CRAFTED[kind].encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    s.webui.call("/sdapi/v1/refresh-loras", {})
    try:
        listed = {entry["name"]: entry for entry in s.webui.call("/pivotal/v1/bundles")}
        assert [entry["name"] for entry in listed[file]["words"]] == [word]
        assert s.pixels(f"<lora:{crafted}:1><lora:{file}:1> a {word} face") == s.pixels(f"a {reference} face")
    finally:
        path.unlink()
        s.webui.call("/sdapi/v1/refresh-loras", {})
