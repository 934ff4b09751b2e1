"""Which kind of checkpoint is loaded, and whether it can be trained."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from lib_pivotal.errors import HostError
from tests.webui.fake.install import FakeWebUI

KINDS = ["sd1", "sd2", "sd2v", "sdxl", "sdxlv", "sd1inpaint", "sdxlinpaint"]


@pytest.mark.parametrize("fake_webui", KINDS, indirect=True)
def test_what_it_is(fake_webui: FakeWebUI, request: pytest.FixtureRequest) -> None:
    from lib_pivotal.webui import families

    kind = request.node.callspec.params["fake_webui"]
    model = fake_webui.model
    families.check_kind(model)
    info = families.plain_info(model)
    assert info.name == kind
    assert info.family == kind.removesuffix("v").removesuffix("inpaint")
    assert info.v_prediction == kind.endswith("v")
    assert info.inpainting == kind.endswith("inpaint")
    assert len(families.text_towers(model)) == (2 if info.family == "sdxl" else 1)
    assert not families.is_taken_apart(model)


def mark(webui: FakeWebUI, name: str, *markers: str) -> None:
    """Empty tensors of these names in the checkpoint's file."""
    path = webui.data / "models" / "Stable-diffusion" / f"{name}.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    end = len(content) - 8 - length
    header |= {marker: {"dtype": "F32", "shape": [0], "data_offsets": [end, end]} for marker in markers}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize("fake_webui", ["sdxl", "sdxlv"], indirect=True)
def test_a_marker_that_the_web_ui_does_not_know(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import families

    model = fake_webui.model
    name = model.sd_checkpoint_info.name_for_extra
    assert families.markers(model) == frozenset()
    mark(fake_webui, name, "v_pred", "ztsnr", "other")
    assert families.markers(model) == {"v_pred", "ztsnr"}
    if name == "sdxlv":
        families.check_kind(model)
    else:
        with pytest.raises(HostError, match=r"Put a sdxl.yaml with VScaling beside it"):
            families.check_kind(model)


def test_markers_of_files_that_cannot_be_read(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import families

    model = fake_webui.model
    path = model.sd_checkpoint_info.filename
    model.sd_checkpoint_info.filename = path.replace(".safetensors", ".ckpt")
    assert families.markers(model) == frozenset()
    model.sd_checkpoint_info.filename = path.replace("sd1", "gone")
    assert families.markers(model) == frozenset()


def as_sd3(webui: FakeWebUI, model: Any) -> None:
    model.is_sd3 = True


def as_xlmr(webui: FakeWebUI, model: Any) -> None:
    tower = model.cond_stage_model
    model.cond_stage_model = webui.sd_hijack_xlmr.FrozenXLMREmbedderWithCustomWords(tower.wrapped, tower.hijack)


def as_unknown(webui: FakeWebUI, model: Any) -> None:
    base = webui.sd_hijack_clip.FrozenCLIPEmbedderWithCustomWordsBase
    model.cond_stage_model = base(model.cond_stage_model.wrapped, model.cond_stage_model.hijack)


def as_pix2pix(webui: FakeWebUI, model: Any) -> None:
    import torch

    model.model.diffusion_model.input_blocks[0][0] = torch.nn.Conv2d(8, 16, 3)


def as_other_channels(webui: FakeWebUI, model: Any) -> None:
    import torch

    model.model.diffusion_model.input_blocks[0][0] = torch.nn.Conv2d(7, 16, 3)


def as_unclip(webui: FakeWebUI, model: Any) -> None:
    model.model.conditioning_key = "crossattn-adm"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (as_sd3, "is an SD3 checkpoint"),
        (as_xlmr, "AltDiffusion"),
        (as_unknown, "text encoder that this version does not train"),
        (as_pix2pix, "instruct-pix2pix"),
        (as_other_channels, "takes 7 channels"),
        (as_unclip, "unCLIP"),
    ],
)
def test_refused(fake_webui: FakeWebUI, made: Any, reason: str) -> None:
    from lib_pivotal.webui import families, session

    made(fake_webui, fake_webui.model)
    with pytest.raises(HostError, match=reason):
        families.check_kind(fake_webui.model)
    assert session.trainable_info(fake_webui.model) is None


@pytest.mark.parametrize("fake_webui", ["refiner"], indirect=True)
def test_the_refiner_is_refused(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import families

    with pytest.raises(HostError, match="Choose the base checkpoint"):
        families.check_kind(fake_webui.model)


@pytest.mark.parametrize("fake_webui", ["sd1", "sd2", "sdxl"], indirect=True)
def test_a_model_that_a_failed_load_left_taken_apart(fake_webui: FakeWebUI) -> None:
    """The web UI unwraps the text encoder before it reads a file; a file that is no checkpoint leaves it so."""
    from lib_pivotal.webui import families

    model = fake_webui.model
    kind = model.sd_checkpoint_info.name_for_extra
    second = fake_webui.add_checkpoint(f"{kind}-second")
    second.write_bytes(second.read_bytes()[:1000])
    with pytest.raises(Exception, match=""):
        fake_webui.choose(f"{kind}-second")
    assert families.is_taken_apart(model)
    second.unlink()
    fake_webui.sd_models.reload_model_weights(
        info=fake_webui.sd_models.get_closet_checkpoint_match(f"{kind}.safetensors"), forced_reload=False
    )
    assert families.is_taken_apart(model), "it counts as loaded, so that nothing is done"
