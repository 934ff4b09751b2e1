"""Training under --medvram and --lowvram, whose hooks move parts of the model about (here from CPU to CPU)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
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
from tests.live.test_tab import PROMPT, same, trained

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_embeddings(1)
    setup = replace(experiment.Setup(tuple(characters), (), seed=0), steps=6, batch_size=2)
    folder = experiment.write_dataset(setup, tmp_path_factory.mktemp("avatars") / "pictures")
    return experiment.make_run(setup, folder, "placed")


def add_probe(data: Path) -> None:
    shutil.copytree(ROOT / "tests" / "live" / "probe", data / "extensions" / "probe")


@pytest.fixture(scope="module", params=["--medvram", "--lowvram"])
def placed_webui(
    request: pytest.FixtureRequest,
    installation: Installation,
    checkpoint: Path,
    tiny_checkpoints: TinyCheckpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WebUI, str]]:
    """The web UI and how it was started."""

    def prepare(data: Path) -> None:
        add_probe(data)
        tiny_checkpoints.lay_out_families(data)

    data, arguments = tmp_path_factory.mktemp("placed"), [request.param]
    with running(installation, checkpoint, data, linked=True, prepare=prepare, arguments=arguments) as webui:
        no_live_previews(webui)
        yield webui, request.param


def test_medvram_gives_back_and_lowvram_is_refused(placed_webui: tuple[WebUI, str], family: Family, run: Run) -> None:
    webui, how = placed_webui
    webui.use(family.checkpoint.stem)
    if how == "--lowvram":
        with pytest.raises(RequestFailedError, match=r"400 .*--medvram"):
            webui.call("/pivotal/v1/runs", {**run_to_dict(run), "overwrite": True})
        return
    picture = webui.txt2img(PROMPT)
    before = webui.call("/probe/model")
    assert before["hooks"], "--medvram has put no hooks on the model: nothing is tested"
    trained(webui, replace(run, saving=replace(run.saving, preview_every_steps=6)))
    assert webui.call("/probe/model") == before
    assert same(webui.txt2img(PROMPT).image, picture.image)
