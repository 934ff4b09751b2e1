"""The grammar of keys and names."""

from __future__ import annotations

import re
import string
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_pivotal.bundle.format import (
    EmbeddingKey,
    check_vectors,
    check_widths,
    embedding_keys,
    family_of_widths,
    is_embedding_key,
    parse_embedding_key,
)

LEGAL = re.compile(r"[a-z]([a-z0-9_-]*[a-z])?")
letters = st.sampled_from(string.ascii_lowercase)
middles = st.text(string.ascii_lowercase + string.digits + "_-", max_size=98)
legal_names = letters | st.tuples(letters, middles, letters).map("".join)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("key", "name", "tensor"),
    [
        ("bundle_emb.dog.string_to_param.*", "dog", "string_to_param.*"),
        ("bundle_emb.dog.string_to_param.dog", "dog", "string_to_param.dog"),
        ("bundle_emb.dog.string_to_param.a.b", "dog", "string_to_param.a.b"),
        ("bundle_emb.dog.string_to_param", "dog", "string_to_param"),
        ("bundle_emb.v1.5-girl.string_to_param.*", "v1.5-girl", "string_to_param.*"),
        ("bundle_emb.v1.5-girl.clip_l", "v1.5-girl", "clip_l"),
        ("bundle_emb.a.b.c.emb_params", "a.b.c", "emb_params"),
        ("bundle_emb.ema yasuhara.clip_g", "ema yasuhara", "clip_g"),
        ("bundle_emb.<embedding>.clip_l_out", "<embedding>", "clip_l_out"),
        ("bundle_emb.string_to_param.string_to_param.*", "string_to_param", "string_to_param.*"),
        ("bundle_emb.dog.<s1>", "dog", "<s1>"),
    ],
)
def test_keys_are_read_from_the_right(key: str, name: str, tensor: str) -> None:
    assert parse_embedding_key(key) == EmbeddingKey(name, tensor)


@pytest.mark.parametrize(
    "key", ["bundle_emb.", "bundle_emb.dog", "bundle_emb..clip_l", "bundle_emb.dog.", "bundle_emb"]
)
def test_keys_without_name_or_tensor(key: str) -> None:
    assert parse_embedding_key(key) is None
    assert is_embedding_key(key)


def test_other_keys_are_not_embeddings() -> None:
    assert not is_embedding_key("lora_unet_x.alpha")
    assert not is_embedding_key("bundle_embx.dog.clip_l")
    assert parse_embedding_key("lora_unet_x.alpha") is None


@unhurried
@given(legal_names, st.sampled_from([1, 2]))
def test_written_keys_are_read_back(name: str, towers: int) -> None:
    keys = embedding_keys(name, towers)
    assert len(keys) == towers
    assert [parse_embedding_key(key).name for key in keys] == [name] * towers  # type: ignore[union-attr]


@pytest.mark.parametrize("widths", [(768,), (1024,), (768, 1280), (64,), (64, 96)])
def test_widths_that_fit(widths: tuple[int, ...]) -> None:
    assert check_widths(widths) is None


@pytest.mark.parametrize("widths", [(), (0,), (1280,), (2048,), (1280, 768), (768, 768), (768, 64), (1, 2, 3)])
def test_widths_that_do_not(widths: tuple[int, ...]) -> None:
    assert check_widths(widths)


def test_vector_counts() -> None:
    assert [bool(check_vectors(count)) for count in (0, 1, 75, 76)] == [True, False, False, True]


def test_family_of_widths() -> None:
    assert [family_of_widths(w) for w in ((768,), (1024,), (768, 1280), (64,))] == ["sd1", "sd2", "sdxl", "unknown"]


def test_the_rules_of_names_need_no_torch() -> None:
    code = "import sys, lib_pivotal.bundle.format; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
