"""The same run in a real web UI and standalone, for every family: the losses of every step agree.

Words and a network on the U-Net and on every text encoder, in fp32, from one checkpoint file. The two hosts share no
code below the ports: one has ldm, sgm and open_clip, the other diffusers and transformers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training.events import Event, StepDone
from tests.live.conftest import TRAINED, TinyCheckpoints, WebUI
from tests.live.test_tab import trained
from tests.training.runs import train

pytestmark = [pytest.mark.webui, pytest.mark.slow]

STEPS = 20
RELATIVE = 1e-5
"""A tenth of what is asked for; rounding alone gives 2e-6, a schedule rounded to half precision 2e-4."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, _ = make.choose_embeddings(2)
    setup = replace(
        experiment.Setup(tuple(characters), (), seed=0), steps=STEPS, pictures=8, batch_size=2, vectors=2, init="text"
    )
    folder = experiment.write_dataset(setup, tmp_path_factory.mktemp("avatars") / "pictures")
    run = experiment.make_run(setup, folder, "parity")
    # rates at which a random model does not run away: rounding would be all that one sees
    network = replace(run.network, unet_lr=2e-4, te_lr=2e-5)
    return replace(run, network=network, memory=replace(run.memory, precision="fp32"))


def standalone_losses(run: Run, checkpoint: Path, folder: Path) -> list[float]:
    found: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            found.append(event.losses["loss"])

    ended = train(run, StandaloneHost.load(checkpoint), output_folder=folder, listener=listen)
    assert ended.reason == "finished", ended.message
    return found


@pytest.mark.parametrize("family", TRAINED)
def test_losses_are_those_of_the_standalone_host(
    webui: WebUI, tiny_checkpoints: TinyCheckpoints, run: Run, tmp_path: Path, family: str
) -> None:
    webui.use(family)
    run = replace(run, name=f"parity-{family}")
    view = trained(webui, run)
    events = (Path(view["folder"]) / f"{run.name}.events.jsonl").read_text().splitlines()
    theirs = [record["losses"]["loss"] for record in map(json.loads, events) if record["event"] == "StepDone"]
    ours = standalone_losses(run, tiny_checkpoints.path(family), tmp_path)
    assert len(ours) == len(theirs) == run.schedule.total_steps
    apart = [abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)]
    where = f"at step {apart.index(max(apart)) + 1}; losses {theirs[0]:.4f} to {theirs[-1]:.4f}"
    print(f"\n{family}: largest deviation {max(apart):.1e}, {where}")
    assert max(apart) <= RELATIVE, [f"{each:.1e}" for each in apart]
