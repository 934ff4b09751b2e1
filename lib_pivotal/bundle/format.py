"""The bundle format: how keys are spelled, which names are legal, what the metadata keys are called.

A bundle is a kohya LoRA file (safetensors) that also holds embeddings. An embedding's tensors are stored under
`bundle_emb.<name>.<tensor>`; everything else is the network. `docs/bundle-format.md` is this module in prose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:  # the rules of names must be readable without torch
    from torch import Tensor

EmbeddingTensors: TypeAlias = "tuple[Tensor, ...]"
"""The vectors of one embedding: a tensor `(vectors, width)` a text tower. SD1, SD2: one; SDXL: CLIP-L, OpenCLIP-G."""

Family = Literal["sd1", "sd2", "sdxl", "unknown"]

BUNDLE_PREFIX = "bundle_emb."
SD1_TENSOR = "string_to_param.*"
SDXL_TENSORS = ("clip_l", "clip_g")

MAX_VECTORS = 75
"""A chunk of a prompt has 75 places; the web UI crashes on an embedding that is longer."""

WIDTHS: dict[tuple[int, ...], Family] = {(768,): "sd1", (1024,): "sd2", (768, 1280): "sdxl"}
"""Token widths of the known families. Other widths (tiny test models) are legal and say nothing about the family."""

_KNOWN_WIDTHS = frozenset({768, 1024, 1280, 2048})

META_MODEL_HASH = "sshs_model_hash"
META_LEGACY_HASH = "sshs_legacy_hash"
META_SPEC_HASH = "modelspec.hash_sha256"
"""ModelSpec: `0x` and the SHA-256 of the data part."""
META_TRAINING_PREFIX = "ss_"
META_FORMAT = "pivotal.format"
META_EMBEDDINGS = "pivotal.words"
META_RUN = "pivotal.run"
META_RECOMMENDED = "pivotal.recommended"
META_CARD = "pivotal.card"
META_SOFTWARE = "pivotal.software"
META_PART = "pivotal.part"
META_ALPHA_DTYPE = "pivotal.alpha_dtype"
FORMAT_VERSION = "1"

_STRING_TO_PARAM = "string_to_param"


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file: `error` means that a part could not be used, `warning` that it could.

    `word` and `key` say where, as far as it is known; `remedy` says what to do.
    """

    severity: Literal["error", "warning"]
    what: str
    remedy: str = ""
    embedding: str = ""
    key: str = ""

    def __str__(self) -> str:
        where = f"embedding {self.embedding!r}: " if self.embedding else f"{self.key}: " if self.key else ""
        text = f"{self.severity}: {where}{self.what}"
        return f"{text}. {self.remedy}" if self.remedy else text


@dataclass(frozen=True)
class EmbeddingKey:
    """A key of an embedding, taken apart: `bundle_emb.<name>.<tensor>`."""

    name: str
    tensor: str


def is_embedding_key(key: str) -> bool:
    """Whether a tensor's key belongs to an embedding."""
    return key.startswith(BUNDLE_PREFIX) or key == BUNDLE_PREFIX.rstrip(".")


def parse_embedding_key(key: str) -> EmbeddingKey | None:
    """Take an embedding's key apart, from the right, so that names with dots survive. None: no name or no tensor in it.

    >>> parse_word_key("bundle_emb.v1.5-girl.string_to_param.*")
    WordKey(name='v1.5-girl', tensor='string_to_param.*')
    """
    if not key.startswith(BUNDLE_PREFIX):
        return None
    rest = key[len(BUNDLE_PREFIX) :]
    head, marker, tail = rest.rpartition(f".{_STRING_TO_PARAM}.")
    if marker:
        return EmbeddingKey(head, f"{_STRING_TO_PARAM}.{tail}") if head else None
    name, dot, last = rest.rpartition(".")
    if not dot or not name or not last:
        return None
    return EmbeddingKey(name, last)


def embedding_keys(name: str, towers: int) -> tuple[str, ...]:
    """The keys that we write for an embedding: one for SD1 and SD2, two for SDXL."""
    tensors = (SD1_TENSOR,) if towers == 1 else SDXL_TENSORS
    return tuple(f"{BUNDLE_PREFIX}{name}.{tensor}" for tensor in tensors)


def check_widths(widths: Sequence[int]) -> str | None:
    """Why these token widths cannot belong to one embedding, or None. Widths of no known family are let through."""
    shown = " + ".join(str(width) for width in widths)
    if not widths or any(width < 1 for width in widths):
        return f"widths {shown or 'none'} are not the widths of token vectors"
    if len(widths) > 2:
        return f"{len(widths)} text towers ({shown}); at most two are known"
    if len(widths) == 1 and widths[0] in (1280, 2048):
        return f"width {shown} alone fits no model; SDXL needs 768 (clip_l) and 1280 (clip_g)"
    if len(widths) == 2 and _KNOWN_WIDTHS & set(widths) and tuple(widths) != (768, 1280):
        return f"widths {shown} do not make a pair; SDXL has 768 (clip_l) and 1280 (clip_g)"
    return None


def check_vectors(vectors: int) -> str | None:
    """Why an embedding cannot have so many vectors, or None."""
    if vectors < 1:
        return "has no vectors"
    if vectors > MAX_VECTORS:
        return f"has {vectors} vectors; a prompt's chunk has room for {MAX_VECTORS}"
    return None


def family_of_widths(widths: Sequence[int]) -> Family:
    """The model family whose token vectors have these widths."""
    return WIDTHS.get(tuple(widths), "unknown")
