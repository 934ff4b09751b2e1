"""Cards: read from metadata, written without touching a tensor, and understood by ModelSpec's readers."""

import base64
import io
import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lib_pivotal.bundle.card import CardEdit, DrawnPrompt, read_card, tag_of, with_card, write_card
from lib_pivotal.bundle.metadata import EmbeddingFacts, TrainingFacts, build_metadata
from lib_pivotal.bundle.writer import write_bundle


@pytest.fixture
def file(network, embeddings, tmp_path):
    facts = TrainingFacts(
        output_name="kira and ink",
        family="sd1",
        network_dim=4,
        unet_lr=2e-4,
        steps=500,
        model_name="avatars",
        embeddings={
            "kira": EmbeddingFacts("1girl, blue hair", 3, 812, ("blue hair", "twintails"), 0.6),
            "ink-style": EmbeddingFacts("ink", 1, 90, (), 0.2),
        },
        run={"version": 3, "schedule": {"batch_size": 4}, "embeddings_common": {"lr": 0.003}},
    )
    path = tmp_path / "kira.safetensors"
    return write_bundle(path, network=network, embeddings=embeddings, metadata=build_metadata(facts))


def metadata_of(path):
    with safe_open(path, "pt") as opened:
        return opened.metadata()


def test_a_file_tells_what_it_is_without_a_card(file):
    card = read_card(file)
    kira = next(one for one in card.embeddings if one.name == "kira")
    assert card.title == "kira and ink" and (kira.vectors, kira.images_seen) == (3, 812)
    assert kira.pruned_tags == ("blue hair", "twintails") and kira.separation == 0.6
    assert card.figures == {"separation": pytest.approx(0.4)}
    assert card.settings["checkpoint"] == "avatars" and card.settings["batch"] == "4" and card.settings["rank"] == "4"
    assert (card.weights, card.cfg, card.licence, card.prompts) == ({}, None, "", ())


def test_written_and_read_back_with_every_tensor_as_it_was(file):
    before, told = load_file(file), metadata_of(file)
    prompt = DrawnPrompt("kira, park", seed=1, steps=20, cfg=7.0, size_px=64)
    edit = CardEdit(
        description="**Kira**, a character", licence="CC0-1.0", weights={"unet": 0.8, "te": 1.0}, cfg=5.5,
        prompts=[prompt], figures={"drift": 0.01}, picture=Image.new("RGB", (300, 100), "red"),
    )  # fmt: skip
    write_card(file, edit)
    after, now = load_file(file), metadata_of(file)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert {key: told[key] for key in told} == {key: now[key] for key in told if key != "pivotal.recommended"} | {
        "pivotal.recommended": told["pivotal.recommended"]
    }, "everything else is as it was, hashes too"
    card = read_card(file)
    assert card.prompts == (prompt,) and card.weights == {"unet": 0.8, "te": 1.0} and card.cfg == 5.5
    assert card.figures == {"separation": pytest.approx(0.4), "drift": 0.01}
    assert now["modelspec.license"] == card.licence == "CC0-1.0"
    assert now["modelspec.description"] == card.description
    assert now["modelspec.usage_hint"] == "Embeddings: ink-style, kira; U-Net weight 0.8; TE weight 1; CFG 5.5"
    json.dumps(card.as_dict())


def test_the_thumbnail_is_modelspecs(file):
    write_card(file, CardEdit(picture=Image.new("RGB", (300, 100), "red")))
    head, _, data = metadata_of(file)["modelspec.thumbnail"].partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.format == "JPEG" and picture.size == (256, 256)
        red, _, blue = picture.getpixel((128, 128))
        assert red > 200 and blue < 60 and min(picture.getpixel((128, 5))) > 240, "the whole picture, white around it"


def test_an_edit_changes_what_it_names(file):
    write_card(file, CardEdit(description="one", licence="CC0-1.0", cfg=5.0))
    write_card(file, CardEdit(description="two"))
    card = read_card(file)
    assert (card.description, card.licence, card.cfg) == ("two", "CC0-1.0", 5.0)
    write_card(file, CardEdit(licence=""))
    assert "modelspec.license" not in metadata_of(file)


def test_somebody_elses_metadata_is_no_danger():
    wild = {"pivotal.card": '{"prompts": [1, {"prompt": null}], "cfg": "x", "figures": [1]}', "pivotal.words": "[]"}
    assert json.loads(with_card(wild, CardEdit(cfg=3.0))["pivotal.card"])["cfg"] == 3.0
    assert json.loads(with_card({"pivotal.card": "no json"}, CardEdit())["pivotal.card"]) == {}


def test_tags():
    assert tag_of("aoi", {"unet": 0.7, "te": 0.7}) == "<lora:aoi:0.7>" == tag_of("aoi", {"unet": 0.7})
    assert tag_of("aoi", {"te": 0.4}) == "<lora:aoi:0.4:1>"
