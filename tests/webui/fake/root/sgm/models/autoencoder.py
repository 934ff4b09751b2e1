"""sgm's autoencoder for SDXL: `AutoencoderKLInferenceWrapper.encode` draws from what its base class gives."""

from __future__ import annotations

import ldm.models.autoencoder
from torch import Tensor


class AutoencoderKL(ldm.models.autoencoder.AutoencoderKL):
    pass


class AutoencoderKLInferenceWrapper(AutoencoderKL):
    def encode(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().encode(x).sample()
