"""A LoRA file on the disk, and one that was read."""

from __future__ import annotations

import enum
from collections import namedtuple
from pathlib import Path
from typing import Any

from modules import cache, errors, hashes, sd_models, shared
from torch import Tensor

NetworkWeights = namedtuple("NetworkWeights", ["network_key", "sd_key", "w", "sd_module"])


class SdVersion(enum.Enum):
    Unknown = 1
    SD1 = 2
    SD2 = 3
    SDXL = 4


class NetworkOnDisk:
    def __init__(self, name: str, filename: str) -> None:
        self.name, self.filename = name, filename
        self.metadata: dict[str, Any] = {}
        self.is_safetensors = Path(filename).suffix.lower() == ".safetensors"
        if self.is_safetensors:
            try:
                self.metadata = cache.cached_data_for_file(
                    "safetensors-metadata",
                    f"lora/{name}",
                    filename,
                    lambda: sd_models.read_metadata_from_safetensors(filename),
                )
            except Exception as error:
                errors.display(error, f"reading lora {filename}")
        self.alias = self.metadata.get("ss_output_name", self.name)
        self.hash: str | None = None
        self.shorthash: str | None = None
        known = hashes.sha256_from_cache(filename, f"lora/{name}", use_addnet_hash=self.is_safetensors)
        self.set_hash(self.metadata.get("sshs_model_hash") or known or "")
        self.sd_version = self._version()

    def _version(self) -> SdVersion:
        if str(self.metadata.get("ss_base_model_version", "")).startswith("sdxl_"):
            return SdVersion.SDXL
        if str(self.metadata.get("ss_v2", "")) == "True":
            return SdVersion.SD2
        return SdVersion.SD1 if self.metadata else SdVersion.Unknown

    def set_hash(self, value: str) -> None:
        self.hash, self.shorthash = value, value[:12]
        if self.shorthash:
            import networks

            networks.available_network_hash_lookup[self.shorthash] = self

    def read_hash(self) -> None:
        if not self.hash:
            self.set_hash(hashes.sha256(self.filename, f"lora/{self.name}", use_addnet_hash=self.is_safetensors) or "")

    def get_alias(self) -> str:
        import networks

        by_file = shared.opts.lora_preferred_name == "Filename"
        return self.name if by_file or self.alias.lower() in networks.forbidden_network_aliases else self.alias


class Network:
    def __init__(self, name: str, network_on_disk: NetworkOnDisk) -> None:
        self.name, self.network_on_disk = name, network_on_disk
        self.te_multiplier = self.unet_multiplier = 1.0
        self.dyn_dim: Any = None
        self.modules: dict[str, NetworkModule] = {}
        self.bundle_embeddings: dict[str, Any] = {}
        self.mtime: float = 0.0
        self.mentioned_name: str | None = None


class NetworkModule:
    """What is added to one layer."""

    def __init__(self, net: Network, weights: NetworkWeights) -> None:
        self.network, self.network_key, self.sd_key = net, weights.network_key, weights.sd_key
        self.sd_module = weights.sd_module
        alpha = weights.w.get("alpha")
        self.alpha = None if alpha is None else alpha.item()
        self.scale = weights.w["scale"].item() if "scale" in weights.w else None
        self.dim: int | None = None

    def multiplier(self) -> float:
        return self.network.te_multiplier if "transformer" in self.sd_key[:20] else self.network.unet_multiplier

    def calc_scale(self) -> float:
        if self.scale is not None:
            return self.scale
        return self.alpha / self.dim if self.dim is not None and self.alpha is not None else 1.0

    def finalize(self, change: Tensor) -> tuple[Tensor, None]:
        return change * self.calc_scale() * self.multiplier(), None
