"""Choose the step from every front: the same order, the same file, the same refusals."""

import json

import pytest

from lib_pivotal.commands import steps
from lib_pivotal.errors import FileNameError, HostError
from tests.runs.test_samples import write_run
from tests.webui.test_api_paths import Site


@pytest.fixture
def folder(site: Site):
    made = write_run(site.backend.runs_folder() / "1-two")
    log = made / "two.events.jsonl"
    events = [
        {"event": "SeparationMeasured", "step": step, "shares": {"aoi": s}} for step, s in ((50, 0.7), (100, 0.2))
    ]
    log.write_text(log.read_text() + "\n" + "\n".join(map(json.dumps, events)) + "\n")
    (made / "steps" / "two-000050.safetensors").write_bytes(b"fifty")
    return made


def test_every_front_ranks_alike(site: Site, folder, line) -> None:
    found = steps.rank_steps(folder)
    assert [one.record.step for one in found.steps] == [50, 100] and found.figures == ("separation",)
    answer = site.client.get("/pivotal/v1/runs/1-two/steps").json()
    assert answer == found.as_dict() and answer["said"] == "By share in the embeddings."
    assert json.loads(line("steps", folder, "--json")) == found.as_dict()
    told = line("steps", folder).splitlines()
    assert told[0] == found.said and told[1].split()[:2] == ["step", "50"]
    assert steps.runs_with_steps(site.manager) == ["1-two"]


def test_use_puts_it_into_the_lora_folder(site: Site, folder, tmp_path, line) -> None:
    answer = site.post("/runs/1-two/use", {"step": 50})
    target = site.backend.lora_folder() / "two-000050.safetensors"
    assert answer.json() == {"file": str(target)} and target.read_bytes() == b"fifty"
    assert site.backend.saved == [target]
    assert site.post("/runs/1-two/use", {"step": 50}).status_code == 200, "it is there already"
    target.write_bytes(b"mine")
    refused = site.post("/runs/1-two/use", {"step": 50})
    assert refused.status_code == 400 and target.read_bytes() == b"mine"
    with pytest.raises(FileNameError):
        steps.use(folder, target.parent, step=50)
    assert line("steps", folder, "--use", "best", "--out", tmp_path / "new").strip().endswith("two-000050.safetensors")
    assert (tmp_path / "new" / "two-000050.safetensors").read_bytes() == b"fifty"


def test_refusals(site: Site, folder, tmp_path, line) -> None:
    assert site.client.get("/pivotal/v1/runs/nothing/steps").status_code == 404
    assert site.client.get("/pivotal/v1/runs/../steps").status_code == 404
    for step in (75, 0):
        assert "has no file to keep" in site.post("/runs/1-two/use", {"step": step}).json()["detail"]
    assert "no picture scorer 'ccip'" in site.client.get("/pivotal/v1/runs/1-two/steps?by=ccip").json()["detail"]
    assert "no picture scorer 'ccip'" in line("steps", folder, "--by", "ccip")
    assert "name a step, or best" in line("steps", folder, "--use", "last")
    with pytest.raises(HostError, match="no step was kept"):
        steps.rank_steps(tmp_path)


def test_without_figures_the_last_is_first(site: Site) -> None:
    found = steps.rank_steps(write_run(site.backend.runs_folder() / "2-plain"))
    assert [one.record.step for one in found.steps] == [100, 50] and found.said.startswith("Nothing is known")
