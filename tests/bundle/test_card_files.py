"""What the web UI shows beside a file: never over what the user wrote."""

import json

import pytest
from PIL import Image

from lib_pivotal.bundle.card import DrawnPrompt, EmbeddingCard, ResultCard
from lib_pivotal.bundle.card_files import preview_of, write_preview, write_user_metadata

KIRA = EmbeddingCard("kira", 3, "1girl, blue hair", 800, ("blue hair",))
CARD = ResultCard(
    "kira", (KIRA,), (DrawnPrompt("kira, park"),), weights={"unet": 0.8, "te": 0.8}, cfg=5.0, licence="CC0-1.0"
)
RED, BLUE = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "kira.v2.safetensors"
    path.write_bytes(b"")
    return path


def read(file):
    return json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))


def test_keys_of_the_web_ui(file):
    assert write_user_metadata(file, CARD) == file.with_name("kira.v2.json")
    found = read(file)
    assert found["description"] == "kira: 1girl, blue hair" and found["activation text"] == "kira"
    assert found["preferred weight"] == 0.8
    assert found["notes"].splitlines() == [
        "kira was pruned of: blue hair",
        "Recommended: <lora:kira.v2:0.8>, CFG 5",
        "Sampled: <lora:kira.v2:0.8> kira, park",
        "Licence: CC0-1.0",
    ]
    assert write_user_metadata(file, CARD) is None, "nothing has changed"


def test_of_several_embeddings_none_is_the_activation_text(file):
    write_user_metadata(file, ResultCard("two", (KIRA, EmbeddingCard("ink", 1)), weights={"unet": 0.5, "te": 1.0}))
    found = read(file)
    assert "activation text" not in found and "preferred weight" not in found
    assert found["notes"].startswith("Embeddings: kira, ink\n")


def test_what_the_user_wrote_stays_and_the_rest_is_renewed(file):
    write_user_metadata(file, CARD)
    edited = {**read(file), "notes": "mine", "sd version": "SD1", "preferred weight": 0}
    file.with_suffix(".json").write_text(json.dumps(edited))
    write_user_metadata(file, ResultCard("kira", (KIRA,), description="A character", weights={"unet": 0.6}))
    found = read(file)
    assert found["notes"] == "mine" and found["sd version"] == "SD1"
    assert found["description"] == "A character", "ours, and nobody had changed it"
    assert found["preferred weight"] == 0.6, "0 is the web UI's word for none"
    write_user_metadata(file, ResultCard("kira", (KIRA,), description="Another"))
    assert read(file)["description"] == "Another" and read(file)["notes"] == "mine"


@pytest.mark.parametrize("content", ["no json", "[1]", b"\xff\xfe"])
def test_a_file_that_is_not_understood_stays(file, content):
    beside = file.with_suffix(".json")
    (beside.write_bytes if isinstance(content, bytes) else beside.write_text)(content)
    before = beside.read_bytes()
    assert write_user_metadata(file, CARD) is None and beside.read_bytes() == before


@pytest.mark.parametrize("name", ["kira.v2.png", "kira.v2.preview.jpg", "kira.v2.preview.png"])
def test_a_preview_of_the_users_stays(file, name):
    BLUE.save(file.with_name(name))
    before = file.with_name(name).read_bytes()
    assert write_preview(file, RED) is None and preview_of(file) == file.with_name(name)
    assert file.with_name(name).read_bytes() == before and len(list(file.parent.iterdir())) == 2


def test_our_own_preview_is_renewed(file):
    for picture in (RED, BLUE):
        assert write_preview(file, picture) == file.with_name("kira.v2.preview.png") == preview_of(file)
    with Image.open(preview_of(file)) as shown:
        assert shown.getpixel((0, 0)) == (0, 0, 255)
