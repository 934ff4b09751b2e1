"""Training with weights in half precision, on the CPU: slow, so few steps on small pictures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run
from tests.live.conftest import ROOT, Installation, TinyCheckpoints, running
from tests.live.test_tab import same, trained

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_embeddings(1)
    setup = experiment.Setup(tuple(characters), (), seed=0)
    setup = replace(setup, steps=2, pictures=1, batch_size=1, vectors=2, init="random")
    return experiment.make_run(setup, experiment.write_dataset(setup, tmp_path_factory.mktemp("a") / "pictures"), "p")


HALF = ["--precision", "half"]
"""Without it v1.10.1 asks for a GPU as soon as weights are in half precision. It refuses --no-half-vae beside it: for
that and for --upcast-sampling see test_families_flags.py."""

FAMILIES = ("sd1", "sdxl")


def test_half_precision(
    installation: Installation, tiny_checkpoints: TinyCheckpoints, tmp_path: Path, run: Run
) -> None:
    def prepare(data: Path) -> None:
        shutil.copytree(ROOT / "tests" / "live" / "probe", data / "extensions" / "probe")
        tiny_checkpoints.lay_out(data, *FAMILIES)

    path = tiny_checkpoints.path("sd1")
    with running(installation, path, tmp_path / "d", linked=True, prepare=prepare, arguments=HALF, half=True) as webui:
        webui.call("/sdapi/v1/options", {"live_previews_enable": False})
        for family in FAMILIES:
            webui.use(family)
            assert webui.call("/probe/facts")["dtype"] == "torch.float16"
            picture = webui.txt2img("a face", steps=2)
            before = webui.call("/probe/model")
            view = trained(webui, replace(run, name=f"half-{family}"))
            assert webui.call("/probe/model") == before
            assert same(webui.txt2img("a face", steps=2).image, picture.image)
            assert not same(
                webui.txt2img(f"<lora:half-{family}:1>{run.embeddings[0].name}", steps=2).image, picture.image
            )
            assert view["step"] == run.schedule.total_steps

        webui.call("/probe/overflow/17")
        view = trained(webui, replace(run, name="overflow"))
        webui.call("/probe/overflow/-17")
        said = [notice["message"] for notice in view["notices"] if "encoded in fp32" in notice["message"]]
        assert len(said) == 1
