"""What the web UI makes of a LoRA file."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import material, write_lora


@pytest.fixture
def checks(fake_webui: FakeWebUI) -> Any:
    from lib_pivotal.webui import cond_cache_patch, file_checks, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    assert fake_webui.model is not None
    return file_checks


def test_the_shape_of_the_loaded_checkpoint(fake_webui: FakeWebUI, checks: Any) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    shape = checks.unet_shape(path)
    assert shape.blocks == 2 if hasattr(shape, "blocks") else shape is not None
    torch.save({}, fake_webui.lora_folder / "old.pt")
    assert checks.unet_shape(fake_webui.lora_folder / "old.pt") is None
    fake_webui.sd_models.model_data.sd_model = None
    assert checks.unet_shape(path) is None


def test_what_the_stock_loader_says(fake_webui: FakeWebUI, checks: Any) -> None:
    write_lora(fake_webui, "sound", {"hana": 1}, parts=("unet", "te"))
    assert checks.stock_loader_says("sound") == []
    write_lora(fake_webui, "dotted", {"ha.na": 1}, parts=("unet",))
    assert "other names" in str(checks.stock_loader_says("dotted")[0]) or "refuses" in str(
        checks.stock_loader_says("dotted")[0]
    )
    layer = next(iter(material("sd1").unet_layers))
    write_lora(fake_webui, "odd", {"hana": 1}, extra={f"{layer}.nonsense": torch.zeros(2)})
    assert "refuses the whole file" in str(checks.stock_loader_says("odd")[0])
    fits = {
        "lora_unet_nowhere.lora_up.weight": torch.zeros(4, 2),
        "lora_unet_nowhere.lora_down.weight": torch.zeros(2, 4),
    }
    write_lora(fake_webui, "foreign", extra=fits)
    assert "no layer of its network fits" in str(checks.stock_loader_says("foreign")[-1])
    assert checks.stock_loader_says("nobody") == []
    from lib_pivotal.webui import bundle_work

    assert bundle_work.verify("sound").sound
