"""Checkpoints that cannot be trained: one clear sentence before anything starts, and the web UI works on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
from tests.live.conftest import Installation, RequestFailedError, TinyCheckpoints, WebUI, no_live_previews, running
from tests.live.test_tab import same, start, trained, wait

pytestmark = [pytest.mark.webui, pytest.mark.slow]

REFUSED = {
    "refiner": r"refiner is SDXL's refiner, .*Choose the base checkpoint",
    "unmarked": r"tensor `v_pred` .*Put a unmarked\.yaml with VScaling beside it",
    "pix2pix": r"pix2pix is made for instruct-pix2pix .*8 channels.*Choose the plain checkpoint",
    "depth": r"depth is made for depth-to-image .*5 channels.*Choose the plain checkpoint",
    "unclip": r"unclip is an unCLIP checkpoint, .*Choose the plain checkpoint",
    "sd3": r"sd3 is an SD3 checkpoint, .*Choose an SD1, SD2 or SDXL checkpoint",
    "xlmr": r"xlmr is an AltDiffusion checkpoint, .*XLM-RoBERTa.*Choose an SD1, SD2 or SDXL checkpoint",
}
"""Name of the checkpoint -> what it is, and what to do."""


@pytest.fixture(scope="module")
def webui(
    installation: Installation, tiny_checkpoints: TinyCheckpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebUI]:
    def prepare(data: Path) -> None:
        tiny_checkpoints.lay_out(data, "sd1", "sdxl", *REFUSED)

    data, first = tmp_path_factory.mktemp("refused"), tiny_checkpoints.path("sd1")
    variables = {"HUGGINGFACE_HUB_CACHE": str(tiny_checkpoints.hub)}
    with running(installation, first, data, linked=True, prepare=prepare, variables=variables) as found:
        no_live_previews(found)
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_embeddings(1)
    setup = experiment.Setup(tuple(characters), (), seed=0)
    setup = replace(setup, steps=2, pictures=2, batch_size=1, vectors=2, init="random")
    return experiment.make_run(setup, experiment.write_dataset(setup, tmp_path_factory.mktemp("a") / "pictures"), "p")


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_with_reason_and_remedy(webui: WebUI, run: Run, name: str) -> None:
    webui.use("sd1")
    picture = webui.txt2img("a face", steps=4).image
    webui.use(name)
    runs, before = webui.data / "pivotal_runs", len(webui.log_text())
    made = sorted(runs.rglob("*"))
    for route in ("runs", "runs/preflight"):
        with pytest.raises(RequestFailedError, match=f": 400 .*{REFUSED[name]}") as told:
            webui.call(f"/pivotal/v1/{route}", run_to_dict(run))
        sentence = str(json.loads(str(told.value).split(": 400 ", 1)[1])["detail"])
        assert "\n" not in sentence and len(sentence) < 400, sentence
    assert sorted(runs.rglob("*")) == made, "nothing has started"
    assert "Traceback" not in webui.log_text()[before:]
    webui.use("sd1")
    assert same(webui.txt2img("a face", steps=4).image, picture)


@pytest.mark.parametrize("name", ["sd3", "xlmr"])
def test_embeddings_in_their_prompts_are_said_and_left_out(webui: WebUI, name: str) -> None:
    """AltDiffusion's token vectors are as wide as SD2's, yet the web UI splices nothing into them."""
    webui.use(name)
    for width in (768, 1024):
        embedding, file = f"wordy{'ab'[width == 768]}", f"other-{width}-{name}"
        tensors = {f"bundle_emb.{embedding}.string_to_param.*": torch.ones(2, width)}
        save_file(tensors, str(webui.lora_folder / f"{file}.safetensors"))
        webui.reload_files()
        plain, before = webui.txt2img(f"a {embedding} face", steps=2).image, len(webui.log_text())
        with_tag = webui.txt2img(f"<lora:{file}:1> a {embedding} face", steps=2).image
        said = webui.log_text()[before:]
        assert (
            f"{file}: its embeddings do not fit this checkpoint ({width} wide, it has no such vectors): {embedding}"
        ) in said
        assert "Traceback" not in said
        assert same(with_tag, plain)
    webui.use("sd1")


def broken_checkpoint(webui: WebUI, like: str) -> Path:
    """`broken`, listed, of the same configuration as another."""
    models = webui.data / "models" / "Stable-diffusion"
    path = models / "broken.safetensors"
    path.write_bytes(b"no checkpoint")
    shutil.copyfile(models / f"{like}.yaml", path.with_suffix(".yaml"))
    webui.call("/sdapi/v1/refresh-checkpoints", {})
    return path


@pytest.mark.parametrize("loaded", ["sd1", "sdxl"])
def test_after_a_checkpoint_that_cannot_be_read(webui: WebUI, run: Run, loaded: str) -> None:
    """The web UI takes the model apart before it reads the file; nothing starts until one is whole again."""
    webui.use(loaded)
    picture = webui.txt2img("a face", steps=2).image
    broken = broken_checkpoint(webui, loaded)
    webui.use("broken")
    broken.unlink()
    made = sorted((webui.data / "pivotal_runs").rglob("*"))
    for route in ("runs", "runs/preflight"):
        with pytest.raises(RequestFailedError, match=r": 400 .*failed to.*choose another checkpoint") as told:
            webui.call(f"/pivotal/v1/{route}", run_to_dict(run))
        assert "\n" not in str(told.value)
    assert sorted((webui.data / "pivotal_runs").rglob("*")) == made
    webui.use("depth")
    webui.use(loaded)
    assert same(webui.txt2img("a face", steps=2).image, picture)


@pytest.mark.parametrize("loaded", ["sd1", "sdxl"])
def test_a_failed_load_during_a_run_holds_it_up_until_the_model_is_whole(webui: WebUI, run: Run, loaded: str) -> None:
    webui.use(loaded)
    picture = webui.txt2img("a face", steps=2).image
    broken = broken_checkpoint(webui, loaded)
    schedule = replace(run.schedule, max_steps=1000)
    run_id = start(webui, replace(run, name=f"held-{loaded}", schedule=schedule))
    assert not wait(webui, run_id, step=1)["ended"]
    webui.use("broken")
    broken.unlink()
    deadline = time.monotonic() + 60
    while not any("continues when" in said["message"] for said in webui.call(f"/pivotal/v1/runs/{run_id}")["notices"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    step = webui.call(f"/pivotal/v1/runs/{run_id}")["step"]
    webui.call(f"/pivotal/v1/runs/{run_id}/checkpoint", {})
    assert not wait(webui, run_id, step=step + 2)["ended"]
    webui.call(f"/pivotal/v1/runs/{run_id}/stop", {})
    assert wait(webui, run_id)["status"] == "stopped"
    assert same(webui.txt2img("a face", steps=2).image, picture)


def test_training_works_after_all_of_them(webui: WebUI, run: Run) -> None:
    webui.use("sd1")
    assert trained(webui, run)["step"] == run.schedule.total_steps
