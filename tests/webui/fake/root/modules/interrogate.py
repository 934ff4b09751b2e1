"""BLIP as "Interrogate CLIP" has it. No model comes with the fake: a test gives one."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image


class InterrogateModels:
    blip_model: Any = None
    dtype: torch.dtype | None = None
    running_on_cpu = True

    def load_blip_model(self) -> Any:
        raise RuntimeError("the fake has no BLIP")

    def send_blip_to_ram(self) -> None:
        from modules import devices, shared

        if not shared.opts.interrogate_keep_models_in_memory and self.blip_model is not None:
            self.blip_model = self.blip_model.to(devices.cpu)

    def generate_caption(self, pil_image: Image.Image) -> str:
        """`generate` of the model gets the picture as a tensor of `dtype`, and answers with a list of captions."""
        from modules import devices

        pixels = torch.tensor(list(pil_image.convert("RGB").resize((8, 8)).tobytes()), dtype=torch.float32)
        pixels = pixels.reshape(1, 8, 8, 3).permute(0, 3, 1, 2).div(255).type(self.dtype)
        with torch.no_grad():
            return self.blip_model.generate(pixels.to(devices.device_interrogate))[0]
