"""What a text encoder makes of a prompt, place by place: the outputs that the U-Net reads.

Only prompts of one chunk are read here: place 0 is the start, then come the tokens and the rows of embeddings, then the
end and the padding, 77 in all. The causal mask of CLIP lets a place see those before it and itself alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lib_pivotal.data.captions import as_letters
from lib_pivotal.ports import EmbeddingVectors, TextEncoder
from lib_pivotal.prompts import CHUNK_LENGTH

PLACES = CHUNK_LENGTH + 2
"""Of a chunk, with start and end."""


@dataclass(frozen=True, eq=False)
class TextOutputs:
    """`towers`: `(prompts, 77, width)` fp32 each, as the U-Net gets them; `pooled` `(prompts, width)`: SDXL's."""

    towers: tuple[Tensor, ...]
    pooled: Tensor | None


def encode(encoder: TextEncoder, prompts: Sequence[str], embeddings: EmbeddingVectors) -> TextOutputs:
    """The outputs of prompts of one chunk; differentiable in `embeddings`."""
    found = encoder.encode(prompts, embeddings)
    towers = found.context[:, :PLACES].float().split(list(encoder.widths), dim=-1)
    return TextOutputs(tuple(towers), None if found.pooled is None else found.pooled.float())


def literal(text: str) -> str:
    """A text as part of a prompt, in which brackets are letters."""
    return as_letters(text)


def count(encoder: TextEncoder, text: str) -> int:
    """Tokens of a text taken literally."""
    return len(encoder.token_ids(text))
