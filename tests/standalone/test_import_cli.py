"""The command line's `import`."""

import json

import pytest

from lib_pivotal.config import read_run
from lib_pivotal.standalone.cli import main

TOML = 'network_module = "networks.lora"\nnetwork_dim = 16\nunet_lr = 1e-4\ntext_encoder_lr = 0\nunheard_of = 1\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_the_report_is_a_table_and_run_json_is_written(file, tmp_path, capsys):
    out = tmp_path / "run.json"
    assert main(["import", str(file), "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "TAKEN (" in shown
    assert "network.unet_rank = 16" in shown
    assert "unheard_of" in shown
    assert "not known to the importer" in shown
    assert (read_run(out).network.unet_rank, read_run(out).network.unet_alpha) == (16, 1.0)


def test_json(file, capsys):
    assert main(["import", str(file), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["run"]["network"]["unet_lr"] == 1e-4
    assert {line["key"] for line in plain["report"]["lines"]} >= {"network_dim", "unheard_of"}


def test_a_file_that_is_nobodys(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}', encoding="utf-8")
    assert main(["import", str(path)]) == 2
    assert "no trainer that is known" in capsys.readouterr().err
