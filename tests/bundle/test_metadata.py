"""Metadata as kohya writes it and as the web UI reads it."""

from __future__ import annotations

import json

import pytest

from lib_pivotal.bundle.metadata import (
    BucketFacts,
    EmbeddingFacts,
    FolderFacts,
    TrainingFacts,
    build_metadata,
    embedding_facts,
    read_json,
    recommended_weights,
    with_embedding_facts,
)
from lib_pivotal.errors import BundleError

FACTS = TrainingFacts(
    output_name="avatars",
    network_dim=16,
    network_alpha=8.0,
    model_name="base.safetensors",
    model_hash="0123abcd",
    model_sha256="f" * 64,
    resolution=(512, 768),
    folders={"10_kira": FolderFacts(repeats=10, images=20, tags={"red hair": 20, "smile": 3})},
    buckets=(BucketFacts(512, 768, 200),),
    lr=1e-4,
    clip_skip=2,
    min_snr_gamma=5.0,
    started_at=1_700_000_000.0,
    finished_at=1_700_000_100.0,
    embeddings={
        "kira": EmbeddingFacts(init_text="red hair girl", vectors=4, images_seen=900, pruned_tags=("red hair",))
    },
    run={"seed": 3},
    recommended={"unet": 1.0, "te": 1.0},
    extra={"ss_lowram": True},
)


def test_every_value_is_text_in_kohyas_spelling() -> None:
    found = build_metadata(FACTS)
    assert all(isinstance(value, str) for value in found.values())
    assert found["ss_network_module"] == "networks.lora"
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("16", "8.0")
    assert (found["ss_v2"], found["ss_base_model_version"]) == ("False", "sd_v1")
    assert (found["ss_learning_rate"], found["ss_unet_lr"]) == ("0.0001", "None")
    assert found["ss_resolution"] == "(512, 768)"
    assert found["ss_sd_model_hash"] == "0123abcd" and found["ss_new_sd_model_hash"] == "f" * 64
    assert found["ss_lowram"] == "True"
    assert json.loads(found["ss_tag_frequency"]) == {"10_kira": {"red hair": 20, "smile": 3}}
    assert json.loads(found["ss_dataset_dirs"]) == {"10_kira": {"n_repeats": 10, "img_count": 20}}


def test_what_the_web_uis_card_computes() -> None:
    """ui_edit_user_metadata.py: tables are parsed where the text begins with '{'."""
    found = {k: json.loads(v) if v.startswith("{") else v for k, v in build_metadata(FACTS).items()}
    (bucket,) = found["ss_bucket_info"]["buckets"].values()  # type: ignore[index]
    assert bucket["resolution"][1] == 768 and int(bucket["count"]) == 200
    assert sum(int(folder["img_count"]) for folder in found["ss_dataset_dirs"].values()) == 20  # type: ignore[union-attr]
    assert float(found["ss_training_started_at"]) == 1_700_000_000.0
    assert found["ss_output_name"] == "avatars"


@pytest.mark.parametrize(
    ("family", "v", "version", "architecture", "v2"),
    [
        ("sd1", False, "sd_v1", "stable-diffusion-v1/lora", "False"),
        ("sd2", False, "sd_v2", "stable-diffusion-v2-512/lora", "True"),
        ("sd2", True, "sd_v2_v", "stable-diffusion-v2-768-v/lora", "True"),
        ("sdxl", False, "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "False"),
    ],
)
def test_families(family: str, v: bool, version: str, architecture: str, v2: str) -> None:
    found = build_metadata(TrainingFacts("x", family=family, v_prediction=v))  # type: ignore[arg-type]
    assert (found["ss_base_model_version"], found["ss_v2"]) == (version, v2)
    assert found["modelspec.architecture"] == architecture
    assert found["modelspec.prediction_type"] == ("v" if v else "epsilon")


def test_model_spec() -> None:
    found = build_metadata(FACTS)
    assert found["modelspec.sai_model_spec"] == "1.0.1"
    assert (found["modelspec.resolution"], found["modelspec.trigger_phrase"]) == ("512x768", "kira")
    assert "modelspec.author" not in found


def test_embeddings_come_back() -> None:
    told = embedding_facts(build_metadata(FACTS))
    assert told == {
        "kira": {"init_text": "red hair girl", "vectors": 4, "images_seen": 900, "pruned_tags": ["red hair"]}
    }
    renamed = with_embedding_facts(build_metadata(FACTS), {"mira": told["kira"]})
    assert embedding_facts(renamed) == {"mira": told["kira"]}
    assert renamed["modelspec.trigger_phrase"] == "mira"
    assert "modelspec.trigger_phrase" not in with_embedding_facts(build_metadata(FACTS), {})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_broken_json_is_empty(text: str) -> None:
    assert read_json({"pivotal.words": text}, "pivotal.words") == {}


def test_extra_keys_are_kohyas() -> None:
    with pytest.raises(BundleError, match="begins with ss_"):
        build_metadata(TrainingFacts("x", extra={"mine": 1}))


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ('{"te": 0.5, "unet": 1}', {"te": 0.5, "unet": 1.0}),
        ('{"te": Infinity, "unet": NaN}', {}),
        ('{"te": true, "unet": "1"}', {}),
        (f'{{"te": 1{"0" * 400}, "unet": 0}}', {"unet": 0.0}),
        ("1" * 5000, {}),
        ("[" * 100_000, {}),
        ("[1]", {}),
    ],
    ids=range(7),
)
def test_recommended_weights_are_numbers_or_not_there(told, read):
    assert recommended_weights({"pivotal.recommended": told}) == read
