"""The web UI's interrogators as taggers; small real models stand for theirs."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lib_pivotal.errors import HostError
from tests.webui.fake.install import FakeWebUI

PICTURE = Image.new("RGB", (32, 32), (250, 10, 10))


class Colours(nn.Module):
    """Probabilities of three tags: how red, green and blue the picture is; one of a rating."""

    tags = ("red_hair", "green_(sea)", "blue", "rating:safe")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, pixels: Tensor) -> Tensor:
        mean = pixels.mean(dim=(1, 2)) @ self.weight
        return torch.cat([mean, torch.ones(len(mean), 1)], dim=1)


class Brightness(nn.Module):
    """Says how bright a picture is, in the type that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def generate(self, pixels: Tensor) -> list[str]:
        assert pixels.dtype is self.weight.dtype
        return ["a bright picture" if float(pixels.mean()) > 0.5 else "a dark picture"]


def test_deepbooru(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui.tagging import DeepBooru

    tagger = DeepBooru()
    folder = fake_webui.data / "models" / "torch_deepdanbooru"
    assert str(folder) in tagger.missing()
    folder.mkdir(parents=True)
    (folder / "readme.txt").write_text("")
    assert tagger.missing()
    (folder / "model.pt").write_text("")
    assert tagger.missing() == ""
    fake_webui.deepbooru.model.model = Colours()
    fake_webui.opts.data["interrogate_return_ranks"] = True
    assert tagger(PICTURE) == "red hair", "never with numbers"
    fake_webui.opts.data["interrogate_deepbooru_score_threshold"] = 0.01
    assert tagger(PICTURE) == r"blue, green \(sea\), red hair"
    assert not fake_webui.call_queue.queue_lock._lock.locked()


def test_a_deepbooru_file_that_the_web_ui_refuses(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui.tagging import DeepBooru

    with pytest.raises(HostError, match="DeepDanbooru's model cannot be loaded"):
        DeepBooru()(PICTURE)
    assert fake_webui.deepbooru.model.model is None, "an empty one would count as loaded"
    assert not fake_webui.call_queue.queue_lock._lock.locked()


def test_blip(fake_webui: FakeWebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_pivotal.webui.tagging import Blip

    tagger, models = Blip(), fake_webui.shared.interrogator
    assert "code is not there" in tagger.missing()
    fake_webui.paths.paths["BLIP"] = "repositories/BLIP"
    assert "model_base_caption" in tagger.missing()
    folder = fake_webui.data / "models" / "BLIP"
    folder.mkdir(parents=True)
    (folder / "model.pth").write_text("")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "bert-base-uncased" in tagger.missing()
    with pytest.raises(HostError, match="BLIP's model cannot be loaded"):
        tagger(PICTURE)
    monkeypatch.setattr(models, "load_blip_model", Brightness, raising=False)
    assert tagger(PICTURE) == "a dark picture"
    assert tagger.missing() == ""
    assert tagger(Image.new("RGB", (8, 8), "white")) == "a bright picture"
    assert "dtype" not in models.__dict__, "as before"
    models.dtype = torch.float64
    tagger(PICTURE)
    assert models.dtype is torch.float64
    assert not fake_webui.call_queue.queue_lock._lock.locked()


def test_half_precision_where_the_web_ui_has_it(fake_webui: FakeWebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_pivotal.webui.tagging import Blip

    models = fake_webui.shared.interrogator
    fake_webui.shared.cmd_opts.no_half = False
    monkeypatch.setattr(models, "running_on_cpu", False, raising=False)
    monkeypatch.setattr(models, "load_blip_model", Brightness, raising=False)
    assert Blip()(PICTURE) == "a dark picture"
    assert models.blip_model.weight.dtype is torch.float16


def test_both_are_offered(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import tagging

    names: list[Any] = [(tagger.name, bool(tagger.title)) for tagger in tagging.taggers()]
    assert names == [("deepbooru", True), ("blip", True)]
    assert "transformers" in sys.modules
