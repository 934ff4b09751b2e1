"""The model is lent for a run and comes back exactly as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lib_pivotal.errors import HostError
from lib_pivotal.ports import SampleRequest, SessionRequest
from tests.webui.fake.install import FakeWebUI, installed
from tests.webui.files import write_lora

FAMILIES = pytest.mark.parametrize("fake_webui", ["sd1", "sd2", "sdxl"], indirect=True)


def state_of(webui: FakeWebUI) -> dict[str, Any]:
    """All that a run must put back."""
    import ldm.modules.attention
    import sgm.modules.attention

    model = webui.model
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tensor.device} {tensor.requires_grad} {tensor.grad is None}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    modules = list(model.named_modules())
    return {
        "weights": digest.hexdigest(),
        "training": [name for name, module in modules if module.training],
        "hooks": [(name, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in modules],
        "forward": [name for name, module in modules if "forward" in module.__dict__],
        "checkpointing": [
            (name, module.__dict__.get("checkpoint"), module.__dict__.get("use_checkpoint")) for name, module in modules
        ],
        "padding": [(name, module.padding_mode) for name, module in modules if isinstance(module, torch.nn.Conv2d)],
        "attention": [cls.CrossAttention.forward for cls in (ldm.modules.attention, sgm.modules.attention)],
        "options": dict(webui.opts.data),
        "embeddings": sorted(webui.hijack.embedding_db.word_embeddings),
        "hypernetworks": list(webui.shared.loaded_hypernetworks),
        "tiling": webui.hijack.circular_enabled,
        "merging": getattr(model, "applied_token_merged_ratio", 0),
        "job": webui.shared.state.job,
        "loaded": [(n.name, n.te_multiplier, n.unet_multiplier, n.dyn_dim) for n in webui.networks.loaded_networks],
        "types": [getattr(webui.devices, name) for name in ("dtype", "dtype_vae", "dtype_unet")],
        "unet": model.model.diffusion_model.dtype,
        "grad": torch.is_grad_enabled(),
    }


def borrowing(webui: FakeWebUI) -> Any:
    from lib_pivotal.webui.session import ModelSession

    return ModelSession(webui.model)


REQUESTS = [
    SessionRequest(),
    SessionRequest(gradient_checkpointing=True, clip_skip=2),
    SessionRequest(precision="fp32", gradient_checkpointing=True),
]


@FAMILIES
@pytest.mark.parametrize("request_", REQUESTS, ids=["plain", "checkpointing", "fp32"])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_comes_back(fake_webui: FakeWebUI, request_: SessionRequest, fails: bool) -> None:
    """LoRAs merged, tiling, hypernetworks, token merging, training mode: all that a user may have switched on."""
    kind = fake_webui.model.sd_checkpoint_info.name_for_extra
    write_lora(fake_webui, "one", {"hana": 1} if kind == "sd1" else {}, parts=("unet", "te"), kind=kind)
    if kind != "sd1":
        fake_webui.networks.list_available_networks()
    fake_webui.pixels("<lora:one:0.8:0.6>hana")
    fake_webui.hijack.apply_circular(True)
    fake_webui.shared.loaded_hypernetworks.append("hypernetwork")
    fake_webui.sd_models.apply_token_merging(fake_webui.model, 0.5)
    fake_webui.model.first_stage_model.train()
    if request_.precision == "fp32":
        fake_webui.model.model.half()
        fake_webui.model.model.diffusion_model.dtype = fake_webui.devices.dtype_unet = torch.float16
        for module in fake_webui.model.modules():  # the backups are of the types that the weights had
            backup = getattr(module, "network_weights_backup", None)
            if isinstance(backup, torch.Tensor):
                module.network_weights_backup = backup.to(module.weight.dtype)
            if getattr(module, "network_bias_backup", None) is not None:
                module.network_bias_backup = module.network_bias_backup.to(
                    module.bias.dtype if hasattr(module, "bias") else torch.float32
                )
    before = state_of(fake_webui)
    lent = borrowing(fake_webui)
    try:
        with lent.session(request_):
            inside = state_of(fake_webui)
            assert inside["weights"] != before["weights"], "LoRAs are out of the weights"
            assert inside["loaded"] == inside["hypernetworks"] == inside["training"] == []
            assert not inside["tiling"] and inside["merging"] == 0
            assert inside["job"] == "pivotal tuning"
            assert inside["options"]["CLIP_stop_at_last_layers"] == request_.clip_skip
            assert all(first is not True and second is not True for _, first, second in inside["checkpointing"])
            assert not any(parameter.requires_grad for parameter in fake_webui.model.parameters())
            if request_.precision == "fp32":
                assert inside["unet"] is torch.float32
                assert next(fake_webui.model.model.parameters()).dtype is torch.float32
            blocks = [name for name in inside["forward"] if name.endswith(("_blocks.0", "in_layers", ".0.0"))]
            assert bool(blocks) is request_.gradient_checkpointing
            if fails:
                raise RuntimeError("the run failed")
    except RuntimeError:
        assert fails
    after = state_of(fake_webui)
    if request_.precision == "fp32":  # merged anew from the backup: half precision rounds once, as the web UI does
        before.pop("weights"), after.pop("weights")
    assert after == before


@FAMILIES
def test_blocks_compute_again_in_the_backward_pass(fake_webui: FakeWebUI) -> None:
    """The same numbers and gradients with gradient checkpointing."""
    from lib_pivotal.webui.model import WebUIHost

    found = []
    for checkpointing in (False, True):
        host = WebUIHost()
        embeddings = {"hana": tuple(torch.ones(1, width, requires_grad=True) for width in host.text.widths)}
        with host.session(SessionRequest(gradient_checkpointing=checkpointing)):
            from dataclasses import replace

            given = replace(host.text.encode(["a hana"], embeddings), sizes=torch.full((1, 6), 16.0))
            output = host.denoiser(torch.ones(1, 4, 2, 2), torch.tensor([500]), given)
            output.square().sum().backward()
        found.append((output.detach(), embeddings["hana"][0].grad))
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)
    assert found[0][1] is not None and bool(found[0][1].abs().sum() > 0)


def test_pictures_in_the_middle_have_the_users_attention(fake_webui: FakeWebUI) -> None:
    import ldm.modules.attention

    from lib_pivotal.webui.model import WebUIHost

    host = WebUIHost()
    theirs = ldm.modules.attention.CrossAttention.forward
    with host.session(SessionRequest()):
        ours = ldm.modules.attention.CrossAttention.forward
        assert ours is fake_webui.sd_hijack_optimizations.scaled_dot_product_attention_forward is not theirs
        fake_webui.shared.state.interrupted = True
        with host.borrowing.generating():
            assert ldm.modules.attention.CrossAttention.forward is theirs
            assert not fake_webui.shared.state.interrupted
        assert fake_webui.shared.state.interrupted
        assert ldm.modules.attention.CrossAttention.forward is ours
    with pytest.raises(HostError, match="not available now"), host.borrowing.generating():
        raise AssertionError("not reached")


def test_given_back_for_a_while(fake_webui: FakeWebUI) -> None:
    before = fake_webui.pixels("a face")
    state = state_of(fake_webui)
    lent = borrowing(fake_webui)
    with lent.session(SessionRequest(clip_skip=2)):
        inside = state_of(fake_webui)
        with lent.suspended():
            assert state_of(fake_webui) == state
            assert fake_webui.pixels("a face") == before
        assert state_of(fake_webui) == inside
    assert state_of(fake_webui) == state


def test_another_checkpoint_meanwhile(fake_webui: FakeWebUI) -> None:
    fake_webui.add_checkpoint("sd1-second")
    fake_webui.add_checkpoint("sd2")
    lent = borrowing(fake_webui)
    assert lent.checkpoint_title.startswith("sd1.safetensors")
    with lent.session(SessionRequest()):
        with lent.suspended():
            for other in ("sd1-second", "sd2"):
                fake_webui.choose(other)
                assert not lent.is_loaded()
        with pytest.raises(HostError, match="not available now"), lent.generating():
            raise AssertionError("not reached")
        with lent.suspended():
            fake_webui.choose("sd1.safetensors")
            assert lent.is_loaded()
        assert lent.model is fake_webui.model, "in another object"
        with lent.generating():
            pass


def test_merged_networks_come_back_after_the_run(fake_webui: FakeWebUI) -> None:
    write_lora(fake_webui, "one", parts=("unet", "te"))
    fake_webui.pixels("<lora:one:0.8>x")
    before = state_of(fake_webui)
    with borrowing(fake_webui).session(SessionRequest()):
        clean = state_of(fake_webui)["weights"]
    assert state_of(fake_webui) == before
    fake_webui.pixels("x")
    assert state_of(fake_webui)["weights"] == clean


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_medvram(tmp_path: Any, kind: str) -> None:
    """The hooks that move one part at a time come off for the run, and are back after it."""
    with installed(tmp_path, kinds=(kind,), medvram=True) as webui:
        from lib_pivotal.webui.model import WebUIHost

        before = webui.pixels("a face")
        state = state_of(webui)
        host = WebUIHost()
        with host.session(SessionRequest()):
            for part in (webui.model.model, webui.model.cond_stage_model):
                for module in part.modules():
                    for hook in module._forward_pre_hooks.values():
                        assert not hook.__qualname__.startswith("setup_for_low_vram."), type(module)
            assert webui.model.first_stage_model._forward_pre_hooks, "the autoencoder keeps its own"
            host.codec.encode(torch.zeros(1, 3, 16, 16))
            with host.codec.placed(), host.codec.placed():
                host.codec.decode(torch.zeros(1, 4, 2, 2))
            host.sample([SampleRequest("a", width_px=16, height_px=16, steps=1)], {})
        assert state_of(webui) == state
        assert webui.pixels("a face") == before


def no_model(webui: FakeWebUI) -> None:
    webui.sd_models.model_data.sd_model = None
    webui.sd_models.model_data.was_loaded_at_least_once = True


def taken_apart(webui: FakeWebUI) -> None:
    webui.hijack.undo_hijack(webui.model)


def lowvram(webui: FakeWebUI) -> None:
    webui.shared.cmd_opts.lowvram = True


def fp8(webui: FakeWebUI) -> None:
    webui.devices.fp8 = True


def tensorrt(webui: FakeWebUI) -> None:
    webui.sd_unet.current_unet = object()


def old_emphasis(webui: FakeWebUI) -> None:
    webui.opts.data["use_old_emphasis_implementation"] = True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_model, "no checkpoint is loaded"),
        (taken_apart, "is loading a checkpoint, or has failed to"),
        (lowvram, "--medvram instead"),
        (fp8, "FP8 weight to Disable"),
        (tensorrt, "SD Unet to None"),
        (old_emphasis, "old emphasis implementation is on"),
    ],
)
def test_what_cannot_be_trained_is_refused_before(
    fake_webui: FakeWebUI, change: Callable[[FakeWebUI], None], reason: str
) -> None:
    from lib_pivotal.webui import session

    session.check_trainable(fake_webui.model)
    assert session.trainable_info(fake_webui.model) is not None
    change(fake_webui)
    with pytest.raises(HostError, match=reason):
        session.check_trainable(fake_webui.model)
    assert session.trainable_info(fake_webui.model) is None


def test_memory_is_told_where_there_is_a_gpu(fake_webui: FakeWebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    lent = borrowing(fake_webui)
    with lent.session(SessionRequest()):
        pass
    assert lent.memory_line == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("empty_cache", "ipc_collect"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 5 * 2**20)
    with lent.session(SessionRequest()):
        pass
    assert lent.memory_line == "GPU memory back to 5 MiB (before the run: 5 MiB)"
