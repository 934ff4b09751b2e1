"""Dynamic loss scaling for fp16.

torch's own scaler needs CUDA in the versions that the web UI pins (2.1); this one holds one number, works on any
device, and is saved with the run's state. The rule is torch.amp.GradScaler's: halve after an overflow, double after
`growth_steps` steps without one.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


class LossScaler:
    """Multiplies the loss, divides the gradients; inactive (`scale` 1, fixed) unless `enabled`."""

    def __init__(self, *, enabled: bool, initial: float = 65536.0, growth_steps: int = 2000) -> None:
        self.enabled = enabled
        self.scale = initial if enabled else 1.0
        self._growth_steps = growth_steps
        self._good_steps = 0

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to call backward on."""
        return loss * self.scale if self.enabled else loss

    def unscale(self, gradients: Iterable[Tensor]) -> None:
        """Divide gradients in place."""
        if self.enabled:
            for gradient in gradients:
                gradient.div_(self.scale)

    def update(self, *, overflowed: bool) -> None:
        """Move the scale after a step."""
        if not self.enabled:
            return
        if overflowed:
            self.scale = max(self.scale / 2, 1.0)
            self._good_steps = 0
            return
        self._good_steps += 1
        if self._good_steps >= self._growth_steps:
            self.scale *= 2
            self._good_steps = 0

    @property
    def at_floor(self) -> bool:
        """True when lowering the scale cannot help: the gradients themselves are not finite."""
        return not self.enabled or self.scale <= 1.0

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "good_steps": float(self._good_steps)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]
        self._good_steps = int(state["good_steps"])
