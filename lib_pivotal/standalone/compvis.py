"""The compvis layout of a checkpoint and diffusers' names for the same weights.

Nothing is computed here: every weight has the same numbers under both names. Only the autoencoder's attention differs
in shape (1x1 convolutions `(c, c, 1, 1)` there, linear layers `(c, c)` in diffusers). The block counters are those of
`UNetModel.__init__` in CompVis/stable-diffusion, ldm/modules/diffusionmodules/openaimodel.py (commit 21f890f).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def _under(theirs: str, ours: str, inner: Mapping[str, str]) -> dict[str, str]:
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in inner.items()}


def unet_prefixes(attention: Sequence[bool], resnets: int) -> dict[str, str]:
    """Compvis module -> diffusers module, for a U-Net; `attention` of each level, `resnets` residual blocks a level."""
    names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "middle_block.1": "mid_block.attentions.0",
        **_under("middle_block.0", "mid_block.resnets.0", _RESNET),
        **_under("middle_block.2", "mid_block.resnets.1", _RESNET),
    }
    levels = len(attention)
    block = 1
    for level in range(levels):
        for i in range(resnets):
            names |= _under(f"input_blocks.{block}.0", f"down_blocks.{level}.resnets.{i}", _RESNET)
            if attention[level]:
                names[f"input_blocks.{block}.1"] = f"down_blocks.{level}.attentions.{i}"
            block += 1
        if level < levels - 1:
            names[f"input_blocks.{block}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            block += 1
    block = 0
    for up, level in enumerate(reversed(range(levels))):
        for i in range(resnets + 1):
            names |= _under(f"output_blocks.{block}.0", f"up_blocks.{up}.resnets.{i}", _RESNET)
            if attention[level]:
                names[f"output_blocks.{block}.1"] = f"up_blocks.{up}.attentions.{i}"
            if i == resnets and level > 0:
                place = 2 if attention[level] else 1
                names[f"output_blocks.{block}.{place}.conv"] = f"up_blocks.{up}.upsamplers.0.conv"
            block += 1
    return names


def vae_prefixes(levels: int, resnets: int) -> dict[str, str]:
    """Compvis module -> diffusers module, for an autoencoder of `levels` levels with `resnets` residual blocks each."""
    names = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side, count in (("encoder", resnets), ("decoder", resnets + 1)):
        names |= {f"{side}.conv_in": f"{side}.conv_in", f"{side}.conv_out": f"{side}.conv_out"}
        names[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        names |= _under(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0", _VAE_ATTENTION)
        for i in (0, 1):
            names |= _under(f"{side}.mid.block_{i + 1}", f"{side}.mid_block.resnets.{i}", _VAE_RESNET)
        for level in range(levels):
            theirs = f"encoder.down.{level}" if side == "encoder" else f"decoder.up.{levels - 1 - level}"
            ours = f"{side}.{'down' if side == 'encoder' else 'up'}_blocks.{level}"
            for i in range(count):
                names |= _under(f"{theirs}.block.{i}", f"{ours}.resnets.{i}", _VAE_RESNET)
            if level < levels - 1:
                change = ("downsample", "downsamplers") if side == "encoder" else ("upsample", "upsamplers")
                names[f"{theirs}.{change[0]}.conv"] = f"{ours}.{change[1]}.0.conv"
    return names


def to_diffusers(weights: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """(weights under diffusers' names, names for which there is no place), from one part with its prefix taken off."""
    renamed, strange = {}, []
    for name, tensor in weights.items():
        ours = _rename(name, prefixes)
        if ours is None:
            strange.append(name)
            continue
        if ".mid_block.attentions.0.to_" in ours and tensor.ndim == 4 and ours.startswith(("encoder.", "decoder.")):
            tensor = tensor.flatten(1)
        renamed[ours] = tensor
    return renamed, strange


def to_compvis(weights: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """The reverse of `to_diffusers`: one part's weights under compvis' names, without the part's prefix."""
    back = {ours: theirs for theirs, ours in prefixes.items()}
    renamed = {}
    for name, tensor in weights.items():
        theirs = _rename(name, back)
        if theirs is None:
            raise KeyError(name)
        if ".mid.attn_1." in theirs and ".norm" not in theirs and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        renamed[theirs] = tensor
    return renamed


def _rename(name: str, prefixes: Mapping[str, str]) -> str | None:
    """The name with its longest known prefix exchanged."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        known = prefixes.get(".".join(parts[:length]))
        if known is not None:
            return ".".join([known, *parts[length:]])
    return None
