"""A matrix as the product of two thin ones by its singular values, and how many of them are kept.

    A = U S V  ~  up · down,   up = U sqrt(S),  down = sqrt(S) V    (the nearest of that rank: Eckart and Young, 1936)

Both halves get the root of the singular values. kohya puts them all into `up`; the product is the same, but in fp16 the
small ones would fall below its normal numbers there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from lib_pivotal.errors import BundleError

MIN_SINGULAR = 1e-6
"""kohya's: a layer whose largest singular value is no larger is taken for nothing."""


@dataclass(frozen=True)
class RankCut:
    """How many singular values of each layer are kept: by `rule` of `RULES` at `value`, at most `rank` (0: any number).

    `conv_rank`: the most of a convolution larger than 1x1; 0: as `rank`.
    """

    rank: int = 0
    rule: str = "rank"
    value: float = 0.0
    conv_rank: int = 0

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            BundleError: which setting, its value, and what it may be.
        """
        if self.rule not in RULES:
            raise BundleError(f"there is no rule {self.rule!r}; choose from {', '.join(RULES)}")
        for name, ranks in (("rank", self.rank), ("conv_rank", self.conv_rank)):
            if ranks < 0:
                raise BundleError(f"{name} = {ranks}: must be 1 or more, or 0 for no limit")
        if self.rule == "rank" and self.rank == 0:
            raise BundleError(f"give a rank, or one of the rules {', '.join(name for name in RULES if name != 'rank')}")
        low, high = LIMITS.get(self.rule, (0.0, float("inf")))
        if self.rule != "rank" and not low < self.value <= high:
            told = f"above {low:g}" + (f" and at most {high:g}" if high < float("inf") else "")
            raise BundleError(f"{self.rule} = {self.value:g}: must be {told}")

    def kept(self, singular: Tensor, *, kernel: int = 1) -> int:
        """How many of a layer's singular values (in falling order) are kept: at least one. `kernel`: its width."""
        if singular.numel() == 0 or float(singular[0]) <= MIN_SINGULAR:
            return 1
        wanted = RULES[self.rule](singular.double(), self.value)
        limit = (self.conv_rank if kernel > 1 else 0) or self.rank or len(singular)
        return max(1, min(wanted, limit, len(singular)))

    def __str__(self) -> str:
        limit = f"rank {self.rank}" if self.rank else ""
        if self.conv_rank:
            limit = f"{limit or 'any rank'}, convolutions {self.conv_rank}"
        if self.rule == "rank":
            return limit
        return f"{self.rule} {self.value:g}" + (f", at most {limit}" if limit else "")


def _share(singular: Tensor, value: float) -> int:
    """Custom Diffusion's: as many as have together no more than this share of the *sum* of the singular values.

    https://github.com/adobe-research/custom-diffusion/blob/26ba6388235ec7b636e38d8bc368ac7243036ae7/src/compress.py#L33-L41
    There 1.0 drops the last one, when rounding has it that way; here it keeps all.
    """
    shares = singular.cumsum(0) / singular.sum()
    return len(singular) if value >= 1 else int((shares <= value).sum())


def _ratio(singular: Tensor, value: float) -> int:
    """kohya's `sv_ratio`: those larger than the largest one / value."""
    return int((singular > singular[0] / value).sum())


def _fro(singular: Tensor, value: float) -> int:
    """kohya's `sv_fro`: the fewest that have this share of the Frobenius norm, the root of the sum of squares."""
    squares = singular.square()
    reached = torch.searchsorted(squares.cumsum(0) / squares.sum(), value**2)
    return int(reached) + 1


RULES: Mapping[str, Callable[[Tensor, float], int]] = MappingProxyType(
    {"rank": lambda singular, value: len(singular), "share": _share, "sv_ratio": _ratio, "sv_fro": _fro}
)
"""How many singular values a rule keeps. `sv_ratio` and `sv_fro` are those of kohya's networks/resize_lora.py:

https://github.com/kohya-ss/sd-scripts/blob/063ef100648c016b6b4d804a6de6f5afab7ebd58/networks/resize_lora.py#L60-L86"""
LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"share": (0.0, 1.0), "sv_ratio": (1.0, float("inf")), "sv_fro": (0.0, 1.0)}
)
"""What the value of a rule must be above, and what it may be at most."""


@dataclass(frozen=True, eq=False)
class Factors:
    """`up` `(out, rank, 1, 1)` and `down` `(rank, in, k, k)`, of a linear layer both without the last two."""

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """Columns of `up`."""
        return self.down.shape[0]


def factored(delta: Tensor, cut: RankCut) -> Factors:
    """The nearest product to a layer's change `(out, in[, k, k])`: LoRA's form, for a convolution LoCon's."""
    matrix = delta.flatten(1)
    if matrix.shape[1] > 2 * matrix.shape[0]:  # 3x3 convolutions: the QR first takes a quarter of the time
        q, r = torch.linalg.qr(matrix.T)
        u, singular, v = torch.linalg.svd(r.T, full_matrices=False)
        v = v @ q.T
    else:
        u, singular, v = torch.linalg.svd(matrix, full_matrices=False)
    return _cut(u, singular, v, cut, shape=delta.shape)


def refactored(up: Tensor, down: Tensor, cut: RankCut) -> Factors:
    """The same of `up · down`, without making the large product: two QRs, and the SVD of rank x rank numbers."""
    q_up, r_up = torch.linalg.qr(up.flatten(1))
    q_down, r_down = torch.linalg.qr(down.flatten(1).T)
    u, singular, v = torch.linalg.svd(r_up @ r_down.T)
    return _cut(q_up @ u, singular, v @ q_down.T, cut, shape=(up.shape[0], *down.shape[1:]))


def _cut(u: Tensor, singular: Tensor, v: Tensor, cut: RankCut, *, shape: tuple[int, ...]) -> Factors:
    rank = cut.kept(singular, kernel=shape[-1] if len(shape) > 2 else 1)
    root = singular[:rank].sqrt()
    up, down = u[:, :rank] * root, root[:, None] * v[:rank]
    return Factors(down.reshape(rank, *shape[1:]), up.reshape(shape[0], rank, *[1] * (len(shape) - 2)))
