"""Validation: the loss on pictures that are not trained, at fixed noise; when it is at its lowest, and when to stop.

What is measured is `evaluation.validation`'s; here is what follows from it. The noise is the same at every validation,
so that any fall counts: there is nothing to smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

OVERFIT_WAITS = 2
"""Validations without a new lowest loss before there is something to say."""
OVERFIT_RISE = 0.002
"""By this part the validation loss must be above its lowest for that to be called overfitting."""


@dataclass(frozen=True)
class ValidationLosses:
    """Losses of one validation by embedding ("" in a run without embeddings), of held-out pictures and of as many that
    are trained, and the means over pictures."""

    held_out: dict[str, float] = field(default_factory=dict)
    trained: dict[str, float] = field(default_factory=dict)
    held_out_mean: float = math.nan
    trained_mean: float = math.nan

    @classmethod
    def of(cls, held_out: dict[str, Sequence[float]], trained: dict[str, Sequence[float]]) -> ValidationLosses:
        """From the losses of each picture, by embedding."""
        return cls(
            {name: _mean(losses) for name, losses in held_out.items()},
            {name: _mean(losses) for name, losses in trained.items()},
            _mean([loss for losses in held_out.values() for loss in losses]),
            _mean([loss for losses in trained.values() for loss in losses]),
        )


@dataclass(frozen=True)
class ValidationProgress:
    """What validations have found; kept with every state.

    `step`, `loss` and `trained` (the loss of trained pictures) are those of the last one, `best_...` those of the one
    with the lowest loss; `waited` counts the validations since. `pictures` tells what was measured on: with other
    pictures it all begins anew.
    """

    step: int = 0
    loss: float = math.nan
    trained: float = math.nan
    best_step: int = 0
    best_loss: float = math.inf
    best_trained: float = math.nan
    waited: int = 0
    pictures: str = ""

    @property
    def rise(self) -> float:
        """How far the loss is above its lowest, as a part of that."""
        return self.loss / self.best_loss - 1

    @property
    def overfits(self) -> bool:
        """Whether the loss has risen since its lowest while that of trained pictures fell."""
        return self.waited >= OVERFIT_WAITS and self.rise > OVERFIT_RISE and self.trained < self.best_trained

    def said(self) -> str:
        """What that means, in a sentence; "" while the loss falls."""
        if self.waited < OVERFIT_WAITS:
            return ""
        if not self.overfits:
            return (
                f"The validation loss was lowest at step {self.best_step} ({self.best_loss:.4f}); it no longer falls."
            )
        fell = 1 - self.trained / self.best_trained
        return (
            f"Overfitting since step {self.best_step}, where the validation loss was lowest ({self.best_loss:.4f}): it "
            f"has risen by {self.rise:.1%} since, while the loss of trained pictures fell by {fell:.1%}."
        )


@dataclass(frozen=True)
class ValidationPlan:
    """The rule: every `every_steps` and at the end; 0 = never. The run ends where `patience` validations in a row found
    no lower loss; 0 = it does not. `keep_best`: the file of the lowest loss is kept.

    `noise_levels` and `at_once` are of the measurement: noise levels a picture, and samples in a forward pass.
    """

    every_steps: int = 0
    patience: int = 0
    keep_best: bool = True
    noise_levels: int = 4
    at_once: int = 1

    def is_due(self, step: int, max_steps: int) -> bool:
        """Whether to validate after `step` finished steps."""
        return self.every_steps > 0 and (step % self.every_steps == 0 or step == max_steps)

    def after(self, step: int, losses: ValidationLosses, found: ValidationProgress) -> ValidationProgress:
        """What is known after a validation; one that gave no number neither improves nor counts."""
        loss, trained = losses.held_out_mean, losses.trained_mean
        if math.isnan(loss):
            return found
        found = replace(found, step=step, loss=loss, trained=trained)
        if loss < found.best_loss:
            return replace(found, best_step=step, best_loss=loss, best_trained=trained, waited=0)
        return replace(found, waited=found.waited + 1)

    def ends(self, found: ValidationProgress) -> bool:
        """Whether the run ends early."""
        return 0 < self.patience <= found.waited


def _mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses) if losses else math.nan
