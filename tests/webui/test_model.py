"""`shared.sd_model` behind the ports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_pivotal.bundle.layer_names import host_shape
from lib_pivotal.bundle.network_layouts import for_webui, with_whole_attention
from lib_pivotal.errors import HostError
from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import SampleRequest, SessionRequest
from tests.webui.fake.install import FakeWebUI
from tests.webui.files import embedding

FAMILIES = pytest.mark.parametrize("fake_webui", ["sd1", "sd2", "sdxl"], indirect=True)
ALL_KINDS = pytest.mark.parametrize(
    "fake_webui", ["sd1", "sd2", "sd2v", "sdxl", "sdxlv", "sd1inpaint", "sdxlinpaint"], indirect=True
)
SMALL = SampleRequest("a hana face", width_px=32, height_px=16, steps=2, seed=1)


@pytest.fixture
def host(fake_webui: FakeWebUI) -> Any:
    from lib_pivotal.webui.model import WebUIHost

    return WebUIHost()


def kind_of(webui: FakeWebUI) -> str:
    return str(webui.model.sd_checkpoint_info.name_for_extra)


@ALL_KINDS
def test_the_raw_prediction_is_that_of_apply_model(fake_webui: FakeWebUI, host: Any) -> None:
    model = fake_webui.model
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 2, 4, generator=generator)
    concat = torch.randn(1, 5, 2, 4, generator=generator) if host.info.inpainting else None
    times = torch.tensor([500])
    texts = fake_webui.prompt_parser.SdConditioning(["a face"], width=32, height=16)
    with torch.no_grad():
        cond = model.get_learned_conditioning(texts)
        given = dict(cond) if isinstance(cond, dict) else {"c_crossattn": [cond]}
        given |= {"c_concat": [concat]} if concat is not None else {}
        theirs = model.apply_model(latents, times, given)
        with host.session(SessionRequest()):
            sizes = torch.tensor([[16.0, 32.0, 0.0, 0.0, 16.0, 32.0]])
            ours = replace(host.text.encode(["a face"], {}), sizes=sizes, concat=concat)
            torch.testing.assert_close(host.denoiser(latents, times, ours), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fake_webui", ["sdxl"], indirect=True)
def test_sdxl_needs_sizes(host: Any) -> None:
    with host.session(SessionRequest()), pytest.raises(HostError, match="sizes of each picture"):
        host.denoiser(torch.zeros(1, 4, 2, 2), torch.tensor([1]), host.text.encode(["a"], {}))


@FAMILIES
def test_the_autoencoder_is_the_web_uis(fake_webui: FakeWebUI, host: Any) -> None:
    model = fake_webui.model
    pixels = torch.rand(2, 3, 16, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad(), host.session(SessionRequest()):
        found = host.codec.encode(pixels)
        torch.manual_seed(5)
        theirs = model.get_first_stage_encoding(model.encode_first_stage(pixels))
        torch.manual_seed(5)
        ours = found.mean + found.std * torch.randn(found.mean.shape)
        torch.testing.assert_close(ours, theirs)
        decoded = host.codec.decode(theirs)
        torch.testing.assert_close(decoded, model.decode_first_stage(theirs).clamp(-1, 1))
    assert found.mean.shape == (2, 4, 2, 4) and not found.widened
    first = host.codec.fingerprint
    assert len(first) == 64
    with torch.no_grad():
        model.first_stage_model.encoder.conv_in.weight.add_(1)
    from lib_pivotal.webui.model import WebUIHost

    assert WebUIHost().codec.fingerprint != first


@pytest.mark.parametrize("fake_webui", ["sdxl"], indirect=True)
def test_pictures_are_encoded_alike_whatever_attention_the_web_ui_left_there(
    fake_webui: FakeWebUI, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v1.10.1: SD1's after the first checkpoint, SDXL's own after a later one, an optimisation where one is chosen."""
    from modules import sd_hijack, sd_hijack_optimizations
    from sgm.models.autoencoder import AutoencoderKL
    from sgm.modules.diffusionmodules.model import AttnBlock

    original, used = AutoencoderKL.encode, []

    def encode(stage: Any, pixels: torch.Tensor) -> Any:
        used.append(AttnBlock.forward)
        return original(stage, pixels)

    def chosen(block: Any, x: torch.Tensor) -> torch.Tensor:
        return x

    monkeypatch.setattr(AutoencoderKL, "encode", encode)
    own = sd_hijack_optimizations.sgm_diffusionmodules_model_AttnBlock_forward
    for left in (sd_hijack.diffusionmodules_model_AttnBlock_forward, own, chosen):
        monkeypatch.setattr(AttnBlock, "forward", left)
        with host.session(SessionRequest()):
            host.codec.encode(torch.zeros(1, 3, 16, 16))
        assert AttnBlock.forward is left
    assert used == [own, own, chosen]


def test_an_autoencoder_that_overflows_is_asked_again_in_fp32(fake_webui: FakeWebUI, host: Any) -> None:
    stage = fake_webui.model.first_stage_model
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        stage.encoder.conv_in.weight.mul_(2.0**16)
        stage.encoder.conv_out.weight.mul_(2.0**-16)
    stage.half()
    fake_webui.devices.dtype_vae = torch.float16
    with host.session(SessionRequest()):
        found = host.codec.encode(pixels)
    assert found.widened and bool(torch.isfinite(found.mean).all())
    assert next(stage.parameters()).dtype is torch.float16
    assert fake_webui.devices.dtype_vae is torch.float16


@ALL_KINDS
def test_facts(fake_webui: FakeWebUI, host: Any) -> None:
    info = host.info
    checkpoint = fake_webui.model.sd_checkpoint_info
    assert (info.name, info.sha256, info.legacy_hash) == (kind_of(fake_webui), checkpoint.sha256, checkpoint.hash)
    assert len(info.sha256) == 64
    assert host.alphas_cumprod.shape == (1000,) and host.alphas_cumprod.dtype is torch.float32
    assert torch.equal(host.alphas_cumprod, fake_webui.model.alphas_cumprod)
    fake_webui.opts.data["sd_noise_schedule"] = "Zero Terminal SNR"
    assert float(host.alphas_cumprod[-1]) < 1e-6
    assert host.device == torch.device("cpu")
    assert set(host.modules()) == {"unet", "text", "vae"}


@FAMILIES
def test_every_layer_is_found_by_the_web_ui_under_its_name(fake_webui: FakeWebUI, host: Any) -> None:
    """Trained by hooks, written to a file, drawn by the web UI's own merging: the same change of every layer."""
    layers = host.layers()
    names = [layer.name for layer in layers]
    assert len(names) == len(set(names))
    assert {layer.part for layer in layers} == (
        {"unet", "te", "te2"} if kind_of(fake_webui) == "sdxl" else {"unet", "te"}
    )
    network = trained(layers)
    tensors = with_whole_attention(for_webui(network.kohya_tensors(), host_shape(host)), host.info.family)
    save_file(tensors, fake_webui.lora_folder / "one.safetensors")
    with torch.no_grad(), host.session(SessionRequest()):
        with network.merged():
            merged = [layer.module.weight.clone() for layer in layers]
        with network.attach():
            hooked = host.sample([SMALL], {"hana": embedding(kind_of(fake_webui), seed=1)})[0]
        with network.merged():
            written = host.sample([SMALL], {"hana": embedding(kind_of(fake_webui), seed=1)})[0]
    assert difference(hooked, written) <= 1
    fake_webui.networks.load_networks(["one"], [1.0], [1.0], [None])
    assert fake_webui.networks.extra_network_lora.errors == {}
    with torch.no_grad():
        for name, module in fake_webui.model.named_modules():
            if name.endswith(".attn.out_proj"):
                continue  # never called by itself: its attention brings it up to date
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.MultiheadAttention):
                fake_webui.networks.network_apply_weights(module)
    for layer, weight in zip(layers, merged, strict=True):
        torch.testing.assert_close(layer.module.weight.detach(), weight, rtol=1e-4, atol=1e-5, msg=layer.name)


def difference(first: Image.Image, second: Image.Image) -> int:
    """The largest, of 255."""
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


@ALL_KINDS
def test_a_sample_is_txt2imgs_picture(fake_webui: FakeWebUI, host: Any) -> None:
    from lib_pivotal.webui.text import make_embedding, registered

    embeddings = {"hana": embedding(kind_of(fake_webui), seed=1)}
    requests = [SMALL, replace(SMALL, prompt="a cat", seed=7), replace(SMALL, steps=3), replace(SMALL, cfg_scale=2.0)]
    with host.session(SessionRequest()):
        ours = host.sample(requests, embeddings)
    expected = []
    with registered(fake_webui.model, {"hana": make_embedding("hana", embeddings["hana"])}):
        for request in requests:
            settings = {"steps": request.steps, "seed": request.seed, "cfg_scale": request.cfg_scale}
            settings |= {"width": 32, "height": 16, "do_not_reload_embeddings": True}
            expected.append(fake_webui.txt2img(request.prompt, **settings).images[0])
    assert len({image.tobytes() for image in expected}) == 4
    assert max(difference(one, other) for one, other in zip(ours, expected, strict=True)) <= 1


def test_samples_leave_the_next_pictures_cache_alone(fake_webui: FakeWebUI, host: Any) -> None:
    before = fake_webui.pixels("a hana face")
    with host.session(SessionRequest()):
        host.sample([replace(SMALL, width_px=16)], {"hana": embedding("sd1", seed=1)})
    assert fake_webui.pixels("a hana face") == before
    assert fake_webui.comments == []


def test_a_sample_that_is_interrupted_is_no_sample(fake_webui: FakeWebUI, host: Any) -> None:
    """The user presses Interrupt before the first batch."""
    owner = fake_webui.processing.StableDiffusionProcessing
    original = owner.init

    def interrupting(self: Any) -> None:
        original(self)
        fake_webui.shared.state.interrupt()

    owner.init = interrupting
    with host.session(SessionRequest()), pytest.raises(HostError, match="0 of 1 pictures were made"):
        host.sample([SMALL], {})


def test_pictures_need_the_session(host: Any) -> None:
    with pytest.raises(HostError, match="not available now"):
        host.sample([SMALL], {})


def test_clip_skip_is_checked_before(host: Any) -> None:
    with pytest.raises(HostError, match="clip_skip = 9"), host.session(SessionRequest(clip_skip=9)):
        raise AssertionError("not reached")


def trained(layers: Any) -> Network:
    network = build_network(layers, [LayerRule("", 4, 4.0)], algorithm="lora", seed=0, device="cpu")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network
