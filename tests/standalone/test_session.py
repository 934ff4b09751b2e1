"""Borrowed models come back exactly as they were, whatever happened."""

import hashlib

import pytest
import torch
from torch import nn

from lib_pivotal.errors import HostError
from lib_pivotal.ports import SessionRequest
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.session import evaluating
from tests.conftest import make_tiny_models


def state(host):
    """Every fact that a session may change, and a hash of every parameter and buffer."""
    facts = []
    for model in host.models():
        for name, module in model.named_modules():
            facts.append((name, module.training, module.__dict__.get("gradient_checkpointing")))
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            digest = hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            facts.append((name, tensor.dtype, tensor.requires_grad, tensor.grad is None, digest.hexdigest()))
    return facts, host.text.clip_skip, host.text.input_requires_grad


@pytest.fixture
def host():
    models = make_tiny_models()
    models["unet"].half().train()
    models["text_model"].bfloat16()
    models["vae"].eval().requires_grad_(False)
    models["unet"].conv_in.weight.requires_grad_(False)
    models["unet"].conv_out.weight.grad = torch.ones_like(models["unet"].conv_out.weight)
    return StandaloneHost(**models, scale_factor=1.0)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_comes_back(host, checkpointing, fails):
    before = state(host)
    request = SessionRequest(
        gradient_checkpointing=checkpointing, precision="fp32", clip_skip=2, train_text_encoder=True
    )
    try:
        with host.session(request):
            assert host.text.clip_skip == 2
            for model in host.models():
                assert not any(parameter.requires_grad for parameter in model.parameters())
                assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
            assert host.denoiser.unet.training == checkpointing and not host.codec.vae.training
            assert not any(m.training for m in host.denoiser.unet.modules() if isinstance(m, nn.Dropout))
            assert host.denoiser.unet.is_gradient_checkpointing == checkpointing
            vectors = torch.randn(2, 16, requires_grad=True)
            conditioning = host.text.encode(["aoi"], {"aoi": (vectors,)})
            host.denoiser(torch.randn(1, 4, 8, 8), torch.tensor([5]), conditioning).sum().backward()
            assert vectors.grad.abs().sum() > 0
            if fails:
                raise RuntimeError("the run failed")
    except RuntimeError:
        assert fails
    assert state(host) == before


def test_model_precision_is_left_alone(host):
    with host.session(SessionRequest()):
        assert host.denoiser.unet.dtype == torch.float16


def test_one_run_at_a_time(host):
    again = host.session(SessionRequest())
    with host.session(SessionRequest()), pytest.raises(HostError, match="has the model already"):
        again.__enter__()
    with pytest.raises(HostError, match="clip_skip = 9"), host.session(SessionRequest(clip_skip=9)):
        pass
    with host.session(SessionRequest()):
        pass


def test_checkpointing_gives_the_same_gradients():
    host = StandaloneHost(**make_tiny_models(), scale_factor=1.0)
    vectors = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    gradients = []
    for checkpointing in (False, True):
        vectors.grad = None
        with host.session(SessionRequest(gradient_checkpointing=checkpointing)):
            conditioning = host.text.encode(["aoi, (x:1.2)", "y aoi"], {"aoi": (vectors,)})
            host.denoiser(latents, torch.tensor([5, 500]), conditioning).square().sum().backward()
        gradients.append(vectors.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def test_text_network_alone_learns_under_checkpointing():
    """Reentrant checkpointing drops gradients where no input asks for one: there are no words here."""
    host = StandaloneHost(**make_tiny_models(), scale_factor=1.0)
    layer = next(layer.module for layer in host.layers() if layer.part == "te")
    extra = torch.zeros(16, requires_grad=True)
    handle = layer.register_forward_hook(lambda module, arguments, output: output + extra)
    request = SessionRequest(gradient_checkpointing=True, train_text_encoder=True)
    try:
        with host.session(request):
            host.text.encode(["plain"], {}).context.square().sum().backward()
    finally:
        handle.remove()
    assert extra.grad is not None and extra.grad.abs().sum() > 0


def test_evaluating_restores_each_flag():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False, False]
