"""How an embedding is adjusted when it is used: two numbers, and how a prompt's tag spells them.

`NAME*NORM~SHARE`, as in `hana*0.8~0.2`: the norm of every vector times 0.8, its direction 0.2 of the way to the init
text's. `slerp` has the formula. Nothing here needs torch: tags are read before anything is made.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lib_pivotal.errors import EmbeddingNameError

TAG_FIELD = "emb="
"""How a field of a tag begins that adjusts an embedding, `<lora:gekidol:1:emb=hana*0.8~0.2>`; one field an embedding.
To the web UI it is a named argument, of which it reads `te`, `unet` and `dyn` only (Lora/extra_networks_lora.py)."""

_NUMBER = r"\d+\.?\d*|\.\d+"
_SPELLED = re.compile(rf"(?P<name>[^:=<>#]+?)(?:\*(?P<norm>{_NUMBER}))?(?:~(?P<share>{_NUMBER}))?")
_UNSPELLABLE = re.compile(r"[:=<>#]")


@dataclass(frozen=True)
class EmbeddingAdjustment:
    """`norm`: factor of every vector's norm, 0 or more. `init_share`: how far its direction goes to the init text's,
    from 0 (stays) to 1 (is the init text's)."""

    norm: float = 1.0
    init_share: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.norm) and self.norm >= 0):
            raise EmbeddingNameError(f"norm = {self.norm:g}: must be 0 or above; 1 leaves the norm as it is")
        if not 0 <= self.init_share <= 1:
            raise EmbeddingNameError(f"init share = {self.init_share:g}: must be from 0 to 1; 0 leaves the direction")

    @property
    def changes_nothing(self) -> bool:
        """Whether the vectors stay as they are, bit for bit."""
        return self.norm == 1 and self.init_share == 0


def read_adjustment(text: str) -> tuple[str, EmbeddingAdjustment]:
    """The embedding's name and its adjustment; a number that is left out changes nothing.

    >>> read_adjustment("hana~0.2")
    ('hana', EmbeddingAdjustment(norm=1.0, init_share=0.2))

    Raises:
        EmbeddingNameError: it is not `NAME*NORM~SHARE`, or a number is out of its range.
    """
    found = _SPELLED.fullmatch(text.strip())
    if found is None or (found["norm"] is None and found["share"] is None):
        raise EmbeddingNameError(f"{text!r} is not NAME*NORM~SHARE, for example hana*0.8~0.2")
    return found["name"], EmbeddingAdjustment(float(found["norm"] or 1), float(found["share"] or 0))


def read_adjustments(text: str) -> dict[str, EmbeddingAdjustment]:
    """Several, with blanks or commas between; or as they stand in a prompt's tag, whose other fields are passed over.

    Raises:
        EmbeddingNameError: as `read_adjustment`.
    """
    fields = re.findall(rf"(?<=:){TAG_FIELD}([^:>]*)", text)
    return dict(map(read_adjustment, fields or re.split(r"[\s,]+", text.strip(" \t\n,"))))


def spelled(name: str, adjustment: EmbeddingAdjustment) -> str:
    """`NAME*NORM~SHARE`, both numbers always: a name may hold `*` and `~` itself, and is then still read back.

    Raises:
        EmbeddingNameError: the name holds what a tag gives a meaning to.
    """
    if _UNSPELLABLE.search(name):
        raise EmbeddingNameError(
            f"the embedding {name!r} cannot be named in a tag, for one of `: = < > #` in it; rename it"
        )
    return f"{name}*{adjustment.norm:g}~{adjustment.init_share:g}"
