"""Class pictures in the web UI are txt2img's own, and a run beside them keeps the checkpoint as it is."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
from tests.live.conftest import Installation, WebUI, running
from tests.live.situations import Situation
from tests.live.test_tab_placement import add_probe

pytestmark = pytest.mark.webui

PROMPTS = ("a red hat", "a green coat")


def ended(webui: WebUI) -> Any:
    """What is known of the run or the job that was started last, once it has ended."""
    deadline = time.monotonic() + 600
    while (told := webui.call("/pivotal/v1/runs/current"))["ended"] is None:
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    return told


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_embeddings(1)
    setup = replace(experiment.Setup(tuple(characters), (), seed=0), steps=4)
    folder = experiment.write_dataset(setup, tmp_path_factory.mktemp("avatars") / "pictures")
    made = experiment.make_run(setup, folder, "kept")
    kept = replace(
        made.regularisation,
        folder=str(tmp_path_factory.mktemp("class") / "pictures"),
        prompts=PROMPTS,
        count=6,
        batch_size=2,
        target="prior",
        preservation=0.5,
    )
    return replace(made, regularisation=kept)


def test_made_and_trained_with(installation: Installation, checkpoint: Path, tmp_path: Path, run: Run) -> None:
    with running(installation, checkpoint, tmp_path / "data", linked=True, prepare=add_probe) as webui:
        before = webui.call("/probe/model")
        picture = webui.txt2img("a red hat, smile")
        webui.call("/pivotal/v1/runs/class_pictures", run_to_dict(run))
        meanwhile: list[bool] = []
        visitor = threading.Thread(
            target=lambda: meanwhile.append(same(webui.txt2img("a red hat, smile").image, picture.image))
        )
        visitor.start()
        told = ended(webui)
        visitor.join()
        assert told["status"] == "finished" and meanwhile == [True], told
        files = sorted(Path(run.regularisation.folder).glob("*.png"))
        assert len(files) == 6 and [file.with_suffix(".txt").read_text() for file in files] == [*PROMPTS] * 3
        assert webui.call("/probe/model") == before
        size = run.data.resolution_px
        own = webui.txt2img(PROMPTS[1], seed=run.seed + 1, steps=28, cfg_scale=7, width=size, height=size)
        with Image.open(files[1]) as made:
            assert same(made.convert("RGB"), own.image)
        webui.call("/pivotal/v1/runs", {**run_to_dict(run), "overwrite": True})
        told = ended(webui)
        assert told["status"] == "finished", told
        assert webui.call("/probe/model") == before
        assert same(webui.txt2img("a red hat, smile").image, picture.image)
        table = (Path(told["folder"]) / "kept.steps.csv").read_text(encoding="utf-8").splitlines()
        row = dict(zip(table[0].split(","), table[1].split(","), strict=True))
        assert float(row["class pictures"]) == 0.0 == float(row["preservation"])  # the network begins as nothing
        assert float(dict(zip(table[0].split(","), table[-1].split(","), strict=True))["preservation"]) > 0.0


def test_uneven_sizes_and_every_way_to_show_a_picture(pivotal: Situation, run: Run, tmp_path: Path) -> None:
    """Latents of 9 and 7 go through the web UI's own U-Net; cuts, mirrors, masks and the limit to memory at once."""
    pivotal_webui = pivotal.webui
    pictures = experiment_folder(tmp_path / "wide")
    data = replace(
        run.data,
        folder=str(pictures),
        resolution_px=72,
        bucketing=True,
        bucket_step_px=8,
        crop="random",
        crops=4,
        scale_augmentation=True,
        flip=True,
        masks="hcp_exact",
        most_cropped=0.1,
    )
    memory = replace(run.memory, latents_mb=1)
    embedding = replace(run.embeddings[0], name="aoi", init_text="random", prune=False)
    kept = replace(run.regularisation, folder="", preservation=0.3, class_text="a hat")
    wanted = replace(run, name="uneven", embeddings=(embedding,), data=data, memory=memory, regularisation=kept)
    wanted = replace(wanted, saving=replace(run.saving, separation_every_steps=0, sample_every_steps=0))
    before = pivotal_webui.txt2img("a red hat, smile")
    pivotal_webui.call("/pivotal/v1/runs", {**run_to_dict(wanted), "overwrite": True})
    told = ended(pivotal_webui)
    assert told["status"] == "finished" and len(told["loss"]["values"]) == wanted.schedule.total_steps, told
    said = [notice["message"] for notice in told["notices"]]
    assert any("shown in full with a border" in text for text in said)
    assert any(text.startswith("aoi: its pictures are mirrored, but have eyepatch") for text in said)
    assert not list(Path(told["folder"]).glob("*.latents"))
    assert same(pivotal_webui.txt2img("a red hat, smile").image, before.image)


def experiment_folder(folder: Path) -> Path:
    """Pictures of several shapes, one of them a strip, one with a mask."""
    (folder / "mask").mkdir(parents=True)
    for number, size in enumerate(((72, 72), (90, 60), (56, 100), (400, 40), (72, 72), (90, 60))):
        Image.new("RGB", size, (40 * number, 90, 30)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("aoi, eyepatch, hat", encoding="utf-8")
    Image.linear_gradient("L").resize((72, 72)).save(folder / "mask" / "0.png")
    return folder


def same(first: Image.Image, second: Image.Image) -> bool:
    """Pixel for pixel."""
    return first.size == second.size and first.tobytes() == second.tobytes()
