"""Single embedding files of other programs."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lib_pivotal.bundle.embedding_files import SUFFIXES, file_name, read_embedding, write_embedding
from lib_pivotal.errors import BundleError

L, G = torch.randn(2, 768), torch.randn(2, 1280)


@pytest.mark.parametrize("layout", list(SUFFIXES))
def test_sd1_in_every_layout_and_back(tmp_path: Path, layout: str) -> None:
    path = tmp_path / f"kira{SUFFIXES[layout]}"  # type: ignore[index]
    write_embedding(path, (L,), name="kira", layout=layout)  # type: ignore[arg-type]
    back = read_embedding(path)
    assert back.name == "kira" and len(back.vectors) == 1 and torch.equal(back.vectors[0], L)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("layout", list(SUFFIXES))
def test_sdxl_in_every_layout_and_back(tmp_path: Path, layout: str) -> None:
    path = tmp_path / f"kira{SUFFIXES[layout]}"  # type: ignore[index]
    write_embedding(path, (L, G), name="kira", layout=layout)  # type: ignore[arg-type]
    back = read_embedding(path).vectors
    assert torch.equal(back[0], L) and torch.equal(back[1], G)


def test_what_the_files_hold(tmp_path: Path) -> None:
    def keys(layout: str, *towers: torch.Tensor) -> set[str]:
        path = write_embedding(tmp_path / "x.safetensors", towers, name="x", layout=layout)  # type: ignore[arg-type]
        return set(safetensors.torch.load_file(path))

    assert keys("a1111", L) == keys("kohya", L) == {"emb_params"}
    assert keys("diffusers", L) == {"clip_l"}
    assert keys("a1111", L, G) == keys("diffusers", L, G) == {"clip_l", "clip_g"}
    facts = {"step": 500, "sd_checkpoint": "abc"}
    write_embedding(tmp_path / "x.pt", (L,), name="kira", layout="a1111_pt", facts=facts)
    found = torch.load(tmp_path / "x.pt", weights_only=True)
    assert set(found["string_to_param"]) == {"*"} and found["string_to_token"] == {"*": 265}
    assert (found["name"], found["step"], found["sd_checkpoint"]) == ("kira", 500, "abc")
    write_embedding(tmp_path / "y.pt", (L, G), name="kira", layout="hcp")
    assert torch.load(tmp_path / "y.pt", weights_only=True)["string_to_param"]["*"].shape == (2, 2048)


def test_a_web_ui_pt_with_its_facts(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(
        {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": torch.nn.Parameter(L)},
            "name": "kira",
            "step": 7,
            "sd_checkpoint": None,
        },
        path,
    )
    found = read_embedding(path)
    assert torch.equal(found.vectors[0], L) and not found.vectors[0].requires_grad
    assert found.facts["step"] == 7 and found.name == "old"


def test_parameter_dict_is_read_or_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(L)})}, path)
    try:
        assert torch.equal(read_embedding(path).vectors[0], L)
    except BundleError as error:
        assert "save it as .safetensors" in str(error) or "no embedding" in str(error)


def test_a_bare_tensor_and_a_diffusers_bin(tmp_path: Path) -> None:
    torch.save(L, tmp_path / "bare.pt")
    torch.save({"<cat-toy>": L[0]}, tmp_path / "learned_embeds.bin")
    assert torch.equal(read_embedding(tmp_path / "bare.pt").vectors[0], L)
    assert torch.equal(read_embedding(tmp_path / "learned_embeds.bin").vectors[0], L[:1])


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        ((torch.full((1, 768), float("nan")),), "not finite"),
        ((torch.ones(76, 768),), "76 vectors"),
        ((torch.ones(1, 2048),), "fits no model"),
    ],
)
def test_bad_vectors_are_not_written(tmp_path: Path, vectors: tuple[torch.Tensor, ...], reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        write_embedding(tmp_path / "x.safetensors", vectors, name="x")
    assert not list(tmp_path.iterdir())


def test_a_pt_of_sdxl_holds_its_two_tensors_and_nothing_else(tmp_path: Path) -> None:
    """The web UI calls `.detach()` on every value of a file with clip_l and clip_g: a name or a step would break it."""
    facts = {"step": 500, "sd_checkpoint": "abc"}
    write_embedding(tmp_path / "x.pt", (L, G), name="x", layout="a1111_pt", facts=facts)
    found = torch.load(tmp_path / "x.pt", weights_only=True)
    assert type(found) is dict and set(found) == {"clip_l", "clip_g"}
    assert torch.equal(found["clip_l"], L) and torch.equal(found["clip_g"], G)


def test_a_layout_has_its_suffix(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"ends in \.pt"):
        write_embedding(tmp_path / "x.safetensors", (L,), name="x", layout="hcp")


def test_what_is_no_embedding(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(2, 2), "b": torch.ones(2, 2)}, tmp_path / "two.safetensors")
    safetensors.torch.save_file({"a": torch.full((1, 768), float("inf"))}, tmp_path / "inf.safetensors")
    (tmp_path / "x.png").write_bytes(b"")
    torch.save([L], tmp_path / "list.pt")
    for name, reason in (
        ("two.safetensors", "several terms"),
        ("inf.safetensors", "not numbers"),
        ("x.png", r"are \.safetensors"),
        ("list.pt", "holds a list"),
    ):
        with pytest.raises(BundleError, match=reason):
            read_embedding(tmp_path / name)


def test_file_names() -> None:
    assert file_name("kira", "a1111") == "kira.safetensors"
    assert file_name("<s1>", "hcp") == "_s1_.pt"
    for name in ("../x", "/x", ".x", "a/b", "a\\b", "", "x.", "a\nb", "C:x"):
        with pytest.raises(BundleError, match="no file can safely"):
            file_name(name, "a1111")


@pytest.mark.parametrize("towers", [(L,), (L, G)], ids=["sd1", "sdxl"])
@pytest.mark.parametrize("layout", ["a1111_pt", "hcp"])
def test_a_pt_holds_nothing_that_the_web_ui_refuses(tmp_path, layout, towers):
    """modules/safe.py:68 of v1.10.1; newer versions of torch write more members."""
    path = write_embedding(tmp_path / "aoi.pt", towers, name="aoi", layout=layout)
    allowed = re.compile(r"^([^/]+)/((data/\d+)|version|byteorder|.data/serialization_id|(data\.pkl))$")
    with zipfile.ZipFile(path) as archive:
        assert all(allowed.match(name) for name in archive.namelist())
    assert torch.equal(read_embedding(path).vectors[0], L)


def test_onetrainer_reads_its_own_name_alone(tmp_path: Path) -> None:
    """OneTrainer 23df383, modelSaver/stableDiffusion/StableDiffusionEmbeddingSaver.py:29 (`emp_params`, sic)."""
    one = write_embedding(tmp_path / "one.safetensors", (L,), name="x", layout="onetrainer")
    two = write_embedding(tmp_path / "two.safetensors", (L, G), name="x", layout="onetrainer")
    assert set(safetensors.torch.load_file(one)) == {"emp_params"}
    assert set(safetensors.torch.load_file(two)) == {"clip_l", "clip_g"}
    assert torch.equal(read_embedding(one).vectors[0], L)
