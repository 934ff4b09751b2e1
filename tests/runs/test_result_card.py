"""The card of a run's file at its end, on a tiny real run; what cannot be written is told and ends nothing."""

from dataclasses import replace

import pytest
from PIL import Image
from safetensors.torch import load_file

from lib_pivotal.bundle.card import CardEdit, read_card
from lib_pivotal.config import Run, SavingConfig
from lib_pivotal.runs.result_card import card_at_end, last_samples, write_files
from lib_pivotal.training.events import Notice, RunEnded
from tests.bundle.conftest import embeddings, network  # noqa: F401 (fixtures)
from tests.runs.test_samples import write_run


@pytest.fixture
def file(network, embeddings, tmp_path):  # noqa: F811
    from lib_pivotal.bundle.writer import write_bundle

    return write_bundle(tmp_path / "two.safetensors", network=network, embeddings=embeddings, metadata={})


def test_prompts_are_those_that_were_drawn(tmp_path):
    found = last_samples(write_run(tmp_path / "run"))
    assert [one.prompt for one in found.prompts] == ["aoi", "hana"] and found.source.step == 100
    assert {(one.seed, one.steps, one.cfg, one.size_px) for one in found.prompts} == {(0, 20, 7.0, 64)}
    assert found.picture.width > 2 * 192 and found.picture.height > 4 * 192, "four rows, two columns"
    assert last_samples(tmp_path) is None


def test_files_of_a_card(file, tmp_path):
    before = load_file(file)
    written = write_files(file, CardEdit(licence="CC0-1.0"), last_samples(write_run(tmp_path / "run")))
    assert [path.name for path in written] == ["two.safetensors", "two.preview.png", "two.json"]
    card = read_card(file)
    assert card.thumbnail.startswith("data:image/jpeg") and len(card.prompts) == 2 and card.licence == "CC0-1.0"
    assert before.keys() == load_file(file).keys()
    with Image.open(written[1]) as preview:
        assert preview.width > 384


def test_only_where_it_is_asked_for(file, tmp_path):
    ended, told = RunEnded("finished", 100, 1.0, file), []
    folder = write_run(tmp_path / "run")
    card_at_end(Run(), ended, folder, told.append)
    assert not told and not file.with_suffix(".json").exists()
    run = Run(saving=SavingConfig(card=True, licence="CC0-1.0"))
    card_at_end(run, replace(ended, bundle=None), folder, told.append)
    assert not told
    card_at_end(run, ended, folder, told.append)
    assert [event.path for event in told] == [file] and read_card(file).licence == "CC0-1.0"


def test_a_card_that_cannot_be_written_is_a_notice(tmp_path):
    told = []
    gone = RunEnded("finished", 100, 1.0, tmp_path / "gone.safetensors")
    card_at_end(Run(saving=SavingConfig(card=True)), gone, tmp_path, told.append)
    assert isinstance(told[0], Notice) and "could not be written" in told[0].message
