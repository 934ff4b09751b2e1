"""A bundle that this project wrote, used by the stock web UI: words, network, and the two switched apart.

Every picture is compared pixel by pixel: on one machine and one thread the web UI repeats itself bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_pivotal.bundle.embedding_files import write_embedding
from lib_pivotal.bundle.layer_names import UnetShape, diffusers_path, kohya_name, name_for_webui
from lib_pivotal.bundle.metadata import TrainingFacts, WordFacts, build_metadata
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.evaluation.parts_grid import ROWS, Row, draw_grid

pytestmark = [pytest.mark.webui, pytest.mark.slow]

UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer."
SHEET = Path(__file__).resolve().parents[2] / "out" / "live" / "stock_bundle.png"
WORDS = {"mirelle": 2, "quill-on": 3}
"""Names and numbers of vectors: a plain one and one that CLIP's tokenizer takes apart at the hyphen."""

RANK = 4
STRENGTH = 0.25
"""Root mean square of a layer's change, as a part of its weight's: enough to see, too little to drown the picture."""


def low_rank(name: str, weight: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
    """kohya's three tensors of a random change of `weight`, linear or convolution."""
    outputs, inputs = weight.shape[:2]
    kernel = weight.shape[2:]
    down = torch.randn(RANK, inputs, *kernel, generator=generator)
    up = torch.randn(outputs, RANK, *(1 for _ in kernel), generator=generator)
    up *= STRENGTH * weight.float().std() / RANK**0.5
    return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(float(RANK))}


@dataclass(frozen=True, eq=False)
class Material:
    """Random networks and words that fit a checkpoint, under the names that the project writes for the web UI."""

    weights: Mapping[str, Tensor]

    @cached_property
    def unet_layers(self) -> dict[str, Tensor]:
        """Every linear layer and convolution inside the U-Net's blocks."""
        paths = {key.removeprefix(UNET): w for key, w in self.weights.items() if key.startswith(UNET)}
        shape = UnetShape.from_compvis_paths(paths)
        inside = ("input_blocks.", "middle_block.", "output_blocks.")
        modules = {p.removesuffix(".weight"): w for p, w in paths.items() if p.endswith(".weight") and w.dim() > 1}
        return {
            name_for_webui(diffusers_path(path, shape), shape): weight
            for path, weight in modules.items()
            if path.startswith(inside) and not path.startswith("input_blocks.0.")
        }

    @cached_property
    def text_layers(self) -> dict[str, Tensor]:
        """Every linear layer of the text model's transformer."""
        return {
            kohya_name(key.removeprefix(TEXT).removesuffix(".weight"), "te"): weight
            for key, weight in self.weights.items()
            if key.startswith(f"{TEXT}text_model.encoder.layers.") and key.endswith(".weight") and weight.dim() == 2
        }

    def network(self, *parts: str) -> dict[str, Tensor]:
        """The tensors of the parts `unet` and `te`; the same numbers whichever other part is there."""
        tensors: dict[str, Tensor] = {}
        for part, layers in (("unet", self.unet_layers), ("te", self.text_layers)):
            generator = torch.Generator().manual_seed(len(part))
            for name, weight in layers.items():
                drawn = low_rank(name, weight, generator=generator)
                tensors |= drawn if part in parts else {}
        return tensors

    @cached_property
    def words(self) -> dict[str, tuple[Tensor]]:
        """Vectors of the vocabulary's size."""
        table = self.weights[f"{TEXT}text_model.embeddings.token_embedding.weight"].float()
        generator = torch.Generator().manual_seed(3)
        scale = table.std()
        return {n: (scale * torch.randn(rows, table.shape[1], generator=generator),) for n, rows in WORDS.items()}


def metadata_of(name: str) -> dict[str, str]:
    facts = {word: WordFacts(vectors=count) for word, count in WORDS.items()}
    return build_metadata(TrainingFacts(output_name=name, network_dim=RANK, network_alpha=RANK, words=facts))


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
def material(checkpoint: Path) -> Material:
    return Material(load_file(checkpoint))


@pytest.fixture(scope="module")
def gallery(stock_webui, material: Material) -> Gallery:
    """The web UI with one bundle, its halves as files of their own, and one word as an embedding file."""
    loras = stock_webui.lora_folder
    for name, parts in (("bundle", ("unet", "te")), ("only-unet", ("unet",)), ("only-te", ("te",)), ("no-words", ())):
        words = {} if name == "no-words" else material.words
        network = material.network(*(parts or ("unet", "te")))
        write_bundle(loras / f"{name}.safetensors", network=network, words=words, metadata=metadata_of(name))
    vectors = material.words["mirelle"]
    write_embedding(
        stock_webui.embeddings_folder / "elsewhere.safetensors", vectors, name="elsewhere", dtype=torch.float16
    )
    stock_webui.reload_files()
    return Gallery(stock_webui)


def tag(row: Row) -> str:
    """The web UI's spelling: text encoder first."""
    return f"<lora:bundle:{row.te:g}:{row.unet:g}>"


def test_the_words_resolve_while_the_bundle_is_in_the_prompt(gallery):
    with_tag = gallery.make(f"{tag(ROWS[0])} mirelle and quill-on").infotext
    without = gallery.make("mirelle and quill-on").infotext
    assert 'TI hashes: "mirelle: bundle, quill-on: bundle"' in with_tag
    assert 'Lora hashes: "bundle: ' in with_tag
    assert "TI hashes" not in without


def test_the_web_ui_knows_the_width_of_the_words(gallery, material):
    width = material.words["mirelle"][0].shape[1]
    loaded = gallery.webui.call("/sdapi/v1/embeddings")
    assert loaded["loaded"]["elsewhere"]["shape"] == width
    assert loaded["skipped"] == {}


def test_every_key_of_the_network_finds_its_layer(gallery):
    gallery.make(f"{tag(ROWS[0])} mirelle")
    told = "bundle.safetensors didn't match keys"
    line = next(line for line in gallery.webui.log_text().splitlines() if told in line)
    assert "bundle_emb." in line, "the words are no layers: the web UI lists them here"
    assert "lora_unet_" not in line
    assert "lora_te_" not in line


def test_the_same_prompt_gives_the_same_pixels(gallery):
    prompt = f"{tag(ROWS[0])} mirelle"
    first = gallery.pixels(prompt)
    assert gallery.webui.txt2img(prompt).image.tobytes() == first


def test_the_four_rows_differ(gallery):
    pictures = {row.label: gallery.pixels(f"{tag(row)} mirelle") for row in ROWS}
    pictures["no bundle"] = gallery.pixels("mirelle")
    same = [pair for pair in combinations(pictures, 2) if pictures[pair[0]] == pictures[pair[1]]]
    assert not same


def test_a_word_in_the_bundle_is_the_word_as_a_file(gallery):
    words_only = gallery.pixels("<lora:bundle:0:0> mirelle")
    assert gallery.pixels("elsewhere") == words_only
    assert gallery.pixels("<lora:no-words:1:1> elsewhere") == gallery.pixels("<lora:bundle:1:1> mirelle")


@pytest.mark.parametrize(("switched", "alone"), [("0:1", "only-unet"), ("1:0", "only-te")])
def test_a_part_switched_off_is_a_file_without_it(gallery, switched, alone):
    assert gallery.pixels(f"<lora:bundle:{switched}> mirelle") == gallery.pixels(f"<lora:{alone}:1:1> mirelle")


def test_without_the_tag_nothing_of_the_bundle_stays(gallery):
    before = gallery.webui.txt2img("a face").image.tobytes()
    gallery.webui.txt2img(f"{tag(ROWS[0])} mirelle")
    assert gallery.webui.txt2img("a face").image.tobytes() == before


def test_sheet_of_the_four_rows(gallery):
    names = list(WORDS)
    rows = {row.label: [gallery.make(f"{tag(row)} {name}").image for name in names] for row in ROWS}
    SHEET.parent.mkdir(parents=True, exist_ok=True)
    draw_grid(rows, names, title="A bundle in the stock web UI").save(SHEET)
    assert SHEET.stat().st_size > 1000
