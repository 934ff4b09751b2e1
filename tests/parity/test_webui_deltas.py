"""`bundle.deltas` against the web UI's own modules (extensions-builtin/Lora, v1.10.1), and LyCORIS' where they differ.

The web UI's files are taken from $PIVOTAL_WEBUI; what they import of it is replaced by the few names that they read.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_pivotal.bundle.deltas import layer_delta

LORA = Path(os.environ.get("PIVOTAL_WEBUI", "")) / "extensions-builtin" / "Lora"
FILES = ("network", "lyco_helpers", *(f"network_{one}" for one in "lora hada ia3 lokr full norm glora oft".split()))
TYPES = "Lora Hada Ia3 Lokr Full Norm GLora OFT".split()
"""In the order in which the web UI asks them."""


@pytest.fixture(scope="module")
def webui() -> Iterator[list[Any]]:
    if not os.environ.get("PIVOTAL_WEBUI") or not LORA.is_dir():
        pytest.skip("set PIVOTAL_WEBUI to the folder of a web UI 1.10.1")
    pytest.importorskip("einops")
    before = dict(sys.modules)
    stubs: dict[str, dict[str, Any]] = {
        name: {} for name in ("modules", "modules.models", "modules.models.sd3", "modules.models.sd3.mmdit")
    }
    stubs["modules.models.sd3.mmdit"] = {"QkvLinear": type("QkvLinear", (), {})}
    for name in ("sd_models", "cache", "errors", "hashes", "shared"):
        stubs[f"modules.{name}"] = {}
    stubs["modules.devices"] = {"cpu": torch.device("cpu"), "dtype": torch.float32}
    for name, content in stubs.items():
        module = ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    sys.path.insert(0, str(LORA))
    try:
        loaded = [importlib.import_module(name) for name in FILES]
        yield [getattr(module, f"ModuleType{one}")() for module, one in zip(loaded[2:], TYPES, strict=True)]
    finally:
        sys.path.remove(str(LORA))
        for name in set(sys.modules) - set(before):
            if name.startswith("modules") or name in FILES:
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in before if name.startswith("modules")})


def theirs(webui: list[Any], layer: dict[str, Tensor], module: nn.Module) -> tuple[Tensor, Tensor | None]:
    weights = SimpleNamespace(network_key="x", sd_key="x", w=dict(layer), sd_module=module)
    net = SimpleNamespace(te_multiplier=1.0, unet_multiplier=1.0, dyn_dim=None)
    made = next(made for one in webui if (made := one.create_module(net, weights)) is not None)
    with torch.no_grad():
        found: tuple[Tensor, Tensor | None] = made.calc_updown(module.weight)
    return found


LINEAR, CONV = "linear", "conv"
OUT, IN = 8, 12


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape)


def lora(*kernel: int) -> dict[str, Tensor]:
    ones = [1] * len(kernel)
    return {"lora_down.weight": rand(3, IN, *kernel), "lora_up.weight": rand(OUT, 3, *ones), "alpha": torch.tensor(2.0)}


def layers(kind: str) -> dict[str, dict[str, Tensor]]:
    kernel, alpha = ((3, 3) if kind == CONV else ()), torch.tensor(2.0)
    area = 9 if kind == CONV else 1
    loha = {"hada_w1_a": rand(OUT, 2), "hada_w1_b": rand(2, IN * area), "alpha": alpha}
    loha |= {"hada_w2_a": rand(OUT, 2), "hada_w2_b": rand(2, IN * area)}
    scale_in = rand(1, IN, *[1] * len(kernel)).abs() + 0.5
    found = {
        "lora": lora(*kernel),
        "lora without alpha": {key: t for key, t in lora(*kernel).items() if key != "alpha"},
        "lora with a scale": {**lora(*kernel), "scale": torch.tensor(0.3)},
        "loha": loha,
        "lokr, full": {"lokr_w1": rand(2, 3), "lokr_w2": rand(4, 4, *kernel), "alpha": alpha},
        "lokr, second factored": {
            "lokr_w1": rand(2, 3), "lokr_w2_a": rand(4, 2), "lokr_w2_b": rand(2, 4 * area), "alpha": alpha,
        },
        "lokr, both factored": {
            "lokr_w1_a": rand(2, 1), "lokr_w1_b": rand(1, 3), "lokr_w2_a": rand(4, 2), "lokr_w2_b": rand(2, 4 * area),
            "alpha": alpha,
        },
        "full": {"diff": rand(OUT, IN, *kernel), "diff_b": rand(OUT)},
        "ia3 on inputs": {"weight": rand(IN).reshape(1, IN, *[1] * len(kernel)), "on_input": torch.tensor(1)},
        "kohya's oft": {"oft_blocks": 0.1 * rand(2, 4, 4), "alpha": torch.tensor(0.01)},
        "oft without a constraint": {"oft_blocks": 0.1 * rand(2, 4, 4), "rescale": rand(OUT, *[1] * (1 + len(kernel)))},
        "old lycoris oft": {"oft_diag": torch.linalg.qr(rand(2, 4, 4))[0]},
        "boft": {"oft_blocks": 0.1 * rand(2, 2, 4, 4)},
        "dora": {**lora(*kernel), "dora_scale": scale_in},
        "loha with dora": {**loha, "dora_scale": scale_in},
    }  # fmt: skip
    if kind == CONV:
        found["lora, tucker"] = {**lora(1, 1), "lora_mid.weight": rand(3, 3, 3, 3)}
        found["loha, tucker"] = {
            **{f"hada_w{half}_a": rand(2, OUT) for half in "12"}, **{f"hada_w{half}_b": rand(2, IN) for half in "12"},
            **{f"hada_t{half}": rand(2, 2, 3, 3) for half in "12"}, "alpha": alpha,
        }  # fmt: skip
        found["lokr, tucker"] = {
            "lokr_w1": rand(2, 3), "lokr_w2_a": rand(2, 4), "lokr_w2_b": rand(2, 4), "lokr_t2": rand(2, 2, 3, 3),
            "alpha": alpha,
        }  # fmt: skip
        found["lora, 1x1 on 3x3's shape"] = lora(3, 3)
    else:
        found["ia3 on outputs"] = {"weight": rand(OUT), "on_input": torch.tensor(0)}
        found["glora"] = {
            "a1.weight": rand(2, IN), "a2.weight": rand(IN, 2), "b1.weight": rand(2, IN), "b2.weight": rand(OUT, 2),
            "alpha": alpha,
        }  # fmt: skip
        found["a linear layer kept as 1x1"] = lora(1, 1)
    return found


CASES = [(kind, name) for kind in (LINEAR, CONV) for name in layers(kind)]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_as_the_web_ui(webui: list[Any], kind: str, name: str) -> None:
    torch.manual_seed(0)
    module = nn.Linear(IN, OUT) if kind == LINEAR else nn.Conv2d(IN, OUT, 3, padding=1)
    layer = layers(kind)[name]
    wanted, bias = theirs(webui, layer, module)
    found = layer_delta(layer, weight=module.weight)
    assert found.weight.shape == module.weight.shape and bool(found.weight.abs().sum() > 0)
    torch.testing.assert_close(found.weight, wanted.reshape(module.weight.shape), rtol=1e-5, atol=1e-6)
    assert (bias is None) == (found.bias is None)
    assert bias is None or found.bias is None or torch.equal(bias, found.bias)


def test_a_norm_as_the_web_ui(webui: list[Any]) -> None:
    layer = {"w_norm": rand(OUT), "b_norm": rand(OUT)}
    weight, bias = theirs(webui, layer, nn.LayerNorm(OUT))
    found = layer_delta(layer, weight=torch.ones(OUT))
    assert torch.equal(found.weight, weight)
    assert bias is not None and found.bias is not None and torch.equal(found.bias, bias)


@pytest.mark.parametrize("kind", [LINEAR, CONV])
@pytest.mark.parametrize(
    ("algo", "dora_on"),
    [(algo, "") for algo in ("locon", "loha", "lokr", "ia3", "glora", "diag-oft", "boft")]
    + [(algo, axis) for algo in ("locon", "loha", "lokr") for axis in ("input", "output")],
)
def test_as_lycoris(kind: str, algo: str, dora_on: str) -> None:
    """What LyCORIS computes with the tensors of its own file in forward (its merging of LoHa scales twice)."""
    wrapper = pytest.importorskip("lycoris.wrapper")
    torch.manual_seed(0)
    module = nn.Linear(16, 32) if kind == LINEAR else nn.Conv2d(16, 32, 3, padding=1)
    x = rand(2, 16) if kind == LINEAR else rand(2, 16, 6, 6)
    options: dict[str, Any] = {"weight_decompose": True, "wd_on_out": dora_on == "output"} if dora_on else {}
    one = wrapper.network_module_dict[algo]("lora_unet_x", module, multiplier=1.0, lora_dim=4, alpha=2.0, **options)
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            if parameter.dim() > 0:
                parameter.mul_(1.1) if name == "dora_scale" else parameter.add_(0.05 * torch.randn_like(parameter))
    tensors = one.custom_state_dict() if algo in ("locon", "loha", "lokr", "glora") else one.state_dict()
    layer = {name: tensors[name].detach().clone() for name in type(one).weight_list if name in tensors}
    if algo in ("diag-oft", "boft"):
        layer["alpha"] = torch.tensor(0.0)  # where LyCORIS keeps its constraint; the web UI: none
    weight = module.weight.detach().clone()
    one.apply_to()
    with torch.no_grad():
        wanted = one.eval()(x)
        merged = weight + layer_delta(layer, weight=weight).weight
        operation: Any = nn.functional.linear if kind == LINEAR else nn.functional.conv2d
        found = operation(x, merged, module.bias, **({} if kind == LINEAR else {"padding": 1}))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(operation(x, weight, module.bias, **({} if kind == LINEAR else {"padding": 1})), wanted)
