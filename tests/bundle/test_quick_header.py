from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.quick_header import glance
from lib_pivotal.bundle.reader import read_bundle, read_embeddings
from lib_pivotal.errors import BundleError


def tensors():
    return {
        "bundle_emb.hana.string_to_param.*": torch.ones(3, 768),
        "bundle_emb.v1.5-girl.clip_l": torch.ones(2, 768),
        'bundle_emb.say "hi".emb_params': torch.ones(1, 768),
        "bundle_emb.both.clip_l": torch.ones(2, 768),
        "bundle_emb.both.clip_g": torch.ones(2, 1280),
        "bundle_emb.uneven.clip_l": torch.ones(2, 768),
        "bundle_emb.uneven.clip_g": torch.ones(3, 1280),
        "bundle_emb.bad.one": torch.ones(1, 768),
        "bundle_emb.bad.two": torch.ones(1, 768),
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(4, 8),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(4, 8),
    }


METADATA = {"note": 'says "bundle_emb.fake.x": {"dtype": "F32", "shape": [1]}', "ss_v2": "False"}


def test_it_sees_what_the_listing_sees(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(tensors(), str(path), METADATA)
    seen, listed = glance(path), list_bundle(path)
    assert sorted(seen.embeddings, key=lambda w: w.name) == sorted(listed.embeddings, key=lambda w: w.name)
    assert (seen.parts, seen.family, seen.metadata) == (listed.parts, listed.family, listed.metadata)
    assert set(map(str, seen.problems)) == set(map(str, listed.problems))


@pytest.mark.parametrize(
    "keys",
    [
        ["diffusion_model.middle_block.1.proj_in.lora_up.weight"],
        ["text_encoders.clip_l.transformer.text_model.x.lora_up.weight", "diffusion_model.out.2.lora_up.weight"],
        ["text_encoders.clip_g.transformer.text_model.x.lora_up.weight"],
        ["base_model.model.mid_block.attentions.0.proj_in.lora_A.weight"],
        ["base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"],
        ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"],
        ["unet:0:up", "text_encoder:0:up"],
        ["oft_unet_mid_block_attentions_0_proj_in.oft_blocks"],
        ["0.attn1.to_q.lora_down.weight"],
    ],
)
def test_parts_of_other_layouts_are_those_of_the_listing(keys, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({key: torch.ones(2, 2) for key in keys}, str(path), {"note": '{"out.": 1, "unet.": 2, "text_model.": 3}'})
    assert glance(path).parts == list_bundle(path).parts
    assert glance(path).parts or keys[0].startswith("0.")


@pytest.mark.parametrize("content", [b"", b"12", b"\xff" * 20, struct.pack("<Q", 5) + b"hello", b"\0" * 100])
def test_what_is_no_file_of_the_kind(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.safetensors"):
        glance(path)


EMBEDDING = "bundle_emb.a.string_to_param.*"
DIGITS, DEEP = "1" * 5000, "[" * 100_000
ODD_HEADERS = {
    "a number of thousands of digits": f'{{"a": {DIGITS}}}',
    "such a number in a shape": f'{{"{EMBEDDING}": {{"dtype": "F16", "shape": [{DIGITS}], "data_offsets": [0, 0]}}}}',
    "such a number among the metadata": f'{{"__metadata__": {{"x": {DIGITS}}}}}',
    "lists in lists": f'{{"{EMBEDDING}": {{"dtype": "F16", "shape": {DEEP}{DEEP.replace("[", "]")}}}}}',
    "a list in a shape": f'{{"{EMBEDDING}": {{"dtype": "F16", "shape": [[1], 768], "data_offsets": [0, 0]}}}}',
    "half a number": f'{{"{EMBEDDING}": {{"dtype": "F16", "shape": [1.5, 768.0], "data_offsets": [0, 0]}}}}',
    "more numbers than can be": (
        f'{{"{EMBEDDING}": {{"dtype": "F16", "shape": [0, {2**62}, 4], "data_offsets": [0, 0]}}}}'
    ),
    "more dimensions than torch has": f'{{"x.alpha": {{"dtype": "F16", "shape": {[0] * 65}, "data_offsets": [0, 0]}}}}',
    "half of a letter in a name": EMBEDDING.join(
        ('{"', '": {"dtype": "F16", "shape": [0, 8], "data_offsets": [0, 0]}}')
    ).replace(".a.", ".\\ud800."),
    "half of a letter among the metadata": '{"__metadata__": {"x": "\\uDFFF"}}',
}


@pytest.mark.parametrize("header", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_headers_that_only_malice_writes(tmp_path, header):
    """One such file in a folder must not cost the listing of the others; the careful readers refuse it."""
    raw = header.encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    seen = glance(path)
    assert seen.embeddings == ()
    json.dumps([dict(seen.metadata), [str(problem) for problem in seen.problems]], ensure_ascii=False).encode()
    for read in (list_bundle, read_bundle, read_embeddings, read_embedding):
        with pytest.raises(BundleError, match=r"odd\.safetensors") as refused:
            read(path)
        assert len(str(refused.value)) < 600


def test_a_letter_that_is_spelled_as_a_pair_is_one(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"bundle_emb.\N{CAT FACE}.emb_params": torch.ones(1, 768)}, str(path))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    raw = json.dumps(json.loads(content[8 : 8 + length])).encode()
    assert b"\\ud83d" in raw
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + content[8 + length :])
    assert [embedding.name for embedding in glance(path).embeddings] == ["\N{CAT FACE}"]
    assert list(read_bundle(path).embeddings) == ["\N{CAT FACE}"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    small = {key: value[..., :8].contiguous() for key, value in tensors().items()}
    save_file(small, str(path), METADATA)
    return path.read_bytes()


BUT_NOT_FRESH = (HealthCheck.function_scoped_fixture,)


@settings(max_examples=300, deadline=None, suppress_health_check=BUT_NOT_FRESH)
@given(data=st.data())
def test_mutated_files_never_break_the_readers(original, tmp_path, data):
    """Bytes changed, cut off, doubled: every reader answers, or raises BundleError naming the file. Nothing else."""
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(("change", "cut", "double", "digit")))
        if kind == "change":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at : at + data.draw(st.integers(1, 40))]
        elif kind == "double":
            content[at:at] = content[at : at + 20]
        elif chr(content[at]).isdigit():
            content[at] = ord(data.draw(st.sampled_from("0123456789")))
        if not content:
            break
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(bytes(content))
    for read in (glance, list_bundle, read_bundle, read_embeddings):
        try:
            read(path)
        except BundleError as error:
            assert "mutated.safetensors" in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "bundle_emb.",
        "bundle_emb.a",
        "bundle_emb.a.b",
        "bundle_emb.a.string_to_param.*",
        "bundle_emb..x",
        "lora_unet_x.alpha",
    ]
)
ENTRIES = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F16", "I64", "F8_E4M3", "X"]), "shape": st.lists(st.integers(0, 3), max_size=3)},
    optional={"data_offsets": st.lists(st.integers(0, 64), max_size=3)},
)


@settings(max_examples=300, deadline=None, suppress_health_check=BUT_NOT_FRESH)
@given(
    header=st.dictionaries(NAMES | st.text(max_size=8), ENTRIES | JSON, max_size=5),
    metadata=JSON,
    rest=st.binary(max_size=64),
)
def test_headers_of_any_shape_never_break_the_readers(tmp_path, header, metadata, rest):
    raw = json.dumps({"__metadata__": metadata, **header}).encode()
    path = tmp_path / "made.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + rest)
    for read in (glance, list_bundle, read_bundle, read_embeddings):
        try:
            read(path)
        except BundleError as error:
            assert "made.safetensors" in str(error)
