"""The workshop inside the web UI: what it writes is what one gets in pictures."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.live.conftest import Family, RequestFailedError
from tests.live.situations import Situation

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture
def s(pivotal: Situation) -> Situation:
    return pivotal


def work(s: Situation, verb: str, **body: Any) -> Any:
    return s.webui.call(f"/pivotal/v1/bundles/{verb}", body)


PREFIX = {"te": "lora_te1_", "te2": "lora_te2_"}
"""How kohya calls the layers of SDXL's text encoders."""


def split_embedding(s: Situation, file: str, embedding: str, layout: str) -> Path:
    """The file that `split` writes for a word."""
    written = [Path(path) for path in work(s, "split", name=file, layout=layout, overwrite=True)["written"]]
    return next(path for path in written if path.stem == embedding)


def laid_into_the_folder(s: Situation, embedding: Path, name: str) -> None:
    """Give the web UI an embedding file under another name."""
    (s.webui.embeddings_folder / f"{name}{embedding.suffix}").write_bytes(embedding.read_bytes())
    s.webui.call("/sdapi/v1/refresh-embeddings", {})


def test_a_renamed_embedding_makes_the_same_picture(s: Situation) -> None:
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
    work(s, "delete", name=joined, embeddings=[two])
    assert s.pixels(f"<lora:{joined}:1> {one} and {two}") == s.pixels(f"{refs[0]} and {two}")
    work(s, "add", name=joined, embeddings=[refs[1]])
    assert s.pixels(f"<lora:{joined}:1> {one} and {refs[1]}@{joined}") == s.pixels(f"{refs[0]} and {refs[1]}")


def test_strip_and_split(s: Situation) -> None:
    embedding = s.fresh()
    file = s.bundle({embedding: s.vectors(4)}, parts=("unet", "te"))
    stripped = s.fresh("stripped")
    work(s, "strip", name=file, parts=s.material.text_parts, new_name=stripped)  # the tag's weight is for all of them
    assert s.pixels(f"<lora:{stripped}:1> a {embedding}") == s.pixels(f"<lora:{file}:0:1> a {embedding}")
    for layout in ("a1111", "a1111_pt"):
        target = s.fresh("apart")
        laid_into_the_folder(s, split_embedding(s, file, embedding, layout), target)
        assert s.pixels(f"a {target} face") == s.pixels(f"<words:{file}> a {embedding} face")


@pytest.mark.parametrize("part", ["te", "te2"])
def test_one_of_two_text_encoders_is_stripped(s: Situation, part: str) -> None:
    """The other one's network stays: no tag can say that, so it is compared with a file written without the part."""
    if part not in s.material.text_parts or len(s.material.text_parts) == 1:
        pytest.skip("only SDXL has two text encoders")
    embedding, vectors, stripped = s.fresh(), s.vectors(11), s.fresh("stripped")
    whole = s.bundle({embedding: vectors}, parts=("unet", "te", "te2"))
    rest = {key: tensor for key, tensor in s.material.network("unet", "te", "te2").items() if PREFIX[part] not in key}
    written = s.bundle({embedding: vectors}, extra=rest)
    work(s, "strip", name=whole, parts=[part], new_name=stripped)
    picture = s.pixels(f"<lora:{stripped}:1> a {embedding}")
    assert picture == s.pixels(f"<lora:{written}:1> a {embedding}")
    assert picture not in (s.pixels(f"<lora:{whole}:1> a {embedding}"), s.pixels(f"<lora:{whole}:0:1> a {embedding}"))


def test_converted_there_and_back_makes_the_same_picture(s: Situation) -> None:
    """diffusers' layout and kohya's again; words stay behind, as those loaders know none."""
    embedding = s.fresh()
    file = s.bundle({embedding: s.vectors(9)}, parts=("unet", "te"))
    named, back = s.fresh("diffusers"), s.fresh("back")
    there = Path(work(s, "convert", name=file, layout="diffusers")["written"][0])
    (s.webui.lora_folder / f"{named}.safetensors").write_bytes(there.read_bytes())
    s.webui.call("/sdapi/v1/refresh-loras", {})
    again = Path(work(s, "convert", name=named, layout="kohya")["written"][0])
    (s.webui.lora_folder / f"{back}.safetensors").write_bytes(again.read_bytes())
    s.webui.call("/sdapi/v1/refresh-loras", {})
    whole = s.pixels(f"<lora:{file}:1> a face")
    assert s.pixels(f"<lora:{back}:1> a face") == whole != s.pixels("a face")
    assert s.pixels(f"<lora:{back}:1> a {embedding} face") != s.pixels(f"<lora:{file}:1> a {embedding} face")


@pytest.mark.parametrize("layout", ["a1111", "a1111_pt", "kohya", "hcp", "diffusers"])
def test_each_form_of_embedding_that_this_web_ui_takes(s: Situation, family: Family, layout: str) -> None:
    """v1.10.1 reads A1111's, diffusers' and kohya's files by their single tensor or SDXL's two; HCP's pickle too."""
    if (family.name, layout) == ("sdxl", "hcp"):
        pytest.skip("the web UI fails on HCP's form of SDXL: test_hcps_form_of_sdxl")
    embedding, target = s.fresh(), s.fresh("apart")
    file = s.bundle({embedding: s.vectors(8)})
    laid_into_the_folder(s, split_embedding(s, file, embedding, layout), target)
    assert s.pixels(f"a {target} face") == s.pixels(f"<words:{file}> a {embedding} face") != s.pixels("a face")


def test_hcps_form_of_sdxl(s: Situation, family: Family) -> None:
    """Both encoders side by side: HCP's tool takes them apart at column 768, the web UI cannot, a bundle can."""
    if family.name != "sdxl":
        pytest.skip("only SDXL has two encoders")
    embedding, target, vectors = s.fresh(), s.fresh("apart"), s.vectors(8)
    file = s.bundle({embedding: vectors})
    written = split_embedding(s, file, embedding, "hcp")
    held = torch.load(written, weights_only=True)["string_to_param"]["*"]
    assert torch.equal(held[:, :768], vectors[0]) and torch.equal(held[:, 768:], vectors[1])
    laid_into_the_folder(s, written, target)
    expected = s.pixels(f"<words:{file}> a {embedding} face")
    with pytest.raises(RequestFailedError, match="500"):
        s.pixels(f"a {target} face")
    other = s.bundle({s.fresh(): s.vectors(9)})
    work(s, "add", name=other, embeddings=[target])
    assert s.pixels(f"<words:{other}> a {target} face") == expected != s.pixels("a face")


def test_verify_asks_the_web_uis_own_loader(s: Situation, family: Family) -> None:
    """It cuts names at their first dot. Of SDXL's two tensors it then knows neither, and refuses the file."""
    embedding, odd = s.fresh(), f"{s.fresh()}.v2"
    good, dotted = s.bundle({embedding: s.vectors(5)}, parts=("unet",)), s.bundle({odd: s.vectors(6)})
    assert not any("without this extension" in problem for problem in work(s, "verify", name=good)["problems"])
    told = work(s, "verify", name=dotted)["problems"]
    mine = [problem for problem in told if "without this extension" in problem]
    assert len(mine) == 1 and ("refuses the whole file" if family.name == "sdxl" else "knows other names") in mine[0]
    assert odd in mine[0].partition("name")[2] and "ename" in mine[0], "which word is to be renamed"


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
    embedding, crafted = s.fresh(), s.fresh("crafted")
    reference, file = s.embedding(s.vectors(10)), s.bundle({embedding: s.vectors(10)})
    path = s.webui.lora_folder / f"{crafted}.safetensors"
    raw = CRAFTED[kind].encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    s.webui.call("/sdapi/v1/refresh-loras", {})
    try:
        listed = {entry["name"]: entry for entry in s.webui.call("/pivotal/v1/bundles")}
        assert [entry["name"] for entry in listed[file]["words"]] == [embedding]
        assert s.pixels(f"<lora:{crafted}:1><lora:{file}:1> a {embedding} face") == s.pixels(f"a {reference} face")
    finally:
        path.unlink()
        s.webui.call("/sdapi/v1/refresh-loras", {})
