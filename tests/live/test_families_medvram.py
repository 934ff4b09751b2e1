"""Under --medvram, with a GPU that is only a name (`placement_probe.py`): nothing computes where it would not be."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
from tests.live.conftest import ROOT, Installation, TinyCheckpoints, WebUI, no_live_previews, running
from tests.live.test_tab import same, trained

pytestmark = [pytest.mark.webui, pytest.mark.slow]

LIVE = ROOT / "tests" / "live"
FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_embeddings(1)
    setup = replace(experiment.Setup(tuple(characters), (), seed=0), steps=3, pictures=4, batch_size=2, vectors=2)
    setup = replace(setup, init="random")
    made = experiment.make_run(setup, experiment.write_dataset(setup, tmp_path_factory.mktemp("a") / "pictures"), "p")
    return replace(made, saving=replace(made.saving, preview_every_steps=0, separation_every_steps=0))


@pytest.fixture(scope="module")
def webui(
    installation: Installation, tiny_checkpoints: TinyCheckpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebUI]:
    def prepare(data: Path) -> None:
        scripts = data / "extensions" / "probe" / "scripts"
        shutil.copytree(LIVE / "probe", scripts.parent)
        shutil.copyfile(LIVE / "placement_probe.py", scripts / "placement_probe.py")
        tiny_checkpoints.lay_out(data, *FAMILIES)

    data, first = tmp_path_factory.mktemp("medvram"), tiny_checkpoints.path("sd1")
    with running(installation, first, data, linked=True, prepare=prepare, arguments=["--medvram"]) as found:
        no_live_previews(found)
        yield found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_is_where_it_computes(webui: WebUI, run: Run, family: str) -> None:
    """And the autoencoder, which the web UI had in the machine's memory, is there again once latents are cached."""
    webui.use(family)
    webui.call("/placement/watching")
    picture = webui.txt2img("a face", steps=4)
    told = webui.call("/placement/told")
    assert told["computed"] > 100 and not told["astray"], "the web UI's own picture"
    before = webui.call("/probe/model")

    webui.call("/placement/watching")
    webui.call("/pivotal/v1/runs/preflight", run_to_dict(run))
    told = webui.call("/placement/told")
    assert told["computed"] > 100 and not told["astray"] and not told["vae_there"]
    assert webui.call("/probe/model") == before

    webui.call("/placement/watching")
    trained(webui, replace(run, name=f"placed-{family}"))
    told = webui.call("/placement/told")
    assert told["computed"] > 100 and not told["astray"]
    assert told["unet_beside_vae"] == 0 and not told["vae_there"]
    assert webui.call("/probe/model") == before

    webui.call("/placement/watching")
    trained(webui, replace(run, name=f"drawn-{family}", saving=replace(run.saving, preview_every_steps=3)))
    assert not webui.call("/placement/told")["astray"]
    assert webui.call("/probe/model") == before
    assert same(webui.txt2img("a face", steps=4).image, picture.image)


def test_a_module_elsewhere_would_be_seen(webui: WebUI) -> None:
    webui.call("/placement/watching")
    webui.call("/placement/astray")
    assert webui.call("/placement/told")["astray"] == ["first_stage_model.post_quant_conv"]
