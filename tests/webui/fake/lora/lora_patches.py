"""Layers whose weights are brought up to date before they are used."""

from __future__ import annotations

from typing import Any

import networks
from modules import patches
from torch import nn

_KINDS = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention)


class LoraPatches:
    def __init__(self) -> None:
        self.originals: dict[tuple[type, str], Any] = {}
        for kind in _KINDS:
            self._patch(kind, "forward", networks.network_apply_weights)
            self._patch(kind, "_load_from_state_dict", networks.network_reset_cached_weight)

    def _patch(self, kind: type, name: str, before: Any) -> None:
        def replacement(module: Any, *args: Any, **kwargs: Any) -> Any:
            before(module)
            return self.originals[kind, name](module, *args, **kwargs)

        self.originals[kind, name] = patches.patch(__name__, kind, name, replacement)

    def undo(self) -> None:
        for kind, name in self.originals:
            patches.undo(__name__, kind, name)
