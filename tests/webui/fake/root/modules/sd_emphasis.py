"""What a weight in a prompt does to the text encoder's output."""

from __future__ import annotations

from torch import Tensor


class Emphasis:
    name = "Base"
    tokens: list[list[int]]
    multipliers: Tensor
    z: Tensor

    def after_transformers(self) -> None:
        """Changes `z`."""


class EmphasisNone(Emphasis):
    name = "None"


class EmphasisIgnore(Emphasis):
    name = "Ignore"


class EmphasisOriginal(Emphasis):
    name = "Original"

    def after_transformers(self) -> None:
        before = self.z.mean()
        weighted = self.z * self.multipliers.reshape((*self.multipliers.shape, 1)).expand(self.z.shape)
        self.z = weighted * (before / weighted.mean())


class EmphasisOriginalNoNorm(Emphasis):
    name = "No norm"

    def after_transformers(self) -> None:
        self.z = self.z * self.multipliers.reshape((*self.multipliers.shape, 1)).expand(self.z.shape)


options = [EmphasisNone, EmphasisIgnore, EmphasisOriginal, EmphasisOriginalNoNorm]


def get_current_option(name: str) -> type[Emphasis]:
    return next((option for option in options if option.name == name), EmphasisOriginal)
