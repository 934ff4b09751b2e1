"""A tiny CLIP text model and words whose weights follow from a formula: the same on every machine and torch."""

import torch
from transformers import CLIPTextConfig, CLIPTextModel

WIDTH = 8


def wave(shape: tuple[int, ...], *, phase: float, scale: float) -> torch.Tensor:
    """Numbers without pattern, between -scale and scale."""
    count = int(torch.tensor(shape).prod())
    index = torch.arange(1, count + 1, dtype=torch.float64)
    return (torch.sin(index * 12.9898 + phase) * 43758.5453).frac().float().reshape(shape) * scale


def tiny_text_model() -> CLIPTextModel:
    """Full CLIP vocabulary, width 8, 3 layers; the final layer norm is off centre, as trained ones are."""
    model = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=WIDTH,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            pad_token_id=49407,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    ).eval()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            parameter.copy_(wave(tuple(parameter.shape), phase=number, scale=0.5))
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
        model.text_model.final_layer_norm.bias.add_(0.3)
    return model


def tiny_embeddings(sizes: dict[str, int]) -> dict[str, tuple[torch.Tensor, ...]]:
    """Vectors by name."""
    return {
        name: (wave((count, WIDTH), phase=100.0 + number, scale=1.0),)
        for number, (name, count) in enumerate(sizes.items())
    }
