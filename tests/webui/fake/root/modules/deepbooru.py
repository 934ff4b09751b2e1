"""DeepDanbooru. No model comes with the fake: a test gives one with `tags`, and probabilities as its answer."""

from __future__ import annotations

from typing import Any

import torch
from modules import devices, shared
from PIL import Image


class DeepDanbooru:
    def __init__(self) -> None:
        self.model: Any = None

    def load(self) -> None:
        """As the real one with a refused file: an empty model stays behind, and its weights are None."""
        if self.model is None:
            self.model = torch.nn.Module()
            self.model.load_state_dict(None)

    def start(self) -> None:
        self.load()
        self.model.to(devices.device)

    def stop(self) -> None:
        if not shared.opts.interrogate_keep_models_in_memory:
            self.model.to(devices.cpu)
            devices.torch_gc()

    def tag_multi(self, pil_image: Image.Image, force_disable_ranks: bool = False) -> str:
        opts = shared.opts
        with torch.no_grad():
            pixels = torch.tensor(list(pil_image.convert("RGB").resize((8, 8)).tobytes())).float().div(255)
            probabilities = self.model(pixels.reshape(1, 8, 8, 3))[0].tolist()
        found = dict(zip(self.model.tags, probabilities, strict=True))
        likely = {
            tag: value
            for tag, value in found.items()
            if value >= opts.interrogate_deepbooru_score_threshold and not tag.startswith("rating:")
        }
        order = sorted(likely) if opts.deepbooru_sort_alpha else sorted(likely, key=lambda tag: -likely[tag])
        filtered = {tag.strip().replace(" ", "_") for tag in opts.deepbooru_filter_tags.split(",")}
        texts = []
        for tag in (tag for tag in order if tag not in filtered):
            text = tag.replace("_", " ") if opts.deepbooru_use_spaces else tag
            if opts.deepbooru_escape:
                text = "".join(f"\\{sign}" if sign in "\\()" else sign for sign in text)
            if opts.interrogate_return_ranks and not force_disable_ranks:
                text = f"({text}:{likely[tag]:.3f})"
            texts.append(text)
        return ", ".join(texts)


model = DeepDanbooru()
