"""Which layout a network's key is written in, which layer it names, and which tensor of that layer it is.

Every layout is recognised by what it has, none is taken for granted: a key of which beginning *or* ending is unknown
has no place. What people try besides LoRA files (checkpoints, single embeddings) is told by name.

    kohya        lora_unet_<path with _>.lora_down.weight         kohya, LyCORIS, OneTrainer, this project
    mixed        lora_unet_<path>.lora_A.weight                   scripts that rename half of a key
    lycoris      lycoris_<path with _>.lora_down.weight           LyCORIS outside kohya's scripts
    diffusers    unet.<path>.lora_A.weight                        pipelines; before: .lora.down, .to_q_lora.down
    peft         base_model.model.<path>.lora_A.weight            one file a model
    comfyui      diffusion_model.<compvis path>.lora_down.weight  ComfyUI's LoraSave, OneTrainer
    bare         <path>.lora_A.weight                             save_attn_procs, OneTrainer's "original"
    onetrainer   unet.<path>.hada_w1_a                            its backups ("internal")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lib_pivotal.bundle.embedding_key_formats import is_single_embedding, seen_of
from lib_pivotal.bundle.layer_names import BARE_BEGINNINGS, PART_PREFIXES, dotted
from lib_pivotal.ports import Part

LayoutName = Literal["kohya", "mixed", "lycoris", "diffusers", "peft", "comfyui", "bare", "onetrainer"]

TITLES: dict[LayoutName, str] = {
    "kohya": "kohya's",
    "mixed": "kohya's names with peft's endings",
    "lycoris": "LyCORIS' for any model",
    "diffusers": "diffusers'",
    "peft": "peft's",
    "comfyui": "ComfyUI's",
    "bare": "bare paths, without the name of a model",
    "onetrainer": "OneTrainer's internal",
}

MAGNITUDE = "magnitude"
"""peft's DoRA magnitude, `[out]`, of a convolution `[1, out, 1, 1]`; kohya's `dora_scale` is shaped otherwise."""

_OTHER = (
    r"hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t[12]|(?:a1|a2|b1|b2|bm)\.weight|diff|diff_b|w_norm|b_norm|"
    r"on_input|oft_blocks|oft_diag|oft_R\.weight|oft_R\.scaled_oft|rescale|scalar|bias_(?:indices|values|size)"
)
_ENDINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(.+)\.lora_A(?:\.[^.]+)?\.weight"), "lora_down.weight"),
    (re.compile(r"(.+)\.lora_B(?:\.[^.]+)?\.weight"), "lora_up.weight"),
    (re.compile(r"(.+)(?:\.lora|\.lora_linear_layer|_lora)\.down\.weight"), "lora_down.weight"),
    (re.compile(r"(.+)(?:\.lora|\.lora_linear_layer|_lora)\.up\.weight"), "lora_up.weight"),
    (re.compile(r"(.+)\.lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?"), MAGNITUDE),
    (re.compile(r"(.+)\.lora_down\.weight"), "lora_down.weight"),
    (re.compile(r"(.+)\.lora_up\.weight"), "lora_up.weight"),
    (re.compile(r"(.+)\.lora_mid\.weight"), "lora_mid.weight"),
    (re.compile(r"(.+?)(?:_lora)?\.alpha"), "alpha"),
    (re.compile(r"(.+)\.dora_scale"), "dora_scale"),
    (re.compile(rf"(.+)\.({_OTHER})"), ""),
)
_KOHYA_NAME = re.compile(r"(?:lora|oft)_(unet|te|te1|te2)_\w+")
_KOHYA_ENDING = re.compile(rf"lora_(?:down|up|mid)\.weight|alpha|dora_scale|weight|{_OTHER}")
_LYCORIS = "lycoris_"

_HEADS: tuple[tuple[str, Part, LayoutName], ...] = (
    ("unet.", "unet", "diffusers"),
    ("text_encoder.", "te", "diffusers"),
    ("text_encoder_2.", "te2", "diffusers"),
    ("diffusion_model.", "unet", "comfyui"),
    ("text_encoders.clip_l.transformer.", "te", "comfyui"),
    ("text_encoders.clip_h.transformer.", "te", "comfyui"),
    ("text_encoders.clip_g.transformer.", "te2", "comfyui"),
)
_PEFT = "base_model.model."
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class Place:
    """Where a tensor belongs. `path` is dotted, `name` the kohya name of a layer that has one already.

    `part` is a guess where the key names no model and the path is a text encoder's: `sure` is False then.
    """

    layout: LayoutName
    part: Part
    suffix: str
    path: str = ""
    name: str = ""
    sure: bool = True


@dataclass(frozen=True)
class Recognition:
    """A network's keys by their places, and those that have none."""

    places: Mapping[str, Place]
    unknown: tuple[str, ...]
    instead: str = ""

    @property
    def layouts(self) -> tuple[LayoutName, ...]:
        """The layouts that occur, in the order of `TITLES`."""
        found = {place.layout for place in self.places.values()}
        return tuple(layout for layout in TITLES if layout in found)

    @property
    def title(self) -> str:
        """The layouts as a sentence has them."""
        return " and ".join(TITLES[layout] for layout in self.layouts)

    @property
    def refusal(self) -> str:
        """Why the network cannot be put into another layout; empty where it can."""
        if not self.unknown:
            return ""
        first = ", ".join(self.unknown[:3]) + (", …" if len(self.unknown) > 3 else "")
        if self.instead:
            return f"{self.instead} (first keys: {first})"
        known = "kohya's, peft's, ComfyUI's or OneTrainer's"
        return f"{len(self.unknown)} key(s) are no LoRA in diffusers' layout: {first}; nor in {known}"


def place_of(key: str) -> Place | None:
    """The place of a key, or None."""
    name, _, ending = key.partition(".")
    kohya = _KOHYA_NAME.fullmatch(name)
    if kohya and _KOHYA_ENDING.fullmatch(ending):
        return Place("kohya", PART_PREFIXES[f"lora_{kohya[1]}_"], ending, name=name)
    found = _ending(key)
    if found is None:
        return None
    stem, suffix = found
    if kohya:  # the name is kohya's, the ending is not; a path may have kept its dots
        return Place("mixed", PART_PREFIXES[f"lora_{kohya[1]}_"], suffix, name=stem.replace(".", "_"))
    if stem.startswith(_LYCORIS) and "." not in stem:
        flat = stem.removeprefix(_LYCORIS)
        part = _bare_part(dotted(flat))
        return None if part is None else Place("lycoris", part, suffix, path=dotted(flat), sure=part == "unet")
    return _dotted_place(stem, suffix)


def recognise(network: Mapping[str, Tensor]) -> Recognition:
    """The places of a whole network."""
    found = {key: place_of(key) for key in network}
    unknown = tuple(key for key, place in found.items() if place is None)
    places = {key: place for key, place in found.items() if place is not None}
    instead = what_else(network) if unknown else ""
    return Recognition(places, unknown, instead)


def what_else(network: Mapping[str, Tensor]) -> str:
    """What a file is whose keys are of no LoRA that names its layers; empty where that is not known either."""
    if is_single_embedding({key: seen_of(tensor) for key, tensor in network.items()}):
        return "it is a single embedding, no LoRA: put it into embeddings/, or add it to a bundle"
    if any(key.startswith(_CHECKPOINT) for key in network):
        return "it is a checkpoint (a full model), not a LoRA"
    for pattern, title in _NUMBERED:
        if any(pattern.match(key) for key in network):
            return title
    if any(key.startswith(_OTHER_MODELS) for key in network):
        return "it is a LoRA for another kind of model than SD1, SD2 and SDXL"
    if any(re.fullmatch(r"(down_blocks|mid_block|up_blocks|text_model)\..+\.(weight|bias)", key) for key in network):
        return "it holds full weights of a model in diffusers' or transformers' layout, no LoRA"
    return ""


_CHECKPOINT = (
    "model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.embedders.", "model_ema.",
)  # fmt: skip
_NUMBERED = (
    (
        re.compile(r"(unet|text_encoder):\d+:(up|down|mid)"),
        "it is in the layout of cloneofsimo/lora, which numbers layers instead of naming them; "
        "only that program can put them back",
    ),
    (
        re.compile(r"\d+\."),
        "its layers are numbered, not named: to which layers of the model they belong is not in the file",
    ),
)
_OTHER_MODELS = tuple(
    """
    transformer. lora_transformer_ double_blocks. single_blocks. joint_blocks. prior. lora_prior_ lora_te3_
    text_encoder_3. text_encoders.t5xxl. text_encoders.llama. diffusion_model.double_blocks.
    diffusion_model.single_blocks. diffusion_model.joint_blocks.
    """.split()
)


def parts_of(places: Iterable[Place]) -> frozenset[Part]:
    """The parts that occur for sure."""
    return frozenset(place.part for place in places if place.sure)


def _ending(key: str) -> tuple[str, str] | None:
    for pattern, suffix in _ENDINGS:
        match = pattern.fullmatch(key)
        if match:
            return match[1], suffix or match[2]
    return None


def _dotted_place(stem: str, suffix: str) -> Place | None:
    bare = stem.removeprefix(_PEFT)
    for head, part, layout in _HEADS:
        if bare.startswith(head):
            path = _path(bare.removeprefix(head), part)
            if layout == "comfyui" and _bare_part(path) != ("unet" if part == "unet" else "te"):
                return None  # of another kind of model
            if layout == "diffusers" and bare != stem:
                layout = "peft"
            elif layout == "diffusers" and suffix not in _OF_DIFFUSERS:
                layout = "onetrainer"
            return Place(layout, part, suffix, path=path)
    found = _bare_part(bare)
    if found is None:
        return None
    path = _path(bare, found)
    return Place("bare" if bare == stem else "peft", found, suffix, path=path, sure=found == "unet")


_OF_DIFFUSERS = frozenset({"lora_down.weight", "lora_up.weight", "alpha", MAGNITUDE})


def _bare_part(path: str) -> Part | None:
    """The part that a path without the name of a model belongs to."""
    return next((part for head, part in BARE_BEGINNINGS.items() if f"{path}.".startswith(head)), None)


def _path(path: str, part: Part) -> str:
    """A layer's path as diffusers has it today."""
    if part != "unet":
        return re.sub(r"\.self_attn\.(to_[qkv]|to_out)$", lambda match: f".self_attn.{_OLD_TEXT[match[1]]}", path)
    path = re.sub(r"\.processor\.(to_\w+)$", r".\1", path)
    return re.sub(r"\.to_out$", ".to_out.0", path)
