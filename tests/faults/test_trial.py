"""The demands of a trial can fail: each is broken once, on purpose, and is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, tempfile
from pathlib import Path
import torch
from tests.faults.campaign import Campaign
from tests.faults.kinds import Kind
from tests.faults.material import NAME
from tests.faults.trial import Result, try_one, undisturbed
from lib_pivotal.errors import StateError
from lib_pivotal.training import keeping, outputs, run
from lib_pivotal.training.trainable import Trainable

class Broken(Kind):
    name = sys.argv[1]

    def plant(self, act):
        if self.name == "ended":
            act.after_step(2, lambda: setattr(keeping.Keeper, "save_at_end", lambda *a, **k: 1 / 0))
        if self.name == "kept":
            original = outputs.write_bundle
            def write(path, **content):
                original(path, **content)
                path.write_bytes(b"")
                return path
            outputs.write_bundle = write
        if self.name == "same":
            act.after_step(1, lambda: torch.manual_seed(1))
            original = Trainable.update
            def update(self, *arguments, **rest):
                done = original(self, *arguments, **rest)
                with torch.no_grad():
                    self.parameters[0].add_(1e-6)
                return done
            Trainable.update = update
        if self.name == "weights":
            act.after_step(2, lambda: next(act.host.denoiser.unet.parameters()).data.add_(1e-6))
        if self.name == "picture":
            act.after_step(2, lambda: setattr(act.host, "sampler", "euler_a"))
        if self.name == "inside":
            act.after_step(2, lambda: (act.folders.root / "beside" / "new").write_text("x"))

with tempfile.TemporaryDirectory() as folder:
    campaign = Campaign(1, Path(folder))
    expected = undisturbed(campaign._material, "plain")
    result = try_one(campaign._material, expected, Broken(), Result(0, "x", "plain", {}))
print(result.held)
print(*result.why, sep="\\n")
sys.exit(0 if getattr(result.held, sys.argv[1]) is False else 1)
"""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="trials are forked processes")]


@pytest.mark.parametrize("demand", ["ended", "kept", "same", "weights", "picture", "inside"])
def test_a_demand_that_is_broken_is_told(demand, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), demand], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
