"""What the web UI 1.10.1 adds to a layer's weight and bias for the tensors of a file: its formulas, in our words.

`calc_updown`, `finalize_updown`, `calc_scale` and `apply_weight_decompose` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui/tree/82a973c04367123ae98bd9abdf80d9eda9b910e2/extensions-builtin/Lora
(network.py, network_*.py, lyco_helpers.py). `real_delta` asks those files themselves.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Delta = tuple[Tensor, Tensor | None]


def stock_delta(tensors: Mapping[str, Tensor], weight: Tensor) -> Delta:
    """The change of the weight, and of the bias where there is one, at multiplier 1."""
    bias = next((tensors[name] for name in ("diff_b", "b_norm") if name in tensors), None)
    change, rank = _updown(dict(tensors), weight)
    alpha = tensors.get("alpha")
    if rank is not None and alpha is not None:
        change = change * (alpha.item() / rank)
    change = change.reshape(weight.shape) if change.numel() == weight.numel() else change
    if "dora_scale" in tensors:
        whole = weight + change
        axes = [axis for axis in range(weight.dim()) if axis != 1]
        change = whole * (tensors["dora_scale"] / whole.square().sum(dim=axes, keepdim=True).sqrt()) - weight
    return change, bias


def _updown(t: dict[str, Tensor], weight: Tensor) -> tuple[Tensor, int | None]:
    """The unscaled change, and the rank by which alpha is divided; None where the scale is 1."""
    if "lora_mid.weight" in t:
        up, down, mid = (t[f"lora_{name}.weight"] for name in ("up", "down", "mid"))
        return torch.einsum("nmkl,in,mj->ijkl", mid, up.flatten(1), down.flatten(1)), down.shape[0]
    if "lora_up.weight" in t:
        return t["lora_up.weight"].flatten(1) @ t["lora_down.weight"].flatten(1), t["lora_down.weight"].shape[0]
    if "hada_w1_a" in t:
        halves = [
            _tucker(t[f"hada_t{i}"], t[f"hada_w{i}_a"], t[f"hada_w{i}_b"])
            if f"hada_t{i}" in t
            else t[f"hada_w{i}_a"] @ t[f"hada_w{i}_b"].flatten(1)
            for i in (1, 2)
        ]
        return halves[0] * halves[1], t["hada_w1_b"].shape[0]
    if "weight" in t:
        gain = t["weight"] if t["on_input"].item() else t["weight"].reshape(-1, 1)
        return weight * gain, None
    if "lokr_w2" in t or "lokr_w2_a" in t:
        return _lokr(t, weight)
    if "diff" in t:
        return t["diff"], None
    if "a1.weight" in t:  # has alpha, but no rank to divide it by
        return t["b2.weight"] @ t["b1.weight"] + weight @ t["a2.weight"] @ t["a1.weight"], None
    if "oft_blocks" in t:
        return _rotated(t, weight) - weight, None
    return t["w_norm"], None


def _lokr(t: dict[str, Tensor], weight: Tensor) -> tuple[Tensor, int | None]:
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_w2" in t:
        second = t["lokr_w2"]
    elif "lokr_t2" in t:
        second = _tucker(t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"])
    else:
        second = t["lokr_w2_a"] @ t["lokr_w2_b"]
    if second.dim() == 4:
        first = first[:, :, None, None]
    rank = next((t[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in t), None)
    return torch.kron(first, second.contiguous()).reshape(weight.shape), rank


def _rotated(t: dict[str, Tensor], weight: Tensor) -> Tensor:
    """DiagOFT (`oft_blocks` of three axes) or BOFT (of four), with its constraint and rescale."""
    skew = t["oft_blocks"] - t["oft_blocks"].transpose(-1, -2)
    limit = t["alpha"].item() * weight.shape[0]
    if limit != 0:
        skew = skew * ((min(skew.norm().item(), limit) + 1e-8) / (skew.norm() + 1e-8))
    eye = torch.eye(skew.shape[-1])
    rotations = (eye + skew) @ (eye - skew).inverse()
    if rotations.dim() == 3:
        rows = torch.einsum("knm,knx->kmx", rotations, weight.reshape(*rotations.shape[:2], -1)).reshape(weight.shape)
    else:
        rows = weight.flatten(1)
        for stage, blocks in enumerate(rotations):
            apart = 2**stage * (blocks.shape[-1] // 2)
            order = torch.arange(weight.shape[0]).view(-1, 2, apart).transpose(1, 2).flatten()
            turned = torch.einsum("bij,bjx->bix", blocks, rows[order].view(*blocks.shape[:2], -1))
            rows = torch.empty_like(rows).index_copy_(0, order, turned.flatten(0, 1))
        rows = rows.view(weight.shape)
    return rows * t["rescale"] if "rescale" in t else rows


def _tucker(core: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return torch.einsum("ijkl,jr,ip->prkl", core, down, up)


def real_delta(webui: Path, cases: Mapping[str, tuple[Mapping[str, Tensor], Tensor]]) -> dict[str, Delta]:
    """The same by the web UI's own modules, in a process of their own: of tensors and weight by the case's name. One
    that begins with `mha` is of a part of OpenCLIP's attention."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.safetensors"
        flat = {}
        for name, (tensors, weight) in cases.items():
            flat |= {f"{name}|{suffix}": tensor.detach().contiguous().clone() for suffix, tensor in tensors.items()}
            flat[f"{name}|base"] = weight.detach().contiguous().clone()
        save_file(flat, path)
        program = [sys.executable, "-c", _ASK, str(webui / "extensions-builtin" / "Lora"), str(path)]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = load_file(path)
    return {name: (found[f"{name}|delta"], found.get(f"{name}|bias")) for name in cases}


_ASK = """
import sys, types
import torch
from safetensors.torch import load_file, save_file

lora, path = sys.argv[1:]
sys.path.insert(0, lora)
for name in ("modules", "modules.models", "modules.models.sd3", "modules.models.sd3.mmdit", "modules.sd_models",
             "modules.cache", "modules.errors", "modules.hashes", "modules.shared", "modules.devices"):
    sys.modules[name] = types.ModuleType(name)
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, sys.modules[name])
sys.modules["modules.models.sd3.mmdit"].QkvLinear = type("QkvLinear", (), {})
sys.modules["modules.devices"].cpu, sys.modules["modules.devices"].dtype = torch.device("cpu"), torch.float32
import network, network_lora, network_hada, network_ia3, network_lokr, network_full, network_norm, network_glora
import network_oft

KINDS = [m for module in (network_lora, network_hada, network_ia3, network_lokr, network_full, network_norm,
                          network_glora, network_oft)
         for n, m in vars(module).items() if n.startswith("ModuleType")]
cases, found = {}, {}
for key, tensor in load_file(path).items():
    case, _, suffix = key.partition("|")
    cases.setdefault(case, {})[suffix] = tensor
for case, tensors in cases.items():
    base = tensors.pop("base")
    if case.startswith("mha"):
        module = torch.nn.MultiheadAttention(base.shape[1], 1)
    elif base.dim() == 4:
        module = torch.nn.Conv2d(base.shape[1], base.shape[0], tuple(base.shape[2:]))
    elif base.dim() == 2:
        module = torch.nn.Linear(base.shape[1], base.shape[0])
    else:
        module = torch.nn.LayerNorm(base.shape[0])
    net = types.SimpleNamespace(te_multiplier=1.0, unet_multiplier=1.0, dyn_dim=None)
    weights = network.NetworkWeights("key", "diffusion_model_x", dict(tensors), module)
    made = next(filter(None, (kind().create_module(net, weights) for kind in KINDS)))
    with torch.no_grad():
        delta, bias = made.calc_updown(base)
    found[f"{case}|delta"] = delta.contiguous()
    if bias is not None:
        found[f"{case}|bias"] = bias.contiguous()
save_file(found, path)
"""
