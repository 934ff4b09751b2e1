"""Cards on the page, in the API and on the command line: written, exported, and refused in one sentence."""

import pytest

from lib_pivotal.bundle.card import read_card
from lib_pivotal.commands import cards
from lib_pivotal.errors import BundleError, FileNameError
from lib_pivotal.ui.bundle_controller import BundleController
from tests.commands.fronts import detail, refusal
from tests.runs.test_samples import write_run
from tests.webui.test_api_paths import Site


def test_the_same_card_from_every_front(site: Site, page_bundles: BundleController, line) -> None:
    file = site.lora("one")
    page_bundles.describe("one.safetensors", "A character", "CC0-1.0", 0.8, None, 5.0)
    from_page = read_card(file)
    assert (from_page.description, from_page.licence, from_page.weights, from_page.cfg) == (
        "A character", "CC0-1.0", {"unet": 0.8}, 5.0,
    )  # fmt: skip
    file.with_suffix(".json").unlink()  # the list that stands in for the web UI's takes every file for a LoRA
    answer = site.client.post(
        "/pivotal/v1/bundles/describe", json={"name": "one", "licence": "MIT", "te": 0.5, "unet": 1}
    )
    assert answer.status_code == 200, answer.text
    assert read_card(file).weights == {"unet": 1.0, "te": 0.5}
    assert read_card(file).description == "A character", "what is not named stays"
    line("bundle", "describe", file, "--description", "", "--cfg", "7")
    assert (read_card(file).description, read_card(file).cfg, read_card(file).licence) == ("", 7.0, "MIT")


def test_a_number_out_of_its_limits(site: Site, page_bundles: BundleController, line) -> None:
    told = refusal(lambda: page_bundles.describe("one.safetensors", "", "", 9.0, None, None))
    assert "U-Net weight is 9" in told
    assert detail(site, "/bundles/describe", {"name": "one", "unet": 9}) == told
    assert told in line("bundle", "describe", site.lora("one"), "--unet", "9")


def test_an_exported_page_has_its_pictures(site: Site, tmp_path) -> None:
    file, run = site.lora("one"), write_run(tmp_path / "run")
    cards.describe(cards.Describe(file, samples=run, licence="CC0-1.0"))
    done = cards.export(cards.Export(file, tmp_path / "page", samples=run))
    page = (tmp_path / "page" / "one.md").read_text()
    pictures = [path.name for path in done.files[1:]]
    assert pictures == ["one-parts.png", "one-01-aoi.png", "one-02-hana.png"]
    assert all(f"({name})" in page and (tmp_path / "page" / name).is_file() for name in pictures)
    assert "CC0-1.0" in page and "<lora:one:1> aoi" in page
    with pytest.raises(FileNameError, match="already"):
        cards.export(cards.Export(file, tmp_path / "page"))


def test_a_file_that_is_none(tmp_path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"none")
    with pytest.raises(BundleError):
        cards.show(tmp_path / "x.safetensors")
