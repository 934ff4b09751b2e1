"""What people have instead of the file that they meant to download is told by name, whichever reader meets it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.bundle.file_kinds import alien, kind_of
from lib_pivotal.bundle.listing import list_bundle, list_folder
from lib_pivotal.bundle.quick_header import glance
from lib_pivotal.bundle.reader import read_bundle, read_embeddings
from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.bundle.verify import verify
from lib_pivotal.errors import BundleError

PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>" + b"x" * 5000 + b"</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0123456789abcdef" * 4 + b"\nsize 3824\n"
INSTEAD = {
    "a pointer": (POINTER, r"git-LFS pointer.* 3,824 bytes.*Download the file itself"),
    "an annex pointer": (b"/annex/objects/SHA256E-s3824--0123.safetensors\n", "git-annex pointer"),
    "a page": (PAGE, "web page.*Download the file itself"),
    "a page after blanks": (b"\xef\xbb\xbf\r\n  " + PAGE, "web page"),
    "a page in UTF-16": ("\ufeff<html><body>Anmelden</body></html>".encode("utf-16-le"), "web page"),
    "an XML message": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
    "a message": (b'{"error": "unauthorized"}', r"message in JSON \(\{\"error\": \"unauthorized\"\}"),
    "a list in JSON": (b'[{"message": "not found"}]', "message in JSON"),
    "a text": (b"Entry not found", r"a text \(Entry not found"),
    "a text with umlauts": ("Zugriff verweigert für diesen Schlüssel".encode(), "a text"),
    "nothing": (b"", "is empty"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG picture"),
    "a gzip archive": (b"\x1f\x8b\x08" + bytes(100), "gzip archive"),
    "a 7-Zip archive": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "7-Zip archive"),
}
READERS: dict[str, Callable[[Path], object]] = {
    "header": read_header,
    "glance": glance,
    "list": list_bundle,
    "bundle": read_bundle,
    "words": read_embeddings,
    "embedding": read_embedding,
}


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("what", INSTEAD)
def test_every_reader_says_what_the_file_is(what: str, suffix: str, tmp_path: Path) -> None:
    content, told = INSTEAD[what]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    for read in READERS.values():
        with pytest.raises(BundleError, match=rf"x{suffix}: is .*{told}|x{suffix}: {told}"):
            read(path)
    (problem,) = verify(path)
    assert problem.severity == "error" and str(path) in problem.what


def test_real_files_are_no_aliens(tmp_path: Path) -> None:
    for name, write in (
        ("a.safetensors", lambda path: safetensors.torch.save_file({"a": torch.ones(2)}, path)),
        ("a.pt", lambda path: torch.save({"a": torch.ones(2)}, path)),
        ("old.pt", lambda path: torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)),
    ):
        path = tmp_path / name
        write(path)
        assert alien(path) is None
        assert kind_of(path) == ("safetensors" if name.endswith("safetensors") else "torch")


def test_a_file_is_read_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    vectors = torch.randn(2, 768)
    (tmp_path / "a.pt").write_bytes(safetensors.torch.save({"emb_params": vectors}))
    buffer = io.BytesIO()
    torch.save({"string_to_param": {"*": vectors}}, buffer)
    (tmp_path / "b.safetensors").write_bytes(buffer.getvalue())
    for name in ("a.pt", "b.safetensors"):
        assert torch.equal(read_embedding(tmp_path / name).vectors[0], vectors)
        assert [embedding.vectors for embedding in list_bundle(tmp_path / name).embeddings] == [2]
    with pytest.raises(BundleError, match=r"b\.safetensors: is a torch file"):
        read_header(tmp_path / "b.safetensors")


EMBEDDINGS: dict[str, object] = {
    "a1111.pt": {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(2, 768)}, "name": "x", "step": 1},
    "diffusers.bin": {"<cat-toy>": torch.zeros(768)},
    "kohya.pt": {"emb_params": torch.zeros(2, 768)},
    "tensor.pt": torch.zeros(3, 1024),
}  # fmt: skip


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_good_pt_is_listed_as_the_embedding_that_it_holds(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    torch.save(EMBEDDINGS[name], path)
    summary = list_bundle(path)
    assert [embedding.name for embedding in summary.embeddings] == [path.stem]
    assert summary.family in ("sd1", "sd2") and not summary.parts
    assert not [problem for problem in summary.problems if problem.severity == "error"]


def test_an_embedding_of_two_encoders_is_listed_as_one(tmp_path: Path) -> None:
    tensors = {"clip_l": torch.zeros(4, 768), "clip_g": torch.zeros(4, 1280)}
    safetensors.torch.save_file(tensors, tmp_path / "xl.safetensors")
    (summary,) = list_folder(tmp_path)
    assert [(embedding.name, embedding.vectors) for embedding in summary.embeddings] == [
        ("xl", 4)
    ] and summary.family == "sdxl"


def test_a_lora_saved_by_torch_is_listed_with_its_parts(tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_proj_in"
    torch.save(
        {f"{name}.lora_down.weight": torch.ones(4, 8), f"{name}.lora_up.weight": torch.ones(8, 4)}, tmp_path / "l.pt"
    )
    summary = list_bundle(tmp_path / "l.pt")
    assert summary.parts == ("unet",) and summary.rank == 4 and summary.network_bytes == 256
    assert summary.file_bytes == (tmp_path / "l.pt").stat().st_size
