"""The host over tiny real models: layers, codec, sampling with words and whatever is attached."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from examples.avatars.base_models import autoencoder, text_model, unet
from examples.avatars.checkpoint_file import save_checkpoint
from lib_pivotal.errors import HostError
from lib_pivotal.ports import Conditioning, SampleRequest, SessionRequest
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.single_file import Checkpoint, scaled_linear_alphas
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from tests.conftest import make_tiny_models
from tests.golden.tiny_text import tiny_text_model


def hashes(host):
    return [
        hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for model in host.models()
        for tensor in [*model.parameters(), *model.buffers()]
    ]


def embeddings(count=3, seed=0):
    return {"aoi": (torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)),)}


def request(prompt="aoi", negative="", seed=0, **options):
    return SampleRequest(prompt, negative, options.pop("width_px", 64), 64, options.pop("steps", 3), 4.0, seed)


def pixels(pictures):
    return [np.asarray(picture).astype(int) for picture in pictures]


def test_layers(tiny_host):
    layers = tiny_host.layers()
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names) and names == [layer.name for layer in tiny_host.layers()]
    for name in (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_out_0",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
        "lora_unet_up_blocks_1_resnets_0_conv_shortcut",
        "lora_unet_mid_block_resnets_0_time_emb_proj",
        "lora_unet_down_blocks_0_downsamplers_0_conv",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te_text_model_encoder_layers_1_mlp_fc2",
    ):
        assert name in names
    assert not any("conv_in" in name or "time_embedding" in name for name in names)
    sorts = {("unet", "linear"), ("unet", "conv"), ("te", "linear"), ("unet", "norm")}
    assert {(layer.part, layer.kind) for layer in layers} == sorts
    kinds = {"linear": nn.Linear, "conv": nn.Conv2d, "norm": nn.LayerNorm | nn.GroupNorm}
    assert all(isinstance(layer.module, kinds[layer.kind]) for layer in layers)


def test_codec(tiny_host):
    picture = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distribution = tiny_host.codec.encode(picture)
    assert distribution.mean.shape == distribution.std.shape == (2, 4, 8, 6)
    doubled = StandaloneHost(**make_tiny_models(), scale_factor=2.0)
    torch.testing.assert_close(doubled.codec.encode(picture).mean, 2 * distribution.mean)
    decoded = tiny_host.codec.decode(distribution.mean)
    assert decoded.shape == picture.shape and decoded.abs().max() <= 1 and not decoded.requires_grad
    torch.testing.assert_close(doubled.codec.decode(2 * distribution.mean), decoded)


@pytest.fixture
def overflowing():
    """Hosts whose autoencoder's first layers give numbers beyond fp16, as SDXL's does: in fp32 and in fp16."""
    hosts = []
    for dtype in (torch.float32, torch.float16):
        models = make_tiny_models()
        with torch.no_grad():
            models["vae"].encoder.conv_in.weight.mul_(2.0**18)
            models["vae"].decoder.conv_in.weight.mul_(2.0**18)
        models["vae"].to(dtype)
        hosts.append(StandaloneHost(**models, scale_factor=1.0))
    return hosts


def test_autoencoder_that_overflows_in_half_precision_is_run_in_fp32(overflowing, caplog):
    whole, half = overflowing
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    narrow = half.codec.vae.encode(picture.half()).latent_dist.mean
    assert not torch.isfinite(narrow).all(), "else nothing is tested"
    before = hashes(half)
    found, wanted = half.codec.encode(picture), whole.codec.encode(picture)
    assert found.widened and not wanted.widened
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0.02, atol=0.02)
    decoded = half.codec.decode(wanted.mean)
    assert torch.isfinite(decoded).all() and "decoded in fp32" in caplog.text
    torch.testing.assert_close(decoded, whole.codec.decode(wanted.mean), rtol=0.05, atol=0.05)
    assert hashes(half) == before and half.codec.vae.dtype is torch.float16


def test_autoencoder_that_fits_half_precision_is_not_widened():
    models = make_tiny_models()
    models["vae"].half()
    host = StandaloneHost(**models, scale_factor=1.0)
    assert not host.codec.encode(torch.zeros(1, 3, 64, 64)).widened


def test_session_sends_the_autoencoder_away_from_a_gpu():
    """torch's meta device stands for the GPU."""
    models = make_tiny_models()
    vae, seen = models["vae"], []
    vae.to = lambda device: vae._apply(lambda tensor: torch.empty_like(tensor, device=device))
    vae.to("meta")
    host = StandaloneHost(**models, scale_factor=1.0)
    vae.encoder.register_forward_hook(lambda *_: seen.append(vae.device.type))
    with host.session(SessionRequest()):
        assert vae.device.type == "cpu"
        host.codec.encode(torch.zeros(1, 3, 64, 64))
        assert seen == ["meta"] and vae.device.type == "cpu"
        with host.codec.placed():
            assert vae.device.type == "meta"
        assert vae.device.type == "cpu"
    assert vae.device.type == "meta"


def test_fingerprint_follows_the_weights():
    one, same = (StandaloneHost(**make_tiny_models(), scale_factor=1.0) for _ in range(2))
    other = StandaloneHost(**make_tiny_models(1), scale_factor=1.0)
    scaled = StandaloneHost(**make_tiny_models(), scale_factor=2.0)
    prints = [host.codec.fingerprint for host in (one, same, other, scaled)]
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_gradients_reach_only_the_embeddings(tiny_host):
    (vectors,) = embeddings()["aoi"]
    vectors.requires_grad_()
    with tiny_host.session(SessionRequest()):
        conditioning = tiny_host.text.encode(["aoi, (x:1.2)"], {"aoi": (vectors,)})
        tiny_host.denoiser(torch.ones(1, 4, 8, 8), torch.tensor([7]), conditioning).square().sum().backward()
        assert all(parameter.grad is None for model in tiny_host.models() for parameter in model.parameters())
    assert vectors.grad.abs().sum() > 0


def test_denoiser_in_half_precision():
    models = make_tiny_models()
    models["unet"].bfloat16()
    host = StandaloneHost(**models, scale_factor=1.0)
    prediction = host.denoiser(torch.ones(1, 4, 8, 8), torch.tensor([7]), Conditioning(torch.ones(1, 77, 16)))
    assert prediction.shape == (1, 4, 8, 8) and torch.isfinite(prediction.float()).all()


def test_pictures_in_order_and_weights_untouched(tiny_host):
    before = hashes(tiny_host)
    requests = [
        request(seed=1),
        request("x, " * 60 + "aoi", seed=2),
        request(seed=1, width_px=32),
        request("cat", negative="aoi", seed=3),
        request(seed=1, steps=2),
    ]
    together = pixels(tiny_host.sample(requests, embeddings()))
    assert [picture.shape for picture in together] == [(64, 64, 3)] * 2 + [(64, 32, 3)] + [(64, 64, 3)] * 2
    for asked, picture in zip(requests, together, strict=True):
        (alone,) = pixels(tiny_host.sample([asked], embeddings()))
        assert np.abs(alone - picture).max() <= 1
    assert hashes(tiny_host) == before
    assert tiny_host.sample([], {}) == []


def test_embeddings_and_attached_layers_change_pictures(tiny_host):
    def make(prompt, negative, vectors):
        return pixels(tiny_host.sample([request(prompt, negative)], vectors))[0]

    plain = make("aoi", "", {})
    assert (make("aoi", "", embeddings()) != plain).any()
    assert (make("aoi", "", embeddings()) == make("AOI", "", embeddings())).all()
    assert (make("cat", "aoi", embeddings()) != make("cat", "aoi", {})).any()
    assert (make("cat", "", embeddings()) == make("cat", "", {})).all()
    layer = next(layer for layer in tiny_host.layers() if layer.part == "unet")
    handle = layer.module.register_forward_hook(lambda module, arguments, output: output + 1)
    try:
        assert (make("aoi", "", {}) != plain).any()
    finally:
        handle.remove()
    assert (make("aoi", "", {}) == plain).all()


def test_renaming_an_embedding_changes_no_pixel(tiny_host):
    one = pixels(tiny_host.sample([request("aoi, hat", "(aoi:0.5)")], embeddings()))[0]
    other = pixels(tiny_host.sample([request("zq-vk, hat", "(zq-vk:0.5)")], {"zq-vk": embeddings()["aoi"]}))[0]
    assert (one == other).all()


def test_sampling_inside_a_training_session_is_the_same(tiny_host):
    outside = pixels(tiny_host.sample([request()], embeddings()))[0]
    with tiny_host.session(SessionRequest(gradient_checkpointing=True)):
        inside = pixels(tiny_host.sample([request()], embeddings()))[0]
        assert tiny_host.denoiser.unet.training
    assert (inside == outside).all()


def test_other_sampler_other_picture():
    host = StandaloneHost(**make_tiny_models(), scale_factor=1.0)
    ancestral = StandaloneHost(**make_tiny_models(), scale_factor=1.0, sampler="euler_a")
    one, other = (pixels(h.sample([request(steps=4)], {}))[0] for h in (host, ancestral))
    assert (one != other).any()


def test_schedule():
    alphas = scaled_linear_alphas()
    assert alphas.shape == (1000,) and alphas.dtype == torch.float32
    assert float(alphas[0]) == pytest.approx(1 - 0.00085) and float(alphas[-1]) == pytest.approx(0.0047, abs=1e-4)


def test_loads_what_was_saved(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {"text_model": text_model(), "unet": unet(), "vae": autoencoder(), "tokenizer": clip_tokenizer()}
    path = tmp_path / "tiny.safetensors"
    facts = {"scale_factor": 0.5, "prediction_type": "v_prediction", "name": "tiny"}
    save_checkpoint(path, Checkpoint(**models, **facts), text_version="text", dtype=torch.float32)
    host = StandaloneHost.load(path, sampler="euler_a", clip_skip=2)
    assert host.info.name == "tiny" and host.info.v_prediction and host.codec.scale_factor == 0.5
    assert host.info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and len(host.info.legacy_hash) == 8
    torch.testing.assert_close(host.alphas_cumprod, scaled_linear_alphas())
    same = StandaloneHost(**models, scale_factor=0.5, v_prediction=True, sampler="euler_a", clip_skip=2)
    one, other = (pixels(h.sample([request("cat", steps=2)], {}))[0] for h in (host, same))
    assert np.abs(one - other).max() <= 1


def test_refusals(tiny_host, tiny_models):
    with pytest.raises(HostError, match="width_px = 60"):
        tiny_host.sample([request(width_px=60)], {})
    with pytest.raises(HostError, match="steps = 0"):
        tiny_host.sample([request(steps=0)], {})
    with pytest.raises(HostError, match="sampler = 'x'"):
        StandaloneHost(**tiny_models, sampler="x")
    with pytest.raises(HostError, match="width 16"):
        StandaloneHost(**{**tiny_models, "text_model": tiny_text_model()})
