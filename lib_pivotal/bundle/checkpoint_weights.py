"""The weights of a checkpoint's layers under the names that network files use, read one at a time.

A single file of SD1, SD2 or SDXL in ldm's or sgm's layout. Of a .safetensors only the header is kept, and each weight
is read when it is asked for; a .ckpt, which is read without executing its pickle, is in memory as a whole.
OpenCLIP's q, k and v, which are one matrix in the file, are three layers here, as everywhere in network files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from lib_pivotal.bundle.format import Family
from lib_pivotal.bundle.layer_names import (
    UnetShape,
    canonical_name,
    diffusers_path,
    is_compvis_path,
    kohya_name,
    name_for_webui,
)
from lib_pivotal.bundle.pickles import load_plain
from lib_pivotal.bundle.reader import is_torch_file
from lib_pivotal.bundle.safetensors_file import Header, read_header, read_tensors
from lib_pivotal.errors import BundleError, NetworkError
from lib_pivotal.ports import Part

_UNET = "model.diffusion_model."
_TEXT: dict[Family, tuple[tuple[str, Part], ...]] = {
    "sd1": (("cond_stage_model.transformer.", "te"),),
    "sd2": (("cond_stage_model.model.", "te"),),
    "sdxl": (("conditioner.embedders.0.transformer.", "te"), ("conditioner.embedders.1.model.", "te2")),
}
_CLIP = re.compile(r"(?:text_model\.)?(encoder\.layers\.\d+\.(?:self_attn|mlp)\.\w+)\.weight")
_OPENCLIP = re.compile(r"transformer\.resblocks\.(\d+)\.(attn\.in_proj_weight|(?:attn\.out_proj|mlp\.c_\w+)\.weight)")
_OPENCLIP_LAYERS = {
    "attn.in_proj_weight": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.out_proj.weight": ("self_attn.out_proj",),
    "mlp.c_fc.weight": ("mlp.fc1",),
    "mlp.c_proj.weight": ("mlp.fc2",),
}


@dataclass(frozen=True)
class _Place:
    """Where a layer's weight is: the tensor's key, and which of `of` equal shares of its rows."""

    key: str
    share: int = 0
    of: int = 1


class CheckpointWeights:
    """The layers of one checkpoint, by the names under which the web UI finds them."""

    def __init__(
        self, path: Path, *, shapes: Mapping[str, tuple[int, ...]], header: Header | None, tensors: Mapping[str, Tensor]
    ) -> None:
        self.path = path
        self.family = _family(path, shapes)
        self.shape = _unet_shape(path, shapes)
        self._header, self._tensors, self._shapes = header, tensors, shapes
        self._places = dict(_places(shapes, self.family, self.shape))
        self._by_canonical = {self._canonical(name): name for name in self._places}

    @property
    def names(self) -> tuple[str, ...]:
        """Every layer, in the order of the file."""
        return tuple(self._places)

    def name_of(self, layer_name: str) -> str | None:
        """The name here of a layer that a file may call otherwise (diffusers' numbers, kohya's OFT); None: no such."""
        try:
            return self._by_canonical.get(self._canonical(layer_name))
        except NetworkError:
            return None

    def layer_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a layer's weight."""
        place = self._places[name]
        rows, *rest = self._shapes[place.key]
        return (rows // place.of, *rest)

    def weight(self, name: str) -> Tensor:
        """A layer's weight as it is stored, read now."""
        place = self._places[name]
        tensor = self._read(place.key)
        rows = tensor.shape[0] // place.of
        return tensor[place.share * rows : (place.share + 1) * rows]

    def other_keys(self) -> tuple[str, ...]:
        """What else of the U-Net and the text encoders is in the file: biases, norms, token tables."""
        taken = {place.key for place in self._places.values()}
        heads = (_UNET, *(head for head, _ in _TEXT[self.family]))
        return tuple(
            key for key in self._shapes if key.startswith(heads) and key not in taken and "position_ids" not in key
        )

    def other(self, key: str) -> Tensor | None:
        """One of `other_keys` (of this or of another checkpoint), read now; None where it is not here."""
        return self._read(key) if key in self._shapes else None

    def _read(self, key: str) -> Tensor:
        if self._header is None:
            return self._tensors[key]
        one = replace(self._header, tensors={key: self._header.tensors[key]})
        ((_, tensor),) = read_tensors(self.path, one)
        if tensor is None:
            raise BundleError(
                f"{self.path}: {key} has the dtype {one.tensors[key].dtype}, which this torch cannot read"
            )
        return tensor

    def _canonical(self, name: str) -> str:
        if name.startswith("oft_"):
            name = f"lora_{name.removeprefix('oft_')}"
        name = name.replace("lora_te1_", "lora_te_", 1)
        return canonical_name(name, self.shape)


def open_checkpoint(path: str | Path) -> CheckpointWeights:
    """The layers of a checkpoint.

    Raises:
        BundleError: it cannot be read, holds no U-Net, or is of no family that is known.
    """
    path = Path(path)
    if is_torch_file(path):
        content = load_plain(path)
        state = content.get("state_dict", content) if isinstance(content, dict) else {}
        tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        return CheckpointWeights(path, shapes=shapes, header=None, tensors=tensors)
    header = read_header(path)
    shapes = {key: entry.shape for key, entry in header.tensors.items()}
    return CheckpointWeights(path, shapes=shapes, header=header, tensors={})


def _family(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    families: tuple[Family, ...] = ("sdxl", "sd2", "sd1")
    for family in families:
        last = _TEXT[family][-1][0]
        if any(key.startswith(last) for key in shapes):
            return family
    raise BundleError(
        f"{path}: no checkpoint of SD1, SD2 or SDXL in one file (no text encoder under a name that they have). "
        "Give the whole checkpoint, .safetensors or .ckpt."
    )


def _unet_shape(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> UnetShape:
    try:
        return UnetShape.from_compvis_paths(key.removeprefix(_UNET) for key in shapes if key.startswith(_UNET))
    except NetworkError as error:
        raise BundleError(f"{path}: {error}. Give the whole checkpoint.") from None


def _places(shapes: Mapping[str, tuple[int, ...]], family: Family, unet: UnetShape) -> list[tuple[str, _Place]]:
    """(name, place) of every layer that a low-rank change can be of: weights with two dimensions or more."""
    found: list[tuple[str, _Place]] = []
    towers = len(_TEXT[family])
    for key, shape in shapes.items():
        if key.startswith(_UNET) and key.endswith(".weight") and len(shape) > 1:
            path = key.removeprefix(_UNET).removesuffix(".weight")
            path = diffusers_path(path, unet) if is_compvis_path(path) else path
            found.append((name_for_webui(path, unet), _Place(key)))
        for head, part in _TEXT[family]:
            if key.startswith(head):
                found += [
                    (kohya_name(f"text_model.{path}", part, towers=towers), place)
                    for path, place in _text_places(key, head)
                ]
    return found


def _text_places(key: str, head: str) -> list[tuple[str, _Place]]:
    """(path below `text_model.`, place) of the layers that a tensor of a text encoder holds."""
    inner = key.removeprefix(head)
    if match := _CLIP.fullmatch(inner):
        return [(match[1], _Place(key))]
    if match := _OPENCLIP.fullmatch(inner):
        paths = _OPENCLIP_LAYERS.get(match[2], ())
        return [
            (f"encoder.layers.{match[1]}.{path}", _Place(key, share, len(paths))) for share, path in enumerate(paths)
        ]
    return []
