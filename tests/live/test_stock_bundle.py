"""A bundle that this project wrote, used by the stock web UI: words, network, and the two switched apart.

Every picture is compared pixel by pixel: on one machine and one thread the web UI repeats itself bit for bit.
"""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
import torch

from lib_pivotal.bundle.embedding_files import write_embedding
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.evaluation.parts_grid import ROWS, Row, draw_grid
from tests.live.conftest import Family
from tests.live.material import EMBEDDINGS, Material, metadata_of

pytestmark = [pytest.mark.webui, pytest.mark.slow]

SHEET = Path(__file__).resolve().parents[2] / "out" / "live" / "stock_bundle.png"


class Gallery:
    """Pictures of the stock web UI, each prompt made once and kept."""

    def __init__(self, webui) -> None:
        self.webui = webui
        self._made: dict[tuple[str, int], object] = {}

    def make(self, prompt: str, *, seed: int = 0):
        key = (prompt, seed)
        if key not in self._made:
            self._made[key] = self.webui.txt2img(prompt, seed=seed)
        return self._made[key]

    def pixels(self, prompt: str, *, seed: int = 0) -> bytes:
        return self.make(prompt, seed=seed).image.tobytes()


@pytest.fixture(scope="module")
def gallery(stock_webui, family: Family, material: Material) -> Gallery:
    """The web UI with one bundle, its halves as files of their own, and one word as an embedding file."""
    stock_webui.use(family.checkpoint.stem)
    loras = stock_webui.lora_folder
    for name, parts in (("bundle", ("unet", "te")), ("only-unet", ("unet",)), ("only-te", ("te",)), ("no-words", ())):
        embeddings = {} if name == "no-words" else material.embeddings
        network = material.network(*material.whole(parts or ("unet", "te")))
        write_bundle(loras / f"{name}.safetensors", network=network, embeddings=embeddings, metadata=metadata_of(name))
    vectors = material.embeddings["mirelle"]
    write_embedding(
        stock_webui.embeddings_folder / "elsewhere.safetensors", vectors, name="elsewhere", dtype=torch.float16
    )
    stock_webui.reload_files()
    return Gallery(stock_webui)


def tag(row: Row) -> str:
    """The web UI's spelling: text encoder first."""
    return f"<lora:bundle:{row.te:g}:{row.unet:g}>"


def test_the_embeddings_resolve_while_the_bundle_is_in_the_prompt(gallery, material):
    with_tag = gallery.make(f"{tag(ROWS[0])} mirelle and quill-on").infotext
    without = gallery.make("mirelle and quill-on").infotext
    each_encoder = ", ".join(["mirelle: bundle, quill-on: bundle"] * len(material.widths))
    assert f'TI hashes: "{each_encoder}"' in with_tag, "the stock web UI writes SDXL's words once an encoder"
    assert 'Lora hashes: "bundle: ' in with_tag
    assert "TI hashes" not in without


def test_the_web_ui_knows_the_width_of_the_embeddings(gallery, material):
    width = sum(material.widths)
    loaded = gallery.webui.call("/sdapi/v1/embeddings")
    assert loaded["loaded"]["elsewhere"]["shape"] == width
    assert "elsewhere" not in loaded["skipped"]


def test_every_key_of_the_network_finds_its_layer(gallery):
    gallery.make(f"{tag(ROWS[0])} mirelle")
    told = "bundle.safetensors didn't match keys"
    line = next(line for line in gallery.webui.log_text().splitlines() if told in line)
    assert "bundle_emb." in line, "the words are no layers: the web UI lists them here"
    assert "lora_unet_" not in line
    assert not re.search(r"lora_te\d?_", line)


def test_the_same_prompt_gives_the_same_pixels(gallery):
    prompt = f"{tag(ROWS[0])} mirelle"
    first = gallery.pixels(prompt)
    assert gallery.webui.txt2img(prompt).image.tobytes() == first


def test_the_four_rows_differ(gallery):
    pictures = {row.label: gallery.pixels(f"{tag(row)} mirelle") for row in ROWS}
    pictures["no bundle"] = gallery.pixels("mirelle")
    same = [pair for pair in combinations(pictures, 2) if pictures[pair[0]] == pictures[pair[1]]]
    assert not same


def test_a_embedding_in_the_bundle_is_the_embedding_as_a_file(gallery):
    embeddings_only = gallery.pixels("<lora:bundle:0:0> mirelle")
    assert gallery.pixels("elsewhere") == embeddings_only
    assert gallery.pixels("<lora:no-words:1:1> elsewhere") == gallery.pixels("<lora:bundle:1:1> mirelle")


@pytest.mark.parametrize(("switched", "alone"), [("0:1", "only-unet"), ("1:0", "only-te")])
def test_a_part_switched_off_is_a_file_without_it(gallery, switched, alone):
    assert gallery.pixels(f"<lora:bundle:{switched}> mirelle") == gallery.pixels(f"<lora:{alone}:1:1> mirelle")


def test_without_the_tag_nothing_of_the_bundle_stays(gallery):
    before = gallery.webui.txt2img("a face").image.tobytes()
    gallery.webui.txt2img(f"{tag(ROWS[0])} mirelle")
    assert gallery.webui.txt2img("a face").image.tobytes() == before


def test_sheet_of_the_four_rows(gallery):
    names = list(EMBEDDINGS)
    rows = {row.label: [gallery.make(f"{tag(row)} {name}").image for name in names] for row in ROWS}
    SHEET.parent.mkdir(parents=True, exist_ok=True)
    draw_grid(rows, names, title="A bundle in the stock web UI").save(SHEET)
    assert SHEET.stat().st_size > 1000
