"""Settings from where they stand: files of other trainers, bundles, and a run.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.commands.settings import ImportRequest, import_settings, imported, settings_of
from lib_pivotal.config import EmbeddingConfig, Run, write_run
from lib_pivotal.confinement import Confinement
from lib_pivotal.errors import BundleError, ConfigError, FolderError
from lib_pivotal.ui.page_controller import PageController
from tests.commands.fronts import refusal
from tests.webui.test_api_paths import Site

TOML = 'network_module = "networks.lora"\nnetwork_dim = 16\nunet_lr = 1e-4\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "config.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(TOML, encoding="utf-8")
    return path


def test_a_file_is_imported_alike(site: Site, controller: PageController, line: Any, file: Path) -> None:
    answer = site.post("/import", {"file": str(file)}).json()
    assert answer["run"]["network"]["unet_rank"] == 16
    assert json.loads(line("import", file, "--json"))["run"] == answer["run"]
    found = controller.imported(file)
    assert found is not None and found.to_plain()["run"] == answer["run"]
    assert import_settings(ImportRequest(name="config.toml", text=TOML)).to_plain()["run"] == answer["run"]


def test_a_folder_that_may_not_be_read(file: Path, tmp_path: Path) -> None:
    elsewhere = Confinement.to([tmp_path / "other"], "Ask.")
    with pytest.raises(FolderError, match="Ask"):
        import_settings(ImportRequest(str(file), folders=elsewhere))


def test_what_is_ours_is_not_imported(tmp_path: Path) -> None:
    path = tmp_path / "a.run.json"
    write_run(path, Run(name="a", embeddings=(EmbeddingConfig("aoi"),)))
    assert imported(path) is None and imported(tmp_path / "a.safetensors") is None
    assert settings_of(path).name == "a"
    with pytest.raises(ConfigError, match="Load it as it is"):
        import_settings(ImportRequest(str(path)))


def test_a_file_of_nobody_is_told_alike(site: Site, controller: PageController, line: Any, tmp_path: Path) -> None:
    path = tmp_path / "data" / "x.yaml"
    path.write_text("a: 1\n", encoding="utf-8")
    told = "no trainer that is known"
    assert told in refusal(lambda: controller.imported(path)) and told in line("import", path)
    assert told in site.post("/import", {"file": str(path)}).json()["detail"]["message"]


def test_a_bundle_without_settings(site: Site) -> None:
    with pytest.raises(BundleError, match="carries no settings"):
        settings_of(site.lora("one"))
