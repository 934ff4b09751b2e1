"""Training inside a real web UI, on the checkpoint that it has loaded: lent, returned, and usable meanwhile."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file, save_file

from examples import experiment
from examples.avatars import make
from examples.avatars.checkpoints import RETRO, checkpoint
from lib_pivotal.config import Run, run_from_dict, run_to_dict
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training.events import Event, StepDone
from tests.live.conftest import (
    ROOT,
    Family,
    Installation,
    RequestFailedError,
    TinyCheckpoints,
    WebUI,
    no_live_previews,
    running,
)
from tests.live.situations import Situation
from tests.training.runs import train

pytestmark = [pytest.mark.webui, pytest.mark.slow]

PROMPT = "1girl, red hair, long hair, green eyes, smile, park background"


@pytest.fixture(scope="module")
def setup(family: Family) -> experiment.Setup:
    characters, styles = make.choose_embeddings(3)
    made = replace(experiment.Setup(tuple(characters), tuple(styles), seed=0), steps=20, preview_every=0)
    if family.name == "sd1":
        return made
    return replace(made, characters=made.characters[:1], pictures=8, batch_size=2, vectors=2)  # true widths are slow


@pytest.fixture(scope="module")
def pictures(setup: experiment.Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment.write_dataset(setup, tmp_path_factory.mktemp("avatars") / "pictures")


@pytest.fixture(scope="module")
def probed_webui(
    installation: Installation,
    checkpoint: Path,
    tiny_checkpoints: TinyCheckpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WebUI]:
    """With this extension and the probe."""

    def add(data: Path) -> None:
        shutil.copytree(ROOT / "tests" / "live" / "probe", data / "extensions" / "probe")
        tiny_checkpoints.lay_out_families(data)

    with running(installation, checkpoint, tmp_path_factory.mktemp("tab"), linked=True, prepare=add) as found:
        no_live_previews(found)
        yield found


@pytest.fixture
def webui(probed_webui: WebUI, family: Family) -> WebUI:
    probed_webui.use(family.checkpoint.stem)
    return probed_webui


@pytest.fixture(scope="module")
def other(probed_webui: WebUI, family: Family) -> str:
    """The name of another checkpoint of the family."""
    models = probed_webui.data / "models" / "Stable-diffusion"
    path = models / f"other-{family.name}.safetensors"
    if family.name == "sd1":
        shutil.copyfile(checkpoint(RETRO), path)
    else:
        tensors = load_file(family.checkpoint)
        tensors["model.diffusion_model.out.2.weight"] *= 0.9
        save_file(tensors, str(path))
    shutil.copyfile(models / f"{family.checkpoint.stem}.yaml", path.with_suffix(".yaml"))
    probed_webui.call("/sdapi/v1/refresh-checkpoints", {})
    return path.stem


@pytest.fixture
def run(setup: experiment.Setup, pictures: Path) -> Run:
    return experiment.make_run(setup, pictures, "trained")


def start(webui: WebUI, run: Run) -> str:
    return str(webui.call("/pivotal/v1/runs", {**run_to_dict(run), "overwrite": True})["id"])


def wait(webui: WebUI, run_id: str, *, step: int = 10**9, timeout_s: float = 300) -> dict[str, Any]:
    """Until the run has ended or reached a step."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        view = webui.call(f"/pivotal/v1/runs/{run_id}")
        if view["ended"] or view["step"] >= step:
            return view  # type: ignore[no-any-return]
        time.sleep(0.1)
    raise AssertionError(f"the run did not get there: {view}\n{webui.log_text()[-3000:]}")


def trained(webui: WebUI, run: Run) -> dict[str, Any]:
    """Train to the end, which must be a good one."""
    view = wait(webui, start(webui, run))
    assert view["status"] == "finished", view["ended"]
    return view


def same(first: Image.Image, second: Image.Image) -> bool:
    return ImageChops.difference(first, second).getbbox() is None


def tensors_of(view: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(view["ended"]["bundle"])


def test_losses_are_those_of_the_standalone_host(webui: WebUI, run: Run, family: Family, tmp_path: Path) -> None:
    view = trained(webui, run)
    events = (Path(view["folder"]) / "trained.events.jsonl").read_text().splitlines()
    theirs = [record["losses"]["loss"] for record in map(json.loads, events) if record["event"] == "StepDone"]
    ours: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            ours.append(event.losses["loss"])

    train(run, StandaloneHost.load(family.checkpoint), output_folder=tmp_path, listener=listen)
    assert len(ours) == len(theirs) == run.schedule.total_steps
    assert theirs == pytest.approx(ours, rel=1e-4)


def test_file_is_usable_at_once_and_by_the_stock_web_ui(webui: WebUI, stock: Situation, run: Run) -> None:
    view = trained(webui, replace(run, name="once"))
    embedding = run.embeddings[0].name
    prompt = f"<lora:once:1> {embedding}, smile, park background"
    here = webui.txt2img(prompt)
    assert not same(here.image, webui.txt2img(f"{embedding}, smile, park background").image)
    shutil.copyfile(view["ended"]["bundle"], stock.webui.lora_folder / "once.safetensors")
    stock.webui.reload_files()
    assert same(here.image, stock.webui.txt2img(prompt).image)


@pytest.mark.parametrize("case", ["finished", "stopped", "exception", "nan", "unreadable", "disk", "refused", "lora"])
def test_model_comes_back_as_it_was(
    webui: WebUI, family: Family, run: Run, pictures: Path, tmp_path: Path, case: str
) -> None:
    prompt = PROMPT
    if case == "lora":  # one that the web UI has merged into the weights
        trained(webui, replace(run, name="merged"))
        prompt = f"<lora:merged:1> {PROMPT}"
    picture = webui.txt2img(prompt)
    before = webui.call("/probe/model")
    run = replace(run, name=f"case-{case}", schedule=replace(run.schedule, max_steps=8))
    run = replace(run, memory=replace(run.memory, gradient_checkpointing=case == "stopped"))
    run = replace(run, clip_skip=2 if family.name == "sd1" else 1)
    if case in ("exception", "nan", "disk"):
        webui.call("/probe/fault", {"kind": case, "step": 4})
    if case == "unreadable":
        folder = tmp_path / "pictures"
        shutil.copytree(pictures, folder)
        (folder / "broken.png").write_bytes(b"no picture")
        run = replace(run, data=replace(run.data, folder=str(folder)))
    if case == "stopped":
        run = replace(run, schedule=replace(run.schedule, max_steps=1000))
    if case == "refused":
        run = replace(run, clip_skip=12)
    try:
        run_id = start(webui, run)
        if case == "stopped":
            wait(webui, run_id, step=3)
            webui.call(f"/pivotal/v1/runs/{run_id}/stop", {})
        view = wait(webui, run_id)
    finally:
        webui.call("/probe/fault", {"kind": "none"})
    wanted = {"stopped": "stopped", "exception": "failed", "refused": "failed"}
    assert view["status"] == wanted.get(case, "finished"), view["ended"]
    messages = " ".join(notice["message"] for notice in view["notices"])
    expected = {"nan": "step 4", "unreadable": "broken.png", "disk": "cannot be written", "refused": "clip_skip"}
    assert expected.get(case, "") in messages
    if case != "refused":
        bundle = Path(view["ended"]["bundle"])
        assert bundle.is_file(), "what was trained must not be lost"
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(bundle).values())
    assert webui.call("/probe/model") == before
    assert same(webui.txt2img(prompt).image, picture.image)


def test_pictures_during_a_run_and_the_run_itself_do_not_change(webui: WebUI, family: Family, run: Run) -> None:
    steps, count = (30, 10) if family.name == "sd1" else (16, 4)
    run = replace(run, name="disturbed", schedule=replace(run.schedule, max_steps=steps))
    undisturbed = tensors_of(trained(webui, run))
    expected = [webui.txt2img(PROMPT, seed=seed, steps=4) for seed in range(count)]
    run_id = start(webui, run)
    made = []
    for seed in range(count):
        wait(webui, run_id, step=2 + seed)
        made.append(webui.txt2img(PROMPT, seed=seed, steps=4))
    assert not webui.call(f"/pivotal/v1/runs/{run_id}")["ended"], "the pictures were to come during the run"
    disturbed = tensors_of(wait(webui, run_id))
    assert all(same(one.image, other.image) for one, other in zip(made, expected, strict=True))
    assert undisturbed.keys() == disturbed.keys()
    assert all(torch.equal(undisturbed[key], disturbed[key]) for key in undisturbed)


def test_run_waits_while_another_checkpoint_is_loaded(webui: WebUI, run: Run, family: Family, other: str) -> None:
    run = replace(run, name="switched", schedule=replace(run.schedule, max_steps=12))
    undisturbed = tensors_of(trained(webui, run))
    run_id = start(webui, run)
    wait(webui, run_id, step=3)
    webui.use(other)
    webui.txt2img(PROMPT, steps=2)
    time.sleep(2)
    view = webui.call(f"/pivotal/v1/runs/{run_id}")
    assert view["status"] == "waiting" and family.checkpoint.stem in view["activity"], view
    webui.call(f"/pivotal/v1/runs/{run_id}/checkpoint", {})
    view = wait(webui, run_id)
    assert view["status"] == "finished", view["ended"]
    webui.use(family.checkpoint.stem)
    switched = tensors_of(view)
    assert all(torch.equal(undisturbed[key], switched[key]) for key in undisturbed)


def test_paused_run_leaves_the_model_free(webui: WebUI, run: Run) -> None:
    picture = webui.txt2img(PROMPT)
    run_id = start(webui, replace(run, name="paused"))
    wait(webui, run_id, step=3)
    webui.call(f"/pivotal/v1/runs/{run_id}/pause", {})
    assert same(webui.txt2img(PROMPT).image, picture.image)
    view = webui.call(f"/pivotal/v1/runs/{run_id}")
    assert view["status"] == "paused" and view["step"] < 20
    webui.call(f"/pivotal/v1/runs/{run_id}/resume", {})
    assert wait(webui, run_id)["status"] == "finished"


def test_saving_over_a_name_is_seen_at_the_next_picture(webui: WebUI, stock: Situation, run: Run) -> None:
    embedding = run.embeddings[0].name
    prompt = f"<lora:again:1> {embedding}, smile, park background"
    trained(webui, replace(run, name="again"))
    first = webui.txt2img(prompt)
    view = trained(webui, replace(run, name="again", schedule=replace(run.schedule, max_steps=40)))
    second = webui.txt2img(prompt)
    assert not same(first.image, second.image)
    shutil.copyfile(view["ended"]["bundle"], stock.webui.lora_folder / "again.safetensors")
    stock.webui.reload_files()
    assert same(second.image, stock.webui.txt2img(prompt).image)


def test_rows_drawn_by_the_run_are_what_the_file_gives(webui: WebUI, run: Run) -> None:
    """The picture of a run's last step is txt2img's with the saved file, to the last bit.

    One word is drawn: batches of another size round differently, txt2img's too.
    """
    embedding = run.embeddings[0].name
    drawing = {"sample_every_steps": 20, "sample_prompts": ("{word}",), "sample_embeddings": (embedding,)}
    saving = replace(run.saving, dtype="fp32", **drawing)
    view = trained(webui, replace(run, name="rows", saving=saving))
    cells = view["pictures"][-1]["rows"]
    for row, weights in (("whole", "1:1"), ("U-Net only", "0:1"), ("text encoder only", "1:0"), ("words only", "0:0")):
        drawn = Image.open(cells[row][0]).convert("RGB")
        ours = webui.txt2img(f"<lora:rows:{weights}>{embedding}", steps=20, cfg_scale=7.0)
        assert same(drawn, ours.image), row


def test_faults_come_all_at_once_by_field(webui: WebUI, run: Run) -> None:
    plain = run_to_dict(run)
    plain["embeddings"][0]["vectors"] = 99
    plain["schedule"]["batch_size"] = 0
    with pytest.raises(RequestFailedError) as told:
        webui.call("/pivotal/v1/runs", plain)
    assert "422" in str(told.value) and "embeddings.0.vectors" in str(told.value) and "batch_size" in str(told.value)
    with pytest.raises(RequestFailedError, match="404"):
        webui.call("/pivotal/v1/runs/nothing")


def test_preflight_measures_and_gives_back(webui: WebUI, run: Run) -> None:
    before = webui.call("/probe/model")
    found = webui.call("/pivotal/v1/runs/preflight", run_to_dict(run))
    assert found["step_s"] > 0 and found["total_s"] == pytest.approx(run.schedule.total_steps * found["step_s"])
    assert set(found["draws"]) == {embedding.name for embedding in run.embeddings}
    assert webui.call("/probe/model") == before
    run_from_dict(run_to_dict(run))


def test_live_network(webui: WebUI, family: Family, run: Run) -> None:
    """While it is on, the network as it is now stands under a name of its own; afterwards the name is gone."""
    embedding = run.embeddings[0].name
    steps, late_step = (60, 40) if family.name == "sd1" else (30, 15)
    run_id = start(webui, replace(run, name="lively", schedule=replace(run.schedule, max_steps=steps)))
    webui.call("/pivotal/v1/live", {"on": True})
    wait(webui, run_id, step=5)
    prompt = f"<lora:pivotal-live:1> {embedding}, smile"
    early = webui.txt2img(prompt)
    wait(webui, run_id, step=late_step)
    late = webui.txt2img(prompt)
    without = webui.txt2img(f"{embedding}, smile")
    webui.call("/pivotal/v1/live", {"on": False})
    wait(webui, run_id)
    assert not same(early.image, late.image) and not same(late.image, without.image)
    assert not (webui.lora_folder / "pivotal-live.safetensors").exists()
