"""--upcast-sampling and --no-half-vae with weights in half precision, on the CPU: few steps on small pictures.

All with --precision full, which leaves the weights as they are and is how v1.10.1 starts with half-precision weights
where there is no GPU: by itself it asks CUDA whether autocast can be used (devices.py, `cuda_no_autocast`).
--upcast-sampling computes group norms in fp32, and for that widens modules of the U-Net as they are used. v1.10.1 does
so only where there is a GPU; `upcast_lines.py` has it run the same lines here. They are for SD1 and SD2: SDXL's group
norms, and all of them with --no-half-vae alone, are left to CUDA's autocast, and neither a picture nor a step in half
precision is possible on a CPU ("mixed dtype"). There a run in fp32 shows that the flags' own state does no harm.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run
from tests.live.conftest import ROOT, Installation, TinyCheckpoints, WebUI, no_live_previews, running
from tests.live.test_tab import same, trained

pytestmark = [pytest.mark.webui, pytest.mark.slow]

LIVE = ROOT / "tests" / "live"
FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_embeddings(1)
    setup = experiment.Setup(tuple(characters), (), seed=0)
    setup = replace(setup, steps=2, pictures=1, batch_size=1, vectors=2, init="random")
    made = experiment.make_run(setup, experiment.write_dataset(setup, tmp_path_factory.mktemp("a") / "pictures"), "p")
    return replace(made, saving=replace(made.saving, preview_every_steps=0, separation_every_steps=0))


@pytest.fixture(
    scope="module",
    params=[("--upcast-sampling",), ("--upcast-sampling", "--no-half-vae"), ("--no-half-vae",)],
    ids=["upcast", "upcast-full-vae", "full-vae"],
)
def flagged(
    request: pytest.FixtureRequest,
    installation: Installation,
    tiny_checkpoints: TinyCheckpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WebUI, tuple[str, ...]]]:
    """The web UI and how it was started."""
    flags = request.param
    arguments = [*flags, "--precision", "full"]

    def prepare(data: Path) -> None:
        shutil.copytree(LIVE / "probe", data / "extensions" / "probe")
        if "--upcast-sampling" in flags:
            shutil.copyfile(LIVE / "upcast_lines.py", data / "extensions" / "probe" / "scripts" / "upcast_lines.py")
        tiny_checkpoints.lay_out(data, *FAMILIES)

    data, first = tmp_path_factory.mktemp("flags"), tiny_checkpoints.path("sd1")
    with running(installation, first, data, linked=True, prepare=prepare, arguments=arguments, half=True) as webui:
        no_live_previews(webui)
        yield webui, flags


@pytest.mark.parametrize("family", FAMILIES)
def test_trains_and_gives_back(flagged: tuple[WebUI, tuple[str, ...]], run: Run, family: str) -> None:
    webui, flags = flagged
    webui.use(family)
    facts = webui.call("/probe/facts")
    assert facts["dtype"] == "torch.float16"
    assert facts["vae_dtype"] == ("torch.float32" if "--no-half-vae" in flags else "torch.float16")
    assert facts["upcast"] == ("--upcast-sampling" in flags)
    before = webui.call("/probe/model")  # no picture yet: nothing has been widened
    full = trained(webui, replace(run, name=f"full-{family}", memory=replace(run.memory, precision="fp32")))
    assert webui.call("/probe/model") == before
    if "--upcast-sampling" not in flags or family == "sdxl":
        return  # see above
    half = trained(webui, replace(run, name=f"half-{family}"))
    assert webui.call("/probe/model") == before
    assert half["loss"]["values"] == pytest.approx(full["loss"]["values"], rel=0.01)
    assert half["loss"]["values"] != full["loss"]["values"], "it has computed in half precision"
    picture = webui.txt2img("a face", steps=2)
    drawn = webui.call("/probe/model")
    assert drawn["weights"] != before["weights"], "--upcast-sampling has widened nothing: nothing is tested"
    trained(webui, replace(run, name=f"again-{family}"))
    assert webui.call("/probe/model") == drawn
    assert same(webui.txt2img("a face", steps=2).image, picture.image)
    assert not same(webui.txt2img(f"<lora:half-{family}:1>{run.embeddings[0].name}", steps=2).image, picture.image)
    if family == "sd1":  # half precision's autoencoder overflows, fp32's does not
        webui.call("/probe/overflow/17")
        view = trained(webui, replace(run, name="overflow"))
        webui.call("/probe/overflow/-17")
        said = [notice["message"] for notice in view["notices"] if "encoded in fp32" in notice["message"]]
        assert len(said) == ("--no-half-vae" not in flags)
