"""Which layers get an adapter: rules by regular expression on the kohya name, made from presets, groups and blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lib_pivotal.errors import NetworkError
from lib_pivotal.ports import Part


@dataclass(frozen=True)
class LayerRule:
    """`pattern` is searched in the kohya layer name; the first rule that matches decides. Rank 0 leaves it bare.

    The change is scaled by `alpha / rank`; `lr_factor` multiplies the part's learning rate; `group` names the layers
    in logs and parameter groups; `algorithm` is another kind than the network's.
    """

    pattern: str
    rank: int
    alpha: float
    lr_factor: float = 1.0
    dropout: float = 0.0
    rank_dropout: float = 0.0
    group: str = ""
    algorithm: str = ""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise NetworkError(f"pattern {self.pattern!r} is not a regular expression: {error}. Correct it.") from error
        if self.rank < 0:
            raise NetworkError(f"rank = {self.rank} for pattern {self.pattern!r}: must be 0 (leave out) or more.")
        for name in ("dropout", "rank_dropout"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise NetworkError(f"{name} = {value} for pattern {self.pattern!r}: must be at least 0 and below 1.")

    def matches(self, layer_name: str) -> bool:
        """Whether this rule's pattern is found in `layer_name`."""
        return re.search(self.pattern, layer_name) is not None


PREFIXES: dict[Part, str] = {"unet": "^lora_unet_", "te": "^lora_te1?_", "te2": "^lora_te2_"}
"""How a part's kohya names begin (SD1: `lora_te_`; SDXL: `lora_te1_`, `lora_te2_`)."""

_ATTENTION = r"_attn[12]_to_(q|k|v|out_0)$"
_FEED_FORWARD = r"_ff_net_(0_proj|2)$"
_TRANSFORMER = r"_proj_(in|out)$"
_CONVOLUTION = r"_(attentions|resnets|downsamplers|upsamplers)_|_(input_blocks_[1-9]\d*|middle_block|output_blocks)_"
_TE_ATTENTION = r"_self_attn_(q|k|v|out)_proj$"

LAYER_SETS: dict[Part, dict[str, str]] = {
    "unet": {
        "cross-kv": r"_attn2_to_[kv]$",
        "attention": _ATTENTION,
        "diffusers": _ATTENTION,
        "attention+ff": f"{_ATTENTION}|{_FEED_FORWARD}",
        "kohya": f"{_ATTENTION}|{_FEED_FORWARD}|{_TRANSFORMER}",
        "all": _CONVOLUTION,
        "norms": r"_norm\d?$",
    },
    "te": {"attention": _TE_ATTENTION, "attention+mlp": rf"{_TE_ATTENTION}|_mlp_fc[12]$"},
    "te2": {"attention": _TE_ATTENTION, "attention+mlp": rf"{_TE_ATTENTION}|_mlp_fc[12]$"},
}
"""Layer sets by name. In SD1's U-Net: cross-kv 32 layers; attention = diffusers (q, k, v, out) 128; attention+ff 160;
kohya (its default LoRA, with the transformers' proj_in and proj_out) 192; all: also every resnet and re-sampler,
linear and convolution (kohya's and LyCORIS's LoCon), without the model's first and last layers and time embedding;
norms: for the kind of that name."""

SPATIAL_CONVOLUTION = r"(_conv1|_conv2|samplers_\d+_conv|_in_layers_2|_out_layers_3|_\d+_0_op|_\d+_[12]_conv)$"
"""The 3×3 convolutions, which kohya gives a rank of their own (`conv_dim`)."""

SD1_BLOCKS: tuple[str, ...] = (
    r"_(conv_in|time_embedding)",
    *(
        rf"_down_blocks_{level}_(resnets|attentions)_{i}_" if i < 2 else rf"_down_blocks_{level}_downsamplers_"
        for level in range(4)
        for i in range(3)
    ),
)[:12] + (
    r"_mid_block_",
    *(
        rf"_up_blocks_{level}_((resnets|attentions)_{i}_{'|upsamplers_' if i == 2 else ''})"
        for level in range(4)
        for i in range(3)
    ),
)
"""SD1 and SD2: kohya's 25 blocks IN00-IN11, MID, OUT00-OUT11.
https://github.com/kohya-ss/sd-scripts/blob/48d368fa557731ad0488c07304dfeba8c07910eb/networks/lora.py#L719-L739"""

SDXL_BLOCKS: tuple[str, ...] = (
    r"_(time_embed|label_emb)_",
    *(rf"_input_blocks_{i}_" for i in range(9)),
    *(rf"_middle_block_{i}_" for i in range(3)),
    *(rf"_output_blocks_{i}_" for i in range(9)),
    r"_out_\d",
)
"""SDXL: kohya's 23 blocks (time and label embedding, 9 in, 3 middle, 9 out, last layer)."""


def block_patterns(part: Part, count: int) -> tuple[str, ...]:
    """The pattern of each of `count` blocks: 25 (SD1, SD2) or 23 (SDXL) in the U-Net, layers in a text encoder."""
    if part != "unet":
        return tuple(rf"_encoder_layers_{i}_" for i in range(count))
    for patterns in (SD1_BLOCKS, SDXL_BLOCKS):
        if len(patterns) == count:
            return patterns
    raise NetworkError(
        f"a list of {count} values for the U-Net's blocks: SD1 and SD2 have {len(SD1_BLOCKS)} "
        f"(IN00-IN11, MID, OUT00-OUT11), SDXL has {len(SDXL_BLOCKS)}. Give one value a block."
    )


def unet_target_names() -> tuple[str, ...]:
    """Choices of `network.unet_targets`."""
    return ("none", *LAYER_SETS["unet"])


def te_target_names() -> tuple[str, ...]:
    """Choices of `network.te_targets`."""
    return ("none", *LAYER_SETS["te"])


def te2_target_names() -> tuple[str, ...]:
    """Choices of `network.te2_targets`; same is as `network.te_targets`."""
    return ("same", "none", *LAYER_SETS["te2"])


def part_rules(
    part: Part,
    preset: str,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    rank_dropout: float = 0.0,
    groups: Sequence[LayerRule] = (),
) -> list[LayerRule]:
    """Rules of one part, most particular first: `groups`, then the preset.

    A group's pattern is searched within the part and may name layers outside the preset; its rank 0 leaves layers
    out. `preset` "none" gives only the groups' layers.
    """
    whole = LayerRule(
        pattern=_within(part, preset_pattern(part, preset)),
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        rank_dropout=rank_dropout,
    )
    named = [
        replace(group, pattern=_within(part, group.pattern), group=group.group or group.pattern) for group in groups
    ]
    return [*named, whole]


def preset_pattern(part: Part, preset: str) -> str:
    """The regular expression of a preset, without the part's prefix; "none" matches nothing."""
    if preset == "none":
        return r"(?!)"
    if preset not in LAYER_SETS[part]:
        raise NetworkError(f"targets = {preset!r} for {part}: choose one of none, {', '.join(LAYER_SETS[part])}.")
    return LAYER_SETS[part][preset]


def _within(part: Part, pattern: str) -> str:
    """`pattern`, searched only in names of `part`."""
    return f"^(?=.*?(?:{PREFIXES[part]}))(?=.*?(?:{pattern}))"
