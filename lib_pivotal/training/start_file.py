"""A run that begins from a LoRA or a bundle: its network, its embeddings, each trained further or kept as it is.

The file is compared with the run before anything starts: kind, rank and shape of every layer, names and sizes of
embeddings, the family. What the file lacks starts as in any run. What is frozen takes part in every step and comes
out of the run as it went in: the saved file holds the tensors of the first one, bit for bit and in their own dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from lib_pivotal.bundle.foreign import kohya_network
from lib_pivotal.bundle.format import EmbeddingTensors
from lib_pivotal.bundle.hashes import checkpoint_sha256
from lib_pivotal.bundle.layer_names import host_shape
from lib_pivotal.bundle.network_layouts import from_webui, group_layers
from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import BundleError, EmbeddingNameError, NetworkError
from lib_pivotal.networks.adapter import Adapter
from lib_pivotal.networks.network import Network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Host

Use = Literal["train", "none", "freeze"]
"""What is done with a part of the file: trained further, left out, kept as it is."""
NetworkUse = Literal[Use, "as-stored"]
"""The same of its network, and: trained further with the layers, kinds, ranks and alphas that it has."""


def start_uses() -> tuple[str, ...]:
    """Choices of `start.embeddings`."""
    return get_args(Use)


def network_uses() -> tuple[str, ...]:
    """Choices of `start.network`."""
    return get_args(NetworkUse)


@dataclass(frozen=True)
class StartPlan:
    """The file that a run begins from, and what is done with its network and its embeddings."""

    file: Path
    network: NetworkUse
    embeddings: Use

    def sha256(self) -> str:
        """Of the whole file.

        Raises:
            BundleError: it cannot be read.
        """
        try:
            return checkpoint_sha256(self.file)
        except OSError as error:
            raise BundleError(
                f"start.init_file = {self.file}: cannot be read ({error.strerror or error}). Give a LoRA or a bundle"
            ) from error


@dataclass(frozen=True, eq=False)
class FrozenParts:
    """What comes out of a run as it went in; false where everything is trained."""

    network: Mapping[str, Tensor] | None = None
    embeddings: Mapping[str, EmbeddingTensors] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.network is not None or bool(self.embeddings)

    def put_into(
        self, network: Mapping[str, Tensor], embeddings: Mapping[str, EmbeddingTensors], *, dtype: torch.dtype
    ) -> tuple[dict[str, Tensor], dict[str, EmbeddingTensors]]:
        """What is trained in `dtype`, what is frozen in its own."""
        kept = {key: _stored(tensor, dtype) for key, tensor in network.items()}
        found = {
            name: self.embeddings.get(name, tuple(_stored(tower, dtype) for tower in towers))
            for name, towers in embeddings.items()
        }
        return (kept if self.network is None else dict(self.network)), found


@dataclass(frozen=True, eq=False)
class StartFile:
    """The file's content as far as the run takes it: the network under the host's names, embeddings by the run's."""

    plan: StartPlan
    stored: Mapping[str, Tensor]
    network: Mapping[str, Tensor]
    embeddings: Mapping[str, EmbeddingTensors]
    remarks: tuple[str, ...]

    @property
    def frozen(self) -> FrozenParts:
        """What the run keeps as it is."""
        network = self.stored if self.plan.network == "freeze" and self.stored else None
        return FrozenParts(network, self.embeddings if self.plan.embeddings == "freeze" else {})

    def freeze(self, embeddings: TrainedEmbeddings) -> None:
        """Those embeddings that are kept as they are get no updates."""
        embeddings.freeze(self.frozen.embeddings)

    def frozen_network(self, host: Host) -> Network | None:
        """The file's network, without a parameter that is trained; None where it is not to be frozen.

        Raises:
            NetworkError: not all of it belongs to this checkpoint's layers, or is of a kind that can be run.
        """
        if self.frozen.network is None:
            return None
        return self._whole_network(host, ()).requires_grad_(False)

    def stored_network(self, host: Host, rules: Sequence[LayerRule], *, up_lr_factor: float = 1.0) -> Network | None:
        """The file's network as it is, to be trained further; of `rules` the LR factors and groups hold. None where it
        is not wanted so.

        Raises:
            NetworkError: not all of it belongs to this checkpoint's layers, or is of a kind that can be run.
        """
        if self.plan.network != "as-stored" or not self.network:
            return None
        return self._whole_network(host, rules, up_lr_factor=up_lr_factor)

    def _whole_network(self, host: Host, rules: Sequence[LayerRule], *, up_lr_factor: float = 1.0) -> Network:
        network = Network.from_kohya(host.layers(), self.network, rules=rules, up_lr_factor=up_lr_factor)
        if network.unmatched:
            raise NetworkError(
                f"{self.plan.file}: {len(network.unmatched)} tensors have no layer in this checkpoint, or are of a "
                f"kind that is not here: {network.unmatched[0]} {list(self.network[network.unmatched[0]].shape)}. "
                "Choose the checkpoint that the file is for, or make it a LoRA (bundle to_lora)"
            )
        return network.to(host.device)

    def load_into(self, network: Network | None) -> list[str]:
        """Give a fresh network the file's tensors; what is to be known of it.

        Raises:
            NetworkError: the file's network does not fit; names the key and both shapes.
        """
        if self.plan.network != "train" or not self.network:
            return []
        if network is None:
            raise NetworkError(
                f"{self.plan.file}: has a network, and this run trains none: choose network.algorithm, or set "
                "start.network to freeze or none"
            )
        layers = group_layers(self.network)
        _refuse_strangers(self.plan.file, layers, network)
        remarks, alphas = [], 0
        for name, layer in layers.items():
            if name in network.layer_names:
                adapter: Adapter = network.adapters[name]  # type: ignore[assignment]  # a ModuleDict knows modules
                _check_layer(self.plan.file, name, layer, adapter.kohya_tensors())
                before = network.spec(name).alpha
                adapter.load(layer)
                alphas += network.spec(name).alpha != before
        missing = [name for name in network.layer_names if name not in layers]
        if missing:
            remarks.append(
                f"{self.plan.file.name}: {len(missing)} layers are not in it and start as usual, such as {missing[0]}"
            )
        if alphas:
            remarks.append(f"{self.plan.file.name}: the alphas of {alphas} layers are the file's, not the settings'")
        return remarks


def read_start(plan: StartPlan, host: Host, wanted: Mapping[str, int]) -> StartFile:
    """The file, compared with the checkpoint and with the run's embeddings (`wanted`: vectors by name).

    Raises:
        BundleError: it cannot be read, or is for another family of models.
        EmbeddingNameError: an embedding has another number of vectors than the run's.
    """
    bundle, info = require(read_bundle(plan.file)), host.info
    if "unknown" not in (bundle.family, info.family) and bundle.family != info.family:
        raise BundleError(
            f"{plan.file} is for {bundle.family.upper()}, and {info.name} is {info.family.upper()}: choose a "
            "checkpoint of its family, or another file"
        )
    stored, network = dict[str, Tensor](), dict[str, Tensor]()
    if plan.network != "none":
        shape = host_shape(host)
        stored = kohya_network(bundle, shape=shape)
        network = from_webui(_plainly_named(stored), shape)
    found = {} if plan.embeddings == "none" else bundle.embeddings
    embeddings = {name: _fitting(plan.file, name, found[name], wanted[name], host) for name in wanted if name in found}
    return StartFile(plan, stored, network, embeddings, tuple(_remarks(plan, found, wanted, has_network=bool(network))))


def _plainly_named(network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layers of kohya's own OFT (networks/oft.py), which it calls `oft_unet_...`, under the names of all others."""
    return {
        f"lora_unet_{key.removeprefix('oft_unet_')}" if key.startswith("oft_unet_") else key: tensor
        for key, tensor in network.items()
    }


def _fitting(file: Path, name: str, towers: EmbeddingTensors, vectors: int, host: Host) -> EmbeddingTensors:
    shapes, needed = [list(tower.shape) for tower in towers], [[vectors, width] for width in host.text.widths]
    if shapes != needed:
        same_width = [shape[-1] for shape in shapes] == list(host.text.widths)
        remedy = f"Set its vectors to {shapes[0][0]}" if same_width else "Choose the checkpoint that the file is for"
        raise EmbeddingNameError(f"{file}: embedding {name!r} is {_told(shapes)}, this run's {_told(needed)}. {remedy}")
    return towers


def _told(shapes: Sequence[Sequence[int]]) -> str:
    return " and ".join(map(str, shapes))


def _remarks(
    plan: StartPlan, found: Mapping[str, EmbeddingTensors], wanted: Mapping[str, int], *, has_network: bool
) -> list[str]:
    remarks, file = [], plan.file.name
    if plan.network != "none" and not has_network:
        remarks.append(f"{file}: has no network, so the run's starts as usual")
    if plan.embeddings == "none":
        return remarks
    if new := [name for name in wanted if name not in found]:
        remarks.append(f"{file}: has no {', '.join(new)}, which start as their init text says")
    if left := [name for name in found if name not in wanted]:
        remarks.append(f"{file}: its {', '.join(left)} are not among the run's embeddings and are left out")
    return remarks


def _refuse_strangers(file: Path, layers: Mapping[str, Mapping[str, Tensor]], network: Network) -> None:
    """Layers of the file that the run trains no adapter on; those that change nothing may go."""
    strangers = [
        name for name, layer in layers.items() if name not in network.layer_names and not _changes_nothing(layer)
    ]
    if strangers:
        suffix, tensor = max(layers[strangers[0]].items(), key=lambda item: item[1].dim())
        raise NetworkError(
            f"{file}: {len(strangers)} of its {len(layers)} layers have no place in this run's network, such as "
            f"{strangers[0]}.{suffix} {list(tensor.shape)}, where the run has none. Choose layers that include them "
            "(network.unet_targets, network.te_targets), take that part away (bundle strip), or choose the checkpoint "
            "that the file is for"
        )


def _changes_nothing(layer: Mapping[str, Tensor]) -> bool:
    """Zeros such as `network_layouts.with_whole_attention` puts beside OpenCLIP's trained layers."""
    up = layer.get("lora_up.weight")
    return up is not None and not bool(up.any())


def _check_layer(file: Path, name: str, layer: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Refuse a layer of another kind, rank or shape than the run's."""
    if set(layer) - {"alpha"} != set(ours) - {"alpha"}:
        kinds = [", ".join(sorted(set(tensors) - {"alpha"})) for tensors in (layer, ours)]
        raise NetworkError(
            f"{file}: {name} holds {kinds[0]}, this run's network {kinds[1]}: choose the file's kind of network "
            "(network.algorithm), set start.network to as-stored, or make the file a LoRA (bundle to_lora)"
        )
    setting = "network.unet_rank" if name.startswith("lora_unet_") else "network.te_rank"
    for suffix, tensor in layer.items():
        wanted = ours.get(suffix, tensor)
        if suffix == "alpha" or _bare(tensor) == _bare(wanted):
            continue
        remedy = f"choose the checkpoint that the file is for, or its rank ({setting})"
        if suffix == "lora_down.weight" and _bare(tensor)[1:] == _bare(wanted)[1:]:
            remedy = f"set {setting} (or its group's rank) to {tensor.shape[0]}, or resize the file (bundle resize)"
        raise NetworkError(
            f"{file}: {name}.{suffix} is {list(tensor.shape)}, in this run's network {list(wanted.shape)}: {remedy}"
        )


def _bare(tensor: Tensor) -> tuple[int, ...]:
    """The shape, where a linear layer's factor may be kept as a 1x1 convolution."""
    shape = tuple(tensor.shape)
    return shape[:2] if shape[2:] == (1, 1) else shape


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
