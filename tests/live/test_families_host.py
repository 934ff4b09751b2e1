"""The host of a run for every family, inside a real web UI: what it says is what the web UI's own code says."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
from tests.live.conftest import TRAINED, WebUI
from tests.live.test_tab import same, start, tensors_of, trained, wait

pytestmark = [pytest.mark.webui, pytest.mark.slow]

MAIN = ("sd1", "sd2", "sdxl")
PROMPTS = [
    "a face",
    "a wordone face, (smile:1.3), [wordtwo]",
    "wordone, " + "red hair, blue eyes, " * 20 + "wordtwo BREAK wordone",
    "wordone BREAK red hair BREAK a (smile:1.2) BREAK wordtwo BREAK blue eyes BREAK a park",
    "",
]


@pytest.fixture(params=TRAINED)
def family(request: pytest.FixtureRequest, webui: WebUI) -> str:
    webui.use(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[experiment.Setup, Path]:
    characters, _ = make.choose_embeddings(2)
    setup = replace(experiment.Setup(tuple(characters), (), seed=0), steps=20, pictures=8, batch_size=2, vectors=2)
    return setup, experiment.write_dataset(setup, tmp_path_factory.mktemp("avatars") / "pictures")


def make_run(pictures: tuple[experiment.Setup, Path], name: str) -> Run:
    setup, folder = pictures
    run = experiment.make_run(replace(setup, init="random"), folder, name)
    return replace(run, saving=replace(run.saving, dtype="fp32"))


def picture_of(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def test_what_the_checkpoint_is(webui: WebUI, family: str) -> None:
    facts = webui.call("/probe/facts")
    assert facts["family"] == {"ssd": "sdxl"}.get(family, family.removesuffix("inpaint").removesuffix("v"))
    assert facts["v"] == (family in ("sd2v", "sdxlv"))
    assert facts["inpainting"] == family.endswith("inpaint")
    assert facts["widths"] == {"sd1": [768], "sd2": [1024], "sdxl": [768, 1280]}[facts["family"]]
    assert (facts["alphas"][-1] == 0.0) == (family == "sdxlv"), "the marker ztsnr"
    if family != "sdxlv":
        assert facts["alphas"] == facts["web_ui"]


def test_noise_schedule_is_that_of_the_option(webui: WebUI) -> None:
    webui.use("sdxl")
    webui.call("/sdapi/v1/options", {"sd_noise_schedule": "Zero Terminal SNR"})
    try:
        webui.txt2img("a face")  # the web UI takes the option over when a picture is made
        facts = webui.call("/probe/facts")
    finally:
        webui.call("/sdapi/v1/options", {"sd_noise_schedule": "Default"})
    assert facts["alphas"][:-1] == pytest.approx(facts["web_ui"][:-1], rel=1e-3, abs=1e-7)
    assert facts["alphas"][-1] == 0.0


def test_conditioning_is_that_of_txt2img(webui: WebUI, family: str) -> None:
    if family not in MAIN:
        pytest.skip("the same text encoders as the plain checkpoint's")
    found = webui.call("/probe/conditioning", {"prompts": PROMPTS, "names": ["wordone", "wordtwo"]})
    towers = len(found["widths"])
    for prompt, facts in found["prompts"].items():
        assert facts["batch"]["largest"] < 1e-4, prompt
        assert sorted(facts["rows"]["ours"]) == sorted(facts["rows"]["theirs"]), "the same shapes: the same rounding"
        assert facts["alone"]["same"], prompt
        embeddings = ["wordone" in prompt, "wordtwo" in prompt]
        assert facts["gradients"] == [there for there in embeddings for _ in range(towers)]
        if towers == 2:
            assert facts["vector"]["same"], prompt
            first_chunk = prompt.split("BREAK")[0][:200]
            there = [embedding in first_chunk for embedding in ("wordone", "wordtwo")]
            assert facts["pooled_gradients"] == [flag for each in there for flag in (False, each)]


def test_prediction_is_that_of_the_web_ui(webui: WebUI, family: str) -> None:
    assert webui.call("/probe/denoised", {"timestep": 321, "prompt": "a face"})["same"]


def test_autoencoder_is_that_of_the_web_ui(webui: WebUI, family: str) -> None:
    if family not in MAIN:
        pytest.skip("the same autoencoder as the plain checkpoint's")
    found = webui.call("/probe/codec")
    assert found["encoded"]["largest"] < 1e-5
    assert found["decoded"]["same"]


def test_every_key_is_found_and_the_file_gives_the_network_picture(
    webui: WebUI, family: str, pictures: tuple[experiment.Setup, Path]
) -> None:
    """Trained, saved, and read by the web UI's own loader: nothing is missed, and nothing changes."""
    run = make_run(pictures, f"file-{family}")
    run = replace(run, schedule=replace(run.schedule, max_steps=8, warmup_steps=0))
    before = webui.call("/probe/model")
    seed_picture = webui.txt2img("a face")
    view = trained(webui, run)
    assert webui.call("/probe/model") == before
    assert same(webui.txt2img("a face").image, seed_picture.image)

    prompt = f"{run.embeddings[0].name}, smile"
    log_before = len(webui.log_text())
    theirs = webui.txt2img(f"<lora:{run.name}:1>{prompt}").image
    said = webui.log_text()[log_before:]
    # this extension's loader keeps the words' keys from the web UI's: with it, nothing at all is missed
    missed = said.split("didn't match keys: ")[1].splitlines()[0] if "didn't match keys" in said else "{}"
    keys = json.loads(missed.replace("'", '"'))
    assert all(key.startswith("bundle_emb.") for key in keys), keys
    assert "couldn't find supported operation" not in said
    found = webui.call("/probe/pictures", {"path": view["ended"]["bundle"], "prompt": prompt})
    assert not found["unmatched"]
    assert not same(theirs, webui.txt2img(f"<words:{run.name}>{prompt}").image)
    assert same(picture_of(found["merged"]), theirs), "the same bits"
    products = webui.call("/probe/products", {"path": view["ended"]["bundle"], "name": run.name, "prompt": prompt})
    assert len(products["ours"]) > 100
    assert products["ours"] == products["theirs"], "other shapes: other bits on some processors"
    difference = ImageChops.difference(picture_of(found["hooked"]), theirs)
    assert max(high for _, high in difference.getextrema()) <= 1, "another order of adding up"


@pytest.mark.parametrize("family", MAIN[1:])
def test_pictures_during_a_run_and_the_run_itself_do_not_change(
    webui: WebUI, family: str, pictures: tuple[experiment.Setup, Path]
) -> None:
    """With gradient checkpointing, and a network of the web UI's own merged before: both families' hardest case."""
    webui.use(family)
    run = make_run(pictures, f"calm-{family}")
    run = replace(run, memory=replace(run.memory, gradient_checkpointing=True))
    undisturbed = tensors_of(trained(webui, run))
    prompt = f"<lora:{run.name}:0.7>a face"
    expected = [webui.txt2img(prompt, seed=seed, steps=4).image for seed in range(3)]
    before = webui.call("/probe/model")
    run_id = start(webui, replace(run, name=f"disturbed-{family}"))
    made = []
    for seed in range(3):
        wait(webui, run_id, step=2 + seed)
        made.append(webui.txt2img(prompt, seed=seed, steps=4).image)
    assert not webui.call(f"/pivotal/v1/runs/{run_id}")["ended"], "the pictures were to come during the run"
    disturbed = tensors_of(wait(webui, run_id))
    assert all(same(one, other) for one, other in zip(made, expected, strict=True))
    assert undisturbed.keys() == disturbed.keys()
    assert all(torch.equal(undisturbed[key], disturbed[key]) for key in undisturbed)
    assert webui.call("/probe/model") == before


@pytest.mark.parametrize("family", MAIN)
def test_preflight_measures_and_gives_back(webui: WebUI, family: str, pictures: tuple[experiment.Setup, Path]) -> None:
    webui.use(family)
    before = webui.call("/probe/model")
    run = make_run(pictures, "preflight")
    run = replace(run, memory=replace(run.memory, precision="bf16"))
    found = webui.call("/pivotal/v1/runs/preflight", run_to_dict(run))
    assert found["step_s"] > 0 and found["total_s"] == pytest.approx(run.schedule.total_steps * found["step_s"])
    assert found["memory_fits"] and found["memory_bytes"] == sum(found["memory_parts"].values())
    assert {"U-Net", "text encoder", "autoencoder"} <= set(found["memory_parts"])
    assert set(found["draws"]) == {embedding.name for embedding in run.embeddings}
    assert webui.call("/probe/model") == before


def test_layers_have_the_names_of_kohya(webui: WebUI) -> None:
    names = {}
    for family in MAIN:
        webui.use(family)
        names[family] = webui.call("/probe/facts")["layers"]
    text = {
        family: [name for name in found if "_te" in name.split("_text_model")[0]] for family, found in names.items()
    }
    inner = [*(f"self_attn_{one}_proj" for one in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"]

    def expected(prefix: str, layers: int) -> set[str]:
        return {f"{prefix}_text_model_encoder_layers_{n}_{each}" for n in range(layers) for each in inner}

    assert set(text["sd1"]) == expected("lora_te", 2)
    assert set(text["sd2"]) == expected("lora_te", 2), "of three layers the last is left out"
    assert set(text["sdxl"]) == expected("lora_te1", 2) | expected("lora_te2", 2)
    assert torch.tensor([len(found) for found in names.values()]).min() > 50
