"""Parameters that are moved alike: one type, from the network and the embeddings to the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["embeddings", "unet", "te"]
"""What phases start and stop together: embeddings, the U-Net's network, that of all text encoders."""


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters with one learning rate, `lr · lr_factor`; `name` (`word aoi`, `unet`, `te`, ...) appears in logs.

    Embeddings and network know their `part` (`embeddings`, `unet`, `te`, `te2`) and factors; the run adds learning
    rates and limits.
    """

    name: str
    parameters: Sequence[Tensor]
    lr: float = 0.0
    lr_factor: float = 1.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    part: Literal["embeddings", "unet", "te", "te2"] = "embeddings"

    @property
    def kind(self) -> Kind:
        """The part, text encoders alike."""
        return "te" if self.part == "te2" else self.part
