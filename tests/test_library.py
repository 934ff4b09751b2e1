"""The package as a library: what it offers, at what price, under which version."""

import subprocess
import sys
from pathlib import Path

import pytest

import lib_pivotal
from lib_pivotal import Run, read_bundle, run_from_dict, train
from tests.training.runs import plain_run

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", lib_pivotal.__all__)
def test_what_is_offered_is_there_and_explained(name):
    assert getattr(lib_pivotal, name) is not None
    assert name == "__version__" or f"`{name}" in lib_pivotal.__doc__


def test_what_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="train_everything"):
        lib_pivotal.train_everything  # noqa: B018


def test_importing_it_imports_nothing_else():
    """The web UI's start pays for it."""
    code = "import sys, lib_pivotal; print([n for n in sys.modules if n.split('.')[0] in ('torch', 'lib_pivotal')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['lib_pivotal']"


def test_the_version_stands_once():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in text and 'attr = "lib_pivotal.__version__"' in text
    assert lib_pivotal.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_run_as_the_readme_shows(tiny_host, two_embeddings_folder, tmp_path):
    run = run_from_dict(plain_run(two_embeddings_folder, max_steps=1))
    ended = train(run, tiny_host, output_folder=tmp_path / "out", listener=lambda event: None)
    assert isinstance(run, Run) and set(read_bundle(ended.bundle).embeddings) == {"aoi", "hana"}
