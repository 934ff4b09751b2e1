"""ldm's U-Net under its own names, two residual blocks a level as the web UI's table of LoRA names expects."""

from __future__ import annotations

import math

import torch
from ldm.modules.attention import CrossAttention, SpatialTransformer
from torch import Tensor, nn

CHANNELS, LEVELS, BLOCKS = 16, 2, 2


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))


class ResBlock(nn.Module):
    """`use_checkpoint`: ldm's own checkpointing."""

    def __init__(self, width: int, emb_width: int, out: int) -> None:
        super().__init__()
        self.use_checkpoint = True
        self.in_layers = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_width, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(8, out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[..., None, None]
        return self.skip_connection(x) + self.out_layers(h)


class TimestepEmbedSequential(nn.Sequential):
    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps[:, None].float() * frequencies[None].to(timesteps.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class UNetModel(nn.Module):
    """Attention on the upper level and in the middle. `dtype` is the type that its inputs are brought to."""

    def __init__(
        self,
        context_dim: int,
        *,
        in_channels: int = 4,
        adm_in_channels: int | None = None,
        use_linear: bool = False,
        attention: type[nn.Module] = CrossAttention,
    ) -> None:
        super().__init__()
        self.dtype = torch.float32
        emb = 4 * CHANNELS

        def attend(width: int) -> nn.Module:
            return SpatialTransformer(width, context_dim, use_linear=use_linear, attention=attention)

        self.time_embed = nn.Sequential(nn.Linear(CHANNELS, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label_emb = None
        if adm_in_channels is not None:
            inner = nn.Sequential(nn.Linear(adm_in_channels, emb), nn.SiLU(), nn.Linear(emb, emb))
            self.label_emb = nn.Sequential(inner)
        down: list[nn.Module] = [TimestepEmbedSequential(nn.Conv2d(in_channels, CHANNELS, 3, padding=1))]
        widths = [CHANNELS]
        width = CHANNELS
        for level in range(LEVELS):
            for _ in range(BLOCKS):
                out = CHANNELS * (level + 1)
                layers: list[nn.Module] = [ResBlock(width, emb, out)]
                width = out
                down.append(TimestepEmbedSequential(*layers, *([attend(width)] if level == 0 else [])))
                widths.append(width)
            if level < LEVELS - 1:
                down.append(TimestepEmbedSequential(Downsample(width)))
                widths.append(width)
        self.input_blocks = nn.ModuleList(down)
        self.middle_block = TimestepEmbedSequential(
            ResBlock(width, emb, width), attend(width), ResBlock(width, emb, width)
        )
        up: list[nn.Module] = []
        for level in reversed(range(LEVELS)):
            for number in range(BLOCKS + 1):
                out = CHANNELS * (level + 1)
                layers = [ResBlock(width + widths.pop(), emb, out)]
                width = out
                layers += [attend(width)] if level == 0 else []
                layers += [Upsample(width)] if level and number == BLOCKS else []
                up.append(TimestepEmbedSequential(*layers))
        self.output_blocks = nn.ModuleList(up)
        self.out = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        emb = self.time_embed(timestep_embedding(timesteps, CHANNELS).to(x.dtype))
        assert (y is not None) == (
            self.label_emb is not None
        ), "must specify y if and only if the model is class-conditional"
        if y is not None:
            emb = emb + self.label_emb(y.to(x.dtype))
        skips, h = [], x
        for block in self.input_blocks:
            h = block(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb, context)
        return self.out(h)
