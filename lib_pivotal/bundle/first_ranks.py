"""A DyLoRA cut to its first ranks: the LoRA that those were trained as, bit for bit.

Its ranks are in order of weight, and `alpha / b` is the scale of the first b (Valipour et al. 2022, arXiv 2210.07558):
rows of `down` and columns of `up` are left out, and alpha stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lib_pivotal.bundle.foreign import for_kohya, kohya_network
from lib_pivotal.bundle.listing import rank_metadata
from lib_pivotal.bundle.metadata import read_json
from lib_pivotal.bundle.network_layouts import group_layers
from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import refuse_taken

_DOWN, _UP = "lora_down.weight", "lora_up.weight"


def cut_to_first_ranks(path: str | Path, out: str | Path, *, rank: int, overwrite: bool = False) -> Path:
    """The file with the first `rank` ranks of each layer; layers of no more ranks, and embeddings, keep their bits.

    Raises:
        BundleError: the file does not say that it is a DyLoRA, or was not trained to be cut there.
    """
    out = Path(out)
    if out.resolve() == Path(path).resolve():
        raise BundleError(f"{out}: the new file cannot take the place of one that it is made from. Give another name")
    refuse_taken([out], overwrite=overwrite)
    bundle = require(read_bundle(path))
    _check_rank(path, rank, unit=_unit(path, bundle.metadata))
    layers = group_layers(kohya_network(bundle))
    network, largest = dict[str, Tensor](), 0
    for name, layer in layers.items():
        largest = max(largest, layer[_DOWN].shape[0] if _DOWN in layer else 0)
        network |= {f"{name}.{suffix}": tensor for suffix, tensor in _first(layer, rank).items()}
    if largest <= rank:
        raise BundleError(f"rank = {rank}: the file's ranks are {largest} at most. Give a smaller one")
    told = f"the first {rank} of {largest} ranks"
    before = bundle.metadata.get("ss_training_comment", "")
    metadata = {
        **for_kohya(bundle.metadata),
        **rank_metadata(network),
        "ss_output_name": out.stem,
        "modelspec.title": out.stem,
        "ss_training_comment": f"{told}; {before}" if before not in ("", "None") else told,
    }
    return write_bundle(out, network=network, embeddings=bundle.embeddings, metadata=metadata, dtype=None)


def _first(layer: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    if _DOWN not in layer or _UP not in layer or layer[_DOWN].shape[0] <= rank:
        return dict(layer)
    return {**layer, _DOWN: layer[_DOWN][:rank].contiguous(), _UP: layer[_UP][:, :rank].contiguous()}


def _unit(path: str | Path, metadata: Mapping[str, str]) -> int:
    """How many ranks the file's training took together."""
    arguments = read_json(metadata, "ss_network_args")
    if arguments.get("algo") != "dylora" and "dylora" not in metadata.get("ss_network_module", ""):
        raise BundleError(
            f"{path}: does not say that it is a DyLoRA, whose ranks are in order; of any other LoRA, the first ranks "
            "are no better than the last. Resize it"
        )
    told = str(arguments.get("block_size", arguments.get("unit", "")))
    return int(told) if told.isdecimal() and int(told) > 0 else 1


def _check_rank(path: str | Path, rank: int, *, unit: int) -> None:
    if rank < 1:
        raise BundleError(f"rank = {rank}: must be 1 or more")
    if rank % unit:
        nearest = max(unit, rank // unit * unit)
        raise BundleError(
            f"{path}: rank = {rank}: {unit} ranks were trained together. Give {nearest} or {nearest + unit}"
        )
