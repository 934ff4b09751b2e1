"""Training under --medvram and --lowvram, whose hooks move parts of the model about (here from CPU to CPU)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
from tests.live.conftest import ROOT, Installation, RequestFailedError, running
from tests.live.test_tab import PROMPT, same, trained

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_words(1)
    setup = replace(experiment.Setup(tuple(characters), (), seed=0), steps=6)
    folder = experiment.write_dataset(setup, tmp_path_factory.mktemp("avatars") / "pictures")
    return experiment.make_run(setup, folder, "placed")


def add_probe(data: Path) -> None:
    shutil.copytree(ROOT / "tests" / "live" / "probe", data / "extensions" / "probe")


def test_medvram(installation: Installation, checkpoint: Path, tmp_path: Path, run: Run) -> None:
    with running(
        installation, checkpoint, tmp_path / "data", linked=True, prepare=add_probe, arguments=["--medvram"]
    ) as webui:
        picture = webui.txt2img(PROMPT)
        before = webui.call("/probe/model")
        assert before["hooks"], "--medvram has put no hooks on the model: nothing is tested"
        trained(webui, replace(run, saving=replace(run.saving, preview_every_steps=6)))
        assert webui.call("/probe/model") == before
        assert same(webui.txt2img(PROMPT).image, picture.image)


def test_lowvram_is_refused_with_the_remedy(
    installation: Installation, checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    with (
        running(installation, checkpoint, tmp_path / "data", linked=True, arguments=["--lowvram"]) as webui,
        pytest.raises(RequestFailedError, match=r"400 .*--medvram"),
    ):
        webui.call("/pivotal/v1/runs", run_to_dict(run))
