"""Malformed files: refused with a reason, or one part skipped with a reason; never a crash, never a hang."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.verify import verify
from lib_pivotal.errors import BundleError

GOOD = {"dtype": "F32", "shape": [1, 4], "data_offsets": [0, 16]}
KEY = "bundle_emb.dog.string_to_param.*"
DATA = b"\0" * 16


def entry(**changes: Any) -> dict[str, Any]:
    return {KEY: {**GOOD, **changes}}


@pytest.mark.parametrize(
    ("header", "data", "claim", "reason"),
    [
        (b"", b"", 0, "header of 0 bytes"),
        (b"{}", b"", 3, "header of 3 bytes"),
        (b"{}", b"", 2**63, "the limit is"),
        (b"{}", b"", 100_000_001, "the limit is"),
        (b"[1]", b"", None, "does not begin"),
        (b"{nonsense", b"", None, "not JSON"),
        (b"{\xff\xfe}", b"", None, "not JSON"),
        (b'{"a":' * 100_000, b"", None, "not JSON"),
        (b'{"a":1}', b"", None, "no description"),
        (b'{"__metadata__":[]}', b"", None, "no table|not a table"),
        (entry(dtype=3), DATA, None, "has dtype 3"),
        (entry(shape=[1, -4]), DATA, None, "has shape"),
        (entry(shape=[1, 4.0]), DATA, None, "has shape"),
        (entry(shape=[True, 4]), DATA, None, "has shape"),
        (entry(shape="4"), DATA, None, "has shape"),
        (entry(shape=[10**30, 10**30]), DATA, None, "has shape"),
        (entry(shape=[2**15, 2**15]), DATA, None, "needs 4,294,967,296 bytes, has 16"),
        (entry(data_offsets=[16, 0]), DATA, None, "data_offsets"),
        (entry(data_offsets=[0]), DATA, None, "data_offsets"),
        (entry(data_offsets=[0, 8]), DATA, None, "needs 16 bytes, has 8"),
        (entry(), DATA[:7], None, "cut off"),
        (entry(), DATA + b"more", None, "belong to no tensor"),
        (entry(data_offsets=[8, 24]), DATA + b"\0" * 8, None, "gap"),
        ({KEY: GOOD, "b": {**GOOD, "data_offsets": [8, 24]}}, DATA + b"\0" * 8, None, "overlap"),
        ({KEY: GOOD, "b": GOOD}, DATA, None, "overlap"),
        ({KEY: {"dtype": "F32", "shape": [1, 4]}}, DATA, None, "data_offsets None"),
    ],
)
@pytest.mark.parametrize("reader", [read_bundle, list_bundle])
def test_a_lying_structure_is_refused(
    raw: Callable[..., Path], reader: Callable[[Path], object], header: Any, data: bytes, claim: int | None, reason: str
) -> None:
    path = raw(header, data, claim=claim)
    with pytest.raises(BundleError, match=reason) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert verify(path)[0].severity == "error"


@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 7, b"\xff" * 64, b"<html>not found</html>" * 40])
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for reader in (read_bundle, list_bundle):
        with pytest.raises(BundleError):
            reader(path)


def test_a_key_twice(raw: Callable[..., Path]) -> None:
    once = f'"{KEY}":{json.dumps(GOOD)}'
    with pytest.raises(BundleError, match="more than once"):
        read_bundle(raw(f"{{{once},{once}}}".encode(), DATA))


def embeddings_file(raw: Callable[..., Path], keys: dict[str, tuple[str, list[int], int]]) -> Path:
    """A file of zeros with these tensors: key -> (dtype, shape, bytes)."""
    header, at = {}, 0
    for key, (dtype, shape, size) in keys.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return raw(header, b"\0" * at)


@pytest.mark.parametrize(
    ("key", "tensor", "reason"),
    [
        ("bundle_emb.bad.clip_l", ("F7", [1, 4], 16), "dtype F7 is unknown|skipped"),
        ("bundle_emb.bad.clip_l", ("I32", [1, 4], 16), "dtype I32"),
        ("bundle_emb.bad.clip_l", ("BOOL", [4, 4], 16), "dtype BOOL"),
        ("bundle_emb.bad.clip_l", ("F32", [0, 768], 0), "holds nothing"),
        ("bundle_emb.bad.clip_l", ("F16", [100_000, 4], 800_000), "100000 vectors"),
        ("bundle_emb.bad.clip_l", ("F32", [1, 1, 4], 16), "shape"),
        ("bundle_emb.bad.clip_l", ("F32", [], 4), "shape"),
        ("bundle_emb.bad.clip_g", ("F32", [1, 1280], 5120), "without clip_l"),
        ("bundle_emb.bad", ("F32", [1, 4], 16), "needs a name and a tensor"),
        ("bundle_emb..clip_l", ("F32", [1, 4], 16), "needs a name and a tensor"),
        ("bundle_emb.", ("F32", [1, 4], 16), "needs a name and a tensor"),
    ],
)
def test_one_bad_embedding_is_skipped_and_the_rest_is_read(
    raw: Callable[..., Path], key: str, tensor: tuple[str, list[int], int], reason: str
) -> None:
    path = embeddings_file(raw, {"bundle_emb.good.clip_l": ("F32", [2, 4], 32), key: tensor})
    bundle = read_bundle(path)
    assert set(bundle.embeddings) == {"good"}
    assert len(bundle.errors) == 1
    assert re.search(reason, bundle.errors[0].what)
    assert "good" in {embedding.name for embedding in list_bundle(path).embeddings}


DANGEROUS = ["../../evil", "/etc/x", "C:\\x", "..", "a\0b", "犬", "👩‍🎤", "ＤＯＧ", "e\u0301", "\u202egod", " "]


@pytest.mark.parametrize("name", [*DANGEROUS, "a" * 5000, "%s{}", "<lora:x:1>"])
def test_dangerous_names_are_read_as_names_and_told(raw: Callable[..., Path], name: str) -> None:
    path = embeddings_file(raw, {f"bundle_emb.{name}.clip_l": ("F32", [1, 4], 16)})
    bundle = read_bundle(path)
    assert list(bundle.embeddings) == [name]
    assert [problem.severity for problem in bundle.problems] == ["warning"]
    assert list_bundle(path).embeddings[0].name == name


def test_nan_and_infinite_vectors(raw: Callable[..., Path]) -> None:
    for bits in (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"):
        bundle = read_bundle(raw(entry(), DATA[:12] + bits))
        assert not bundle.embeddings and "not numbers" in bundle.errors[0].what


def test_metadata_that_is_no_text(raw: Callable[..., Path]) -> None:
    bundle = read_bundle(raw({"__metadata__": {"a": 1, "b": {"c": []}, "d": "text"}, **entry()}, DATA))
    assert bundle.metadata == {"a": "1", "b": '{"c": []}', "d": "text"}
    assert {problem.key for problem in bundle.problems} == {"a", "b"}


def test_many_embeddings_are_no_trouble(raw: Callable[..., Path]) -> None:
    path = embeddings_file(raw, {f"bundle_emb.w{i}x.clip_l": ("F32", [1, 4], 16) for i in range(3000)})
    assert len(list_bundle(path).embeddings) == len(read_bundle(path).embeddings) == 3000


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_random_damage_never_crashes(raw: Callable[..., Path], position: int, byte: int, cut: int) -> None:
    alpha = {"dtype": "F32", "shape": [], "data_offsets": [16, 20]}
    header = {"__metadata__": {"ss_v2": "False"}, **entry(), "lora_unet_x.alpha": alpha}
    path = raw(header, b"\0" * 20)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = byte
    path.write_bytes(content[: len(content) - (cut if cut < 50 else 0)])
    for reader in (read_bundle, list_bundle):
        try:
            reader(path)
        except BundleError as error:
            assert path.name in str(error)
