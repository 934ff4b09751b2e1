"""Which layers HCP's lists of layers mean, as our targets and groups.

HCP names layers as diffusers does (`down_blocks.0.attentions.0.transformer_blocks.0.attn1`), each entry a module or,
after `re:`, a pattern that must match a module's name from its start; every linear layer and convolution inside a
module that matches is meant (hcpdiff/utils/cfg_net_tools.py, `get_match_layers`, and models/plugin.py, `wrap_model`,
404f0e8). So the entries are tried on the names of SD1's layers, and the set that comes out is compared with ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from lib_pivotal.networks.targets import preset_pattern

CHANNELS = (320, 640, 1280, 1280)
"""Of the four levels of SD1's U-Net."""
TEXT_LAYERS = 12
TEXT_WIDTH = 768
LONGEST_PATTERN = 200
MOST_OPEN_REPEATS = 3
"""More of `*` and `+` in one pattern could take for ever on a name that nearly matches."""

UNET_PRESETS = ("attention", "attention+ff", "cross-kv", "all")
TEXT_PRESETS = ("attention", "attention+mlp")

HcpPart = str
"""`unet` or `te`."""


@dataclass(frozen=True)
class Leaf:
    """A linear layer or convolution: its name in diffusers, and how many features come out."""

    path: str
    features: int

    @property
    def kohya(self) -> str:
        """Its name in files."""
        return self.path.replace(".", "_")


@cache
def unet_leaves() -> tuple[Leaf, ...]:
    """SD1's U-Net (diffusers' `UNet2DConditionModel`, version 0.31)."""
    first, last = CHANNELS[0], CHANNELS[-1]
    found = [Leaf("conv_in", first), *(Leaf(f"time_embedding.linear_{i}", 4 * first) for i in (1, 2))]
    for side, widths, count, sampler in (("down", CHANNELS, 2, "down"), ("up", CHANNELS[::-1], 3, "up")):
        for level, width in enumerate(widths):
            block, narrow = f"{side}_blocks.{level}", level > 0 and widths[level - 1] == width
            for i in range(count):
                if level != (3 if side == "down" else 0):
                    found += _transformer(f"{block}.attentions.{i}", width)
                widened = side == "up" or (i == 0 and level > 0 and not narrow)
                found += _resnet(f"{block}.resnets.{i}", width, shortcut=widened)
            if level < 3:
                found.append(Leaf(f"{block}.{sampler}samplers.0.conv", width))
    found += _transformer("mid_block.attentions.0", last)
    for i in range(2):
        found += _resnet(f"mid_block.resnets.{i}", last, shortcut=False)
    return (*found, Leaf("conv_out", 4))


def _transformer(path: str, width: int) -> list[Leaf]:
    attentions = [f"{one}.{name}" for one in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")]
    inner = [Leaf(f"{path}.transformer_blocks.0.{name}", width) for name in (*attentions, "ff.net.2")]
    wide = Leaf(f"{path}.transformer_blocks.0.ff.net.0.proj", 8 * width)
    return [Leaf(f"{path}.proj_in", width), *inner[:-1], wide, inner[-1], Leaf(f"{path}.proj_out", width)]


def _resnet(path: str, width: int, *, shortcut: bool) -> list[Leaf]:
    names = ("conv1", "time_emb_proj", "conv2", *(("conv_shortcut",) if shortcut else ()))
    return [Leaf(f"{path}.{name}", width) for name in names]


@cache
def text_leaves() -> tuple[Leaf, ...]:
    """CLIP-L's layers."""
    widths = {f"self_attn.{name}_proj": TEXT_WIDTH for name in "k v q out".split()}
    widths |= {"mlp.fc1": 4 * TEXT_WIDTH, "mlp.fc2": TEXT_WIDTH}
    return tuple(
        Leaf(f"text_model.encoder.layers.{i}.{name}", width)
        for i in range(TEXT_LAYERS)
        for name, width in widths.items()
    )


def meant(entries: Sequence[str], leaves: Sequence[Leaf]) -> list[Leaf]:
    """The leaves that HCP would give an adapter.

    Raises ValueError for a pattern that is none, or that could take for ever.
    """
    tests = [_test(str(entry)) for entry in entries]
    return [leaf for leaf in leaves if any(test(module) for test in tests for module in _modules(leaf.path))]


def _modules(path: str) -> list[str]:
    """The leaf and every module around it, the whole model (``) included."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) + 1)]


def _test(entry: str) -> Callable[[str], bool]:
    *marks, name = entry.split(":")
    if any(mark.startswith("cls(") for mark in marks):
        raise ValueError(f"{entry!r}: layers by class are not read")
    if "re" not in marks:
        return lambda module: module == name
    pattern = _compiled(name)
    return lambda module: pattern.match(module) is not None


def _compiled(pattern: str) -> re.Pattern[str]:
    open_repeats = len(re.findall(r"[*+]|\{\d*,\d*\}", pattern))
    if len(pattern) > LONGEST_PATTERN or open_repeats > MOST_OPEN_REPEATS or re.search(r"[*+}]\)+[*+{]", pattern):
        raise ValueError(f"{pattern[:60]!r} is too tangled a pattern")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error


def preset_of(part: HcpPart, found: Sequence[Leaf]) -> str:
    """The name of our target that means exactly these layers; "" if none does."""
    leaves = unet_leaves() if part == "unet" else text_leaves()
    wanted = {leaf.kohya for leaf in found}
    for preset in UNET_PRESETS if part == "unet" else TEXT_PRESETS:
        pattern = re.compile(preset_pattern(part, preset))  # type: ignore[arg-type]
        if {leaf.kohya for leaf in leaves if pattern.search(f"_{leaf.kohya}")} == wanted:
            return preset
    return ""


def group_pattern(part: HcpPart, entries: Sequence[str], found: Sequence[Leaf]) -> str:
    """A pattern on names in files that means the same layers; "" if none was found.

    The entries are rewritten, which also fits other families with such names, and the result is checked on SD1's.
    """
    leaves = unet_leaves() if part == "unet" else text_leaves()
    pattern = rf"^lora_{part}\d?_(?:{'|'.join(_rewritten(str(entry)) for entry in entries)})"
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return ""
    reached = {leaf.path for leaf in leaves if compiled.search(f"lora_{part}_{leaf.kohya}")}
    return pattern if reached == {leaf.path for leaf in found} else ""


def _rewritten(entry: str) -> str:
    *marks, name = entry.split(":")
    if "re" not in marks:
        return re.escape(name.replace(".", "_")) + r"(?:_|$)" if name else ""
    text = name.replace(r"\.", "_")
    ends = text.endswith("$")
    return (text[:-1] if ends else text) + (r"(?:_|$)" if ends else "")


def by_rank(part: HcpPart, found: Sequence[Leaf], share: float) -> list[tuple[int, str]]:
    """(rank, pattern) for a rank that is a share of each layer's features out: `max(round(features · share), 1)`.

    hcpdiff/models/lora_base.py, 404f0e8. Patterns name SD1's levels and layers, so they hold for SD1 and SD2.
    """
    groups: dict[tuple[int, tuple[str, ...]], set[str]] = {}
    for leaf in found:
        level, layer = _level_and_layer(part, leaf)
        same_width = tuple(
            sorted({_level_and_layer(part, other)[0] for other in found if _width(other) == _width(leaf)})
        )
        groups.setdefault((max(round(leaf.features * share), 1), same_width or (level,)), set()).add(layer)
    return [
        (rank, rf"^lora_{part}_(?:{'|'.join(levels)})_.*?(?:{'|'.join(sorted(layers))})$")
        for (rank, levels), layers in sorted(groups.items())
    ]


def _width(leaf: Leaf) -> int:
    """The width of the level that a leaf is in."""
    level = re.match(r"(down|up)_blocks\.(\d)", leaf.path)
    if level:
        return (CHANNELS if level.group(1) == "down" else CHANNELS[::-1])[int(level.group(2))]
    return CHANNELS[-1] if leaf.path.startswith("mid") else 0


def _level_and_layer(part: HcpPart, leaf: Leaf) -> tuple[str, str]:
    """(`down_blocks_0`, `attn1_to_k`); text encoders have one level."""
    if part != "unet":
        return "text_model_encoder_layers", leaf.kohya.rpartition("layers_")[2].partition("_")[2]
    match = re.match(r"((?:down|up)_blocks_\d|mid_block)_", leaf.kohya)
    level = match.group(1) if match else leaf.kohya
    inner = leaf.kohya.partition("transformer_blocks_0_")[2]
    return level, inner or re.sub(r"^.*?_(attentions|resnets|downsamplers|upsamplers)_\d_", "", leaf.kohya)
