"""The demands of a trial can fail: each is broken once, on purpose, and is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys, tempfile
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
    def __init__(self, name):
        self.name = name

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
    results = [
        try_one(campaign._material, expected, Broken(demand), Result(0, demand, "plain", {})) for demand in sys.argv[2:]
    ]
Path(sys.argv[1]).write_text(json.dumps([result.as_dict() for result in results]))
"""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="trials are forked processes")]


def test_a_demand_that_is_broken_is_told(tmp_path):
    demands = ["ended", "kept", "same", "weights", "picture", "inside"]
    script, results = tmp_path / "script.py", tmp_path / "results.json"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(results), *demands]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for result in json.loads(results.read_text()):
        assert result["held"][result["kind"]] is False, result
        assert any(why.startswith(result["kind"]) for why in result["why"]), result
