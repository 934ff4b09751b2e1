"""Names of adaptable layers: kohya <-> diffusers <-> compvis, for any block configuration of the U-Net.

kohya's rule is simple: the module's path in diffusers with `_` for `.`, behind `lora_unet_`, `lora_te_` (SD1, SD2) or
`lora_te1_`, `lora_te2_` (SDXL). Going back needs to know which underscores were there before: `_COMPOUNDS`. Between
diffusers and compvis only the U-Net's block numbers differ, and those follow from `UnetShape`.

Inner names of a block, diffusers = compvis:
    resnets:    norm1 = in_layers.0, conv1 = in_layers.2, time_emb_proj = emb_layers.1, norm2 = out_layers.0,
                conv2 = out_layers.3, conv_shortcut = skip_connection
    attentions: the same in both

Text encoder layers are also named as in OpenCLIP (SD2, and SDXL's second encoder in the web UI). It keeps q, k and v of
self-attention in one matrix `attn.in_proj_weight`, rows in this order; LoRA files name them as three layers, as
transformers does:
    text_model.encoder.layers.3.self_attn.k_proj  ->  transformer.resblocks.3.attn, rows 1/3 to 2/3 of in_proj_weight
    text_model.encoder.layers.3.mlp.fc1           ->  transformer.resblocks.3.mlp.c_fc
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.errors import BundleError, NetworkError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ports import Host, Part

BARE_BEGINNINGS: dict[str, Part] = {
    **dict.fromkeys(
        (
            "down_blocks.", "mid_block.", "up_blocks.", "conv_in.", "conv_norm_out.", "conv_out.", "time_embedding.",
            "add_embedding.", "input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.",
        ),
        "unet",
    ),
    "text_model.": "te",
}  # fmt: skip
"""How a path begins where the key names no model -> its part. Either text encoder of SDXL has `text_model.`."""

PART_PREFIXES: dict[str, Part] = {
    "lora_unet_": "unet",
    "lora_te_": "te",
    "lora_te1_": "te",
    "lora_te2_": "te2",
    "oft_unet_": "unet",
    "oft_te_": "te",
    "oft_te1_": "te",
    "oft_te2_": "te2",
    "unet.": "unet",
    "text_encoder.": "te",
    "text_encoder_2.": "te2",
    "unet:": "unet",
    "text_encoder:": "te",
    "diffusion_model.": "unet",
    "text_encoders.clip_l.": "te",
    "text_encoders.clip_h.": "te",
    "text_encoders.clip_g.": "te2",
    **BARE_BEGINNINGS,
}
"""How a network key begins -> its part: kohya, LyCORIS, diffusers, cloneofsimo, ComfyUI, bare paths."""

_COMPOUNDS = frozenset(
    """
    add_embedding add_k_proj add_v_proj conv_in conv_norm_out conv_out conv_shortcut down_blocks emb_layers
    final_layer_norm in_layers input_blocks label_emb layer_norm1 layer_norm2 linear_1 linear_2 mid_block middle_block
    norm_out out_layers out_proj output_blocks position_embedding proj_in proj_out q_proj k_proj v_proj self_attn
    skip_connection text_model text_projection time_emb_proj time_embed time_embedding to_k to_out to_q to_v
    token_embedding transformer_blocks up_blocks c_fc c_proj in_proj ln_1 ln_2 ln_final
    """.split()
)
_LONGEST = max(compound.count("_") for compound in _COMPOUNDS) + 1

_RESNET_TO_COMPVIS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_RESNET_TO_DIFFUSERS = {compvis: diffusers for diffusers, compvis in _RESNET_TO_COMPVIS.items()}

_TOP_TO_COMPVIS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_TOP_TO_DIFFUSERS = {compvis: diffusers for diffusers, compvis in _TOP_TO_COMPVIS.items()}


@dataclass(frozen=True)
class UnetShape:
    """What decides the compvis block numbers: residual blocks a level, and which levels have attention.

    `attention[i]` is level i from full resolution down. SD1: 2 blocks, (True, True, True, False).
    """

    blocks_per_level: int
    attention: tuple[bool, ...]

    @property
    def levels(self) -> int:
        return len(self.attention)

    @classmethod
    def from_diffusers_config(cls, config: Mapping[str, Any]) -> UnetShape:
        """From the config of a `UNet2DConditionModel`."""
        blocks = config["layers_per_block"]
        if not isinstance(blocks, int):
            raise NetworkError(f"layers_per_block = {blocks!r}: only one number for all levels has compvis names")
        return cls(blocks, tuple("CrossAttn" in kind for kind in config["down_block_types"]))

    @classmethod
    def from_diffusers_paths(cls, paths: Iterable[str]) -> UnetShape:
        """From the names of a diffusers U-Net's modules or parameters (all of them)."""
        found = [
            match for path in paths if (match := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", path))
        ]
        if not found:
            raise NetworkError("no down_blocks among the names: this is no diffusers U-Net")
        levels = 1 + max(int(match[1]) for match in found)
        blocks = 1 + max(int(match[3]) for match in found)
        attentive = {int(match[1]) for match in found if match[2] == "attentions"}
        return cls(blocks, tuple(level in attentive for level in range(levels)))

    @classmethod
    def from_kohya_names(cls, names: Iterable[str]) -> UnetShape:
        """From the kohya names of a U-Net's layers, as a host lists them (all of them; other parts are passed over)."""
        return cls.from_diffusers_paths(split_kohya_name(name)[1] for name in names if name.startswith("lora_unet_"))

    @classmethod
    def from_compvis_paths(cls, paths: Iterable[str]) -> UnetShape:
        """From the names of a compvis U-Net's modules or parameters, without `model.diffusion_model.`."""
        found = [match for path in paths if (match := re.match(r"input_blocks\.(\d+)\.(\d+)\.(op)?", path))]
        if not found:
            raise NetworkError("no input_blocks among the names: this is no compvis U-Net")
        count = 1 + max(int(match[1]) for match in found)
        downs = sorted({int(match[1]) for match in found if match[3]})
        blocks = (downs[0] if downs else count) - 1
        attentive = {int(match[1]) for match in found if match[2] == "1"}
        levels = len(downs) + 1
        return cls(blocks, tuple(1 + level * (blocks + 1) in attentive for level in range(levels)))


SD1_SHAPE = UnetShape(2, (True, True, True, False))
SDXL_SHAPE = UnetShape(2, (False, True, True))


def part_of(key: str) -> Part | None:
    """The part of the model that a network's key (any known layout) belongs to, or None."""
    key = key.removeprefix("base_model.model.")
    return next((part for prefix, part in PART_PREFIXES.items() if key.startswith(prefix)), None)


def kohya_name(path: str, part: Part, *, towers: int = 1) -> str:
    """The kohya name of a module from its path in diffusers (or transformers); `towers` 2 for SDXL.

    >>> kohya_name("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0", "unet")
    'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0'
    """
    prefix = {"unet": "lora_unet_", "te": "lora_te_" if towers == 1 else "lora_te1_", "te2": "lora_te2_"}[part]
    return prefix + path.replace(".", "_")


def split_kohya_name(name: str) -> tuple[Part, str]:
    """Part and dotted path of a kohya name (diffusers' path, or compvis' where the name is built on that).

    >>> split_kohya_name("lora_te_text_model_encoder_layers_0_self_attn_q_proj")
    ('te', 'text_model.encoder.layers.0.self_attn.q_proj')
    """
    for prefix in ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_"):
        if name.startswith(prefix):
            return PART_PREFIXES[prefix], dotted(name[len(prefix) :])
    raise NetworkError(f"layer {name!r}: a kohya name begins with lora_unet_, lora_te_, lora_te1_ or lora_te2_")


def dotted(flat: str) -> str:
    """A path written with underscores, with its dots again."""
    pieces = flat.split("_")
    path: list[str] = []
    at = 0
    while at < len(pieces):
        for length in range(min(_LONGEST, len(pieces) - at), 0, -1):
            candidate = "_".join(pieces[at : at + length])
            if length == 1 or candidate in _COMPOUNDS:
                path.append(candidate)
                at += length
                break
    return ".".join(path)


def compvis_path(path: str, shape: UnetShape) -> str:
    """diffusers path of a U-Net module or parameter -> compvis path (without `model.diffusion_model.`)."""
    for diffusers, compvis in _TOP_TO_COMPVIS.items():
        if path == diffusers or path.startswith(f"{diffusers}."):
            return compvis + path[len(diffusers) :]
    step = shape.blocks_per_level + 1
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(\..+)?", path)
    if match:
        direction, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5] or ""
        if level >= shape.levels:
            raise NetworkError(f"layer {path!r}: block {level}, but this U-Net has {shape.levels} levels")
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * step}.0" + re.sub(r"^\.conv\b", ".op", rest)
        if kind == "upsamplers":
            inner = 2 if shape.attention[shape.levels - 1 - level] else 1
            return f"output_blocks.{level * step + step - 1}.{inner}" + rest
        stem = (
            f"input_blocks.{1 + level * step + index}"
            if direction == "down"
            else f"output_blocks.{level * step + index}"
        )
        return f"{stem}.{_inner(kind, rest)}"
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)(\..+)?", path)
    if match:
        block = 1 if match[1] == "attentions" else 2 * int(match[2])
        inner_path = _inner(match[1], match[3] or "")
        return f"middle_block.{block}" + inner_path[1:]
    raise NetworkError(f"layer {path!r}: no compvis counterpart is known")


def diffusers_path(path: str, shape: UnetShape) -> str:
    """compvis path of a U-Net module or parameter (without `model.diffusion_model.`) -> diffusers path."""
    for compvis, diffusers in _TOP_TO_DIFFUSERS.items():
        if path == compvis or path.startswith(f"{compvis}."):
            return diffusers + path[len(compvis) :]
    step = shape.blocks_per_level + 1
    match = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d+)(\..+)?", path)
    if match:
        direction, number, inner, rest = match[1], int(match[2]), int(match[3]), match[4] or ""
        if direction == "input":
            level, index = divmod(number - 1, step)
            if index == shape.blocks_per_level:
                return f"down_blocks.{level}.downsamplers.0" + re.sub(r"^\.op\b", ".conv", rest)
            return f"down_blocks.{level}." + _outer(inner, index, rest)
        level, index = divmod(number, step)
        if level < shape.levels and inner == (2 if shape.attention[shape.levels - 1 - level] else 1):
            return f"up_blocks.{level}.upsamplers.0" + rest
        return f"up_blocks.{level}." + _outer(inner, index, rest)
    match = re.fullmatch(r"middle_block\.([012])(\..+)?", path)
    if match:
        block, rest = int(match[1]), match[2] or ""
        return "mid_block." + _outer(1 if block == 1 else 0, 0 if block == 1 else block // 2, rest)
    raise NetworkError(f"layer {path!r}: no diffusers counterpart is known")


def canonical_name(name: str, shape: UnetShape | None = None) -> str:
    """The kohya name on diffusers' path for any name that the web UI accepts.

    `lora_unet_input_blocks_1_1_proj_in` (as SDXL LoRAs have it) becomes `lora_unet_down_blocks_0_attentions_0_proj_in`;
    for that the U-Net's shape is needed. A name that is canonical already is returned as it is.
    """
    part, path = split_kohya_name(name)
    if part != "unet" or not is_compvis_path(path):
        return name
    if shape is None:
        raise NetworkError(
            f"layer {name!r} is numbered as in compvis; its place depends on the U-Net: give its shape "
            "(--checkpoint FILE, a checkpoint of that kind)"
        )
    return kohya_name(diffusers_path(path, shape), "unet")


def name_for_webui(path: str, shape: UnetShape) -> str:
    """The name under which the stock web UI (1.7 to 1.10) finds the U-Net layer at this diffusers path.

    The web UI computes block numbers as if every U-Net had SD1's shape. Where that gives another layer or none (other
    numbers of blocks, an up-sampler of the lowest level behind attention, SDXL's add_embedding), the name on compvis'
    path is the one that works: the web UI looks it up as it is. SDXL's, known by its first level without attention,
    have compvis' path throughout, as kohya writes them. Elsewhere it is kohya's name on diffusers' path.
    """
    if path.startswith("add_embedding.") or not shape.attention[0]:
        return kohya_name(compvis_path(path, shape), "unet")
    assumed = UnetShape(2, (*(True,) * (shape.levels - 1), False))
    actual = compvis_path(path, shape)
    return kohya_name(path if compvis_path(path, assumed) == actual else actual, "unet")


def fits(path: str, shape: UnetShape) -> bool:
    """Whether a U-Net of this shape can have a layer at this path, diffusers' or compvis'."""
    try:
        path = diffusers_path(path, shape) if is_compvis_path(path) else path
    except NetworkError:
        return False
    match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(?:\.|$)", path)
    if not match:
        return f"{path}.".startswith(("mid_block.", *(f"{name}." for name in _TOP_TO_COMPVIS)))
    direction, level, kind, index = match[1], int(match[2]), match[3], int(match[4])
    if level >= shape.levels:
        return False
    if kind in ("downsamplers", "upsamplers"):
        return index == 0 and level < shape.levels - 1 and (kind == "downsamplers") == (direction == "down")
    full = level if direction == "down" else shape.levels - 1 - level
    blocks = shape.blocks_per_level + (direction == "up")
    return index < blocks and (kind == "resnets" or shape.attention[full])


def is_compvis_path(path: str) -> bool:
    """Whether a U-Net path is numbered as in compvis."""
    return path.startswith(("input_blocks.", "middle_block.", "output_blocks.", "out.", "time_embed.", "label_emb."))


def _inner(kind: str, rest: str) -> str:
    """diffusers' `resnets`/`attentions` and what follows -> compvis' place in the block and what follows."""
    if kind == "attentions":
        return "1" + rest
    head, _, tail = rest.removeprefix(".").partition(".")
    mapped = _RESNET_TO_COMPVIS.get(head, head)
    return "0" + "".join(f".{piece}" for piece in (mapped, tail) if piece)


def _outer(inner: int, index: int, rest: str) -> str:
    """compvis' place in a block and what follows -> diffusers' `resnets`/`attentions` and what follows."""
    if inner == 1:
        return f"attentions.{index}{rest}"
    for compvis, diffusers in _RESNET_TO_DIFFUSERS.items():
        if rest == f".{compvis}" or rest.startswith(f".{compvis}."):
            return f"resnets.{index}.{diffusers}{rest[len(compvis) + 1 :]}"
    return f"resnets.{index}{rest}"


_UNET = "model.diffusion_model."


def checkpoint_shape(path: str | Path) -> UnetShape:
    """Of a checkpoint (.safetensors), of a U-Net in diffusers' layout, or of a folder that diffusers saved.

    BundleError where there is no U-Net in it.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return UnetShape.from_diffusers_config(_config(path))
        names = read_header(path).tensors
        compvis = [name.removeprefix(_UNET) for name in names if name.startswith(_UNET)]
        if compvis:
            return UnetShape.from_compvis_paths(compvis)
        return UnetShape.from_diffusers_paths(name.removeprefix("unet.") for name in names)
    except (NetworkError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: no U-Net of SD1, SD2 or SDXL in it ({error}). Give the checkpoint.") from None


def _config(folder: Path) -> dict[str, object]:
    for file in (folder / "unet" / "config.json", folder / "config.json"):
        if file.is_file():
            try:
                found = parse_json(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise BundleError(f"{file}: cannot be read as JSON ({error})") from None
            if isinstance(found, dict):
                return found
    raise BundleError(f"{folder}: has no unet/config.json; give a .safetensors file or a folder that diffusers saved")


def host_shape(host: Host) -> UnetShape:
    """The block structure of the host's U-Net, which decides under which names the stock web UI finds its layers."""
    return UnetShape.from_kohya_names(layer.name for layer in host.layers())
