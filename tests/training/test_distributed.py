"""Two processes with half of the batch each give the losses and the file of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import write_run
from lib_pivotal.errors import TrainingError
from lib_pivotal.training.distributed import ProcessGroup

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
from tests.conftest import make_tiny_models
from lib_pivotal.config import read_run
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training.distributed import ProcessGroup
from lib_pivotal.training.events import StepDone
from lib_pivotal.commands.runs import train
world = ProcessGroup.from_environment()
host = StandaloneHost(**make_tiny_models(), scale_factor=1.0, name="tiny")
losses = []
def note(event):
    if isinstance(event, StepDone):
        losses.extend(event.losses.values())
out = Path(sys.argv[2])
ended = train(read_run(Path(sys.argv[1])), host, output_folder=out, listener=note, world=world)
if world.writes:
    (out / "losses.json").write_text(json.dumps(losses))
world.close()
assert ended.reason == "finished", ended.message
"""


def run_script(script, run_file, out, processes):
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), str(run_file), str(out)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "losses.json").read_text())


STARVED = {
    "schedule": {"embeddings_only_share": 0.5, "embedding_gradient_factor": 0.2},
    "network": {"module_dropout": 0.3, "l1": 0.03, "lr_ramp": "linear", "timestep_max": 700},
    "loss": {"dco_beta": 1000.0},
}
"""What embeddings and network learn apart from each other; 6 steps at a share of a half are 12."""


@pytest.mark.slow
@pytest.mark.parametrize(("more", "steps"), [({}, 6), (STARVED, 12)], ids=["plain", "starved"])
def test_two_processes_equal_one(more, steps, two_embeddings_folder, tmp_path):
    from lib_pivotal.config import run_from_dict

    plain = {
        "name": "two",
        "words": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 2}],
        "network": {"unet_rank": 2, "te_targets": "attention", "te_rank": 2, "te_lr": 1e-3},
        "data": {"folder": str(two_embeddings_folder), "resolution_px": 64, "tag_dropout": 0.3},
        "schedule": {"max_steps": 6, "batch_size": 4, "accumulation": 2},
        "regularisation": {
            "folder": str(two_embeddings_folder),
            "target": "prior",
            "batch_size": 2,
            "preservation": 0.5,
        },
        "saving": {"state_every_steps": 0, "dtype": "fp32"},
    }
    run = run_from_dict({**plain, **{name: {**plain.get(name, {}), **values} for name, values in more.items()}})
    write_run(tmp_path / "run.json", run)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    one = run_script(script, tmp_path / "run.json", tmp_path / "one", 1)
    two = run_script(script, tmp_path / "run.json", tmp_path / "two", 2)
    assert two == pytest.approx(one, rel=1e-4, abs=1e-9) and len(one) == 3 * steps
    first = require(read_bundle(tmp_path / "one" / "two.safetensors"))
    second = require(read_bundle(tmp_path / "two" / "two.safetensors"))
    for name in first.embeddings:
        torch.testing.assert_close(first.embeddings[name][0], second.embeddings[name][0], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["direction", "preserve_norm"])
def test_two_processes_equal_one_with_losses_on_the_embeddings(control, two_embeddings_folder, tmp_path):
    """Each process counts its own samples' embeddings; the warm-up on the text encoder is the first one's."""
    from lib_pivotal.config import run_from_dict

    common = {
        "lr": 0.02,
        "control": control,
        "norm_target": "initial",
        "start_weight": 0.01,
        "text_steps": 3,
        "editability": "core",
    }
    embeddings = [{"name": name, "vectors": 2, "init_text": f"{name[0]} hair, hat"} for name in ("aoi", "hana")]
    run = run_from_dict(
        {
            "name": "two",
            "embeddings": embeddings,
            "embeddings_common": common,
            "network": {"unet_rank": 2},
            "data": {"folder": str(two_embeddings_folder), "resolution_px": 64, "bare_caption": 0.3},
            "schedule": {"max_steps": 4, "batch_size": 4, "accumulation": 2},
            "saving": {"state_every_steps": 0, "dtype": "fp32"},
        }
    )
    write_run(tmp_path / "run.json", run)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    one = run_script(script, tmp_path / "run.json", tmp_path / "one", 1)
    two = run_script(script, tmp_path / "run.json", tmp_path / "two", 2)
    assert two == pytest.approx(one, rel=1e-4, abs=1e-7) and len(one) == 3 * 4
    first, second = (require(read_bundle(tmp_path / name / "two.safetensors")).embeddings for name in ("one", "two"))
    for name in first:
        torch.testing.assert_close(first[name][0], second[name][0], rtol=1e-3, atol=1e-4)


def test_alone_everything_is_free():
    world = ProcessGroup()
    parameter = torch.zeros(2, requires_grad=True)
    parameter.grad = torch.ones(2)
    world.average([parameter])
    assert parameter.grad.tolist() == [1, 1]
    assert world.total(2.5) == 2.5 and world.any(True) and not world.any(False) and world.writes
    world.close()


def test_what_each_made_is_shared_alone_as_well():
    values = torch.ones(2)
    ProcessGroup().share([values])
    assert torch.equal(values, torch.ones(2))


def test_uneven_share_is_refused():
    with pytest.raises(TrainingError, match="multiple of 2"):
        ProcessGroup(rank=0, size=2).check_size(3)
    ProcessGroup(rank=0, size=2).check_size(4)
