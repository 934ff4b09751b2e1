"""Training SDXL under --medvram-sdxl; fp8 is refused. All on the CPU."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
from tests.live.conftest import ROOT, Installation, RequestFailedError, TinyCheckpoints, running
from tests.live.test_tab import same, trained

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_embeddings(1)
    setup = experiment.Setup(tuple(characters), (), seed=0)
    setup = replace(setup, steps=4, pictures=4, batch_size=2, vectors=2, init="random")
    return experiment.make_run(setup, experiment.write_dataset(setup, tmp_path_factory.mktemp("a") / "pictures"), "p")


def test_medvram_and_fp8(
    installation: Installation, tiny_checkpoints: TinyCheckpoints, tmp_path: Path, run: Run
) -> None:
    def prepare(data: Path) -> None:
        shutil.copytree(ROOT / "tests" / "live" / "probe", data / "extensions" / "probe")
        tiny_checkpoints.lay_out(data, "sdxl", "sd2")

    arguments = ["--medvram-sdxl"]
    path = tiny_checkpoints.path("sdxl")
    with running(installation, path, tmp_path / "d", linked=True, prepare=prepare, arguments=arguments) as webui:
        webui.call("/sdapi/v1/options", {"live_previews_enable": False})
        webui.use("sdxl")
        picture = webui.txt2img("a face")
        before = webui.call("/probe/model")
        assert before["hooks"], "--medvram-sdxl has put no hooks on the model: nothing is tested"
        trained(webui, replace(run, saving=replace(run.saving, preview_every_steps=4)))
        assert webui.call("/probe/model") == before
        assert same(webui.txt2img("a face").image, picture.image)

        webui.call("/sdapi/v1/options", {"fp8_storage": "Enable for SDXL"})
        webui.use("sd2")
        webui.use("sdxl")
        with pytest.raises(RequestFailedError, match=r"400 .*fp8.*Disable"):
            webui.call("/pivotal/v1/runs", {**run_to_dict(run), "overwrite": True})
