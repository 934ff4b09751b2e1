"""Parts in SD2 and SDXL: weights of U-Net and text encoders, the rows' buttons, Four rows and the axes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.live.conftest import Installation, TinyCheckpoints, running
from tests.live.material import Material, low_rank
from tests.live.situations import Situation
from tests.live.test_families import WIDTHS, embedding, use, vectors
from tests.live.test_parts_scripts import ROWS, axis_pictures, run

pytestmark = [pytest.mark.webui, pytest.mark.slow]

FC1 = "text_model_encoder_layers_0_mlp_fc1"
OPEN_CLIP = "resblocks.0.mlp.c_fc.weight"
LAYERS = {
    "sd2": {"unet": "lora_unet_mid_block_attentions_0_proj_in", "te": f"lora_te_{FC1}"},
    "sdxl": {"unet": "lora_unet_middle_block_1_proj_in", "te": f"lora_te1_{FC1}", "te2": f"lora_te2_{FC1}"},
}
WEIGHTS = {
    "unet": "middle_block.1.proj_in.weight",
    "te": {"sd2": OPEN_CLIP, "sdxl": "embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight"},
    "te2": OPEN_CLIP,
}
"""How the checkpoint's key of the layer ends."""


@pytest.fixture(scope="module")
def s(
    installation: Installation, checkpoint: Path, tiny_checkpoints: TinyCheckpoints, tmp_path_factory
) -> Iterator[Situation]:
    folder = tmp_path_factory.mktemp("families_parts")

    def prepare(data: Path) -> None:
        tiny_checkpoints.lay_out(data, *WIDTHS)

    with running(installation, checkpoint, folder, linked=True, prepare=prepare) as webui:
        webui.call("/sdapi/v1/options", {"live_previews_enable": False})  # SDXL's would be downloaded
        yield Situation(webui, Material(load_file(checkpoint)))


def network(path: Path, family: str, *parts: str) -> dict[str, Tensor]:
    """A random change of one layer a part, the same numbers whichever other part is there."""
    tensors: dict[str, Tensor] = {}
    with safe_open(str(path), "pt") as file:
        for part in parts:
            ending = WEIGHTS[part] if isinstance(WEIGHTS[part], str) else WEIGHTS[part][family]
            key = next(key for key in file.keys() if key.endswith(ending))  # noqa: SIM118
            generator = torch.Generator().manual_seed(len(part))
            made = low_rank(LAYERS[family][part], file.get_tensor(key).float(), generator=generator)
            up = f"{LAYERS[family][part]}.lora_up.weight"
            tensors |= {**made, up: 8 * made[up]}
    return tensors


@pytest.fixture(scope="module", params=list(LAYERS))
def made(request, s: Situation, tiny_checkpoints: TinyCheckpoints) -> tuple[Situation, str, dict[str, str], str]:
    """Situation, family, files by what they hold (`all` has a word too), and the word."""
    family = request.param
    use(s, family)
    name, towers = s.fresh(), vectors(family, 9)
    spelled = ("string_to_param.*",) if len(towers) == 1 else ("clip_l", "clip_g")
    embeddings = {f"bundle_emb.{name}.{key}": tower for key, tower in zip(spelled, towers, strict=True)}
    encoders = tuple(part for part in LAYERS[family] if part != "unet")
    groups = {"all": ("unet", *encoders), "unet": ("unet",), "encoders": encoders}
    groups |= {part: (part,) for part in encoders}
    path = tiny_checkpoints.path(family)
    files = {
        name: s.bundle({}, extra=network(path, family, *parts) | (embeddings if name == "all" else {}))
        for name, parts in groups.items()
    }
    files["reference"] = embedding(s, towers)
    return s, family, files, name


def test_each_part_acts_alone(made) -> None:
    """One weight for all text encoders: "TE only" is both towers of SDXL; each of them acts by itself too."""
    s, family, files, _ = made
    plain, whole = s.pixels("a face"), s.pixels(f"<lora:{files['all']}:1> a face")
    unet, text = s.pixels(f"<lora:{files['unet']}:1> a face"), s.pixels(f"<lora:{files['encoders']}:1> a face")
    assert s.pixels(f"<lora:{files['all']}:0:1> a face") == unet
    assert s.pixels(f"<lora:{files['all']}:1:0> a face") == text
    assert s.pixels(f"<lora:{files['all']}:0:0> a face") == plain
    alone = [s.pixels(f"<lora:{files[part]}:1> a face") for part in LAYERS[family] if part != "unet"]
    assert len({plain, whole, unet, text, *alone}) == 4 + len(alone) - (len(alone) == 1)


def test_the_trap(made) -> None:
    s, _, files, embedding = made
    answer = s.webui.txt2img(f"<lora:{files['all']}:1:te=0> {embedding}")
    assert answer.image.tobytes() == s.pixels(f"<lora:{files['all']}:0:1> {embedding}")
    assert f"<lora:{files['all']}:0:1>" in answer.infotext


def test_embeddings_without_the_network(made) -> None:
    s, _, files, embedding = made
    assert s.pixels(f"<words:{files['all']}> a {embedding} face") == s.pixels(f"a {files['reference']} face")


def test_what_the_rows_are_told(made) -> None:
    s, family, files, embedding = made
    listed = next(entry for entry in s.webui.call("/pivotal/v1/bundles") if entry["name"] == files["all"])
    assert sorted(listed["parts"]) == sorted(LAYERS[family])
    assert listed["family"] == family
    assert [(entry["name"], tuple(entry["widths"])) for entry in listed["words"]] == [(embedding, WIDTHS[family])]


def test_four_rows(made) -> None:
    s, _, files, embedding = made
    pictures = s.webui.pictures(run(s, f"<lora:{files['all']}:1> {{word}}, smile", "Four rows", ["", "", 4]))
    assert pictures[1:] == [
        s.pixels(f"<lora:{files['all']}:{weights}> {embedding}, smile") for weights in ROWS.values()
    ]
    assert len(set(pictures[1:])) == 4


def test_axis(made) -> None:
    s, _, files, embedding = made
    prompt = f"<lora:{files['all']}:1> {embedding}"
    pictures = axis_pictures(s, prompt, "LoRA part", "whole,U-Net,TE,words,none")
    tags = ("1:1", "0:1", "1:0", "0:0", "0:0:words=0")
    expected = [s.pixels(f"<lora:{files['all']}:{weights}> {embedding}") for weights in tags]
    assert [picture for picture in pictures if picture in expected] == expected
