"""How often each picture comes: as folders say, by kgrid's tree of folders, or so that all embeddings come alike.

All give *rates*: draws an epoch, of which `data.sampler` makes an order without copying anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal

Balance = Literal["repeats", "tree", "embeddings"]
"""As folders say (their repeats), by kgrid's tree of folders, or all embeddings alike."""
MOST_REPEATS = 100.0
"""kgrid's cap: a folder of one picture would else drown all others' variety."""
EVEN_ROUNDS = 200


def tree_rates(
    keys: Sequence[str], weights: Sequence[tuple[str, float]] = (), *, cap: float = MOST_REPEATS
) -> list[float]:
    """Repeats by kgrid's probability tree, in the order of `keys` (paths with `/`).

    From the root down each folder shares its probability among its sub-folders, and itself if it holds pictures, by
    their weights; a picture's rate is its folder's share over its number of pictures, the least scaled to 1, rounded
    to two places, at most `cap`. `weights`: a folder's name, or a pattern of its path, and its weight; else 1. Source:
    https://github.com/cyber-meow/anime_screenshot_pipeline/blob/c9e3fb8/anime2sd/balancing.py, `WeightTree`; there
    folders that hold nothing but other files have no part either.
    """
    folders = [PurePosixPath(key).parent.as_posix() for key in keys]
    counts: dict[str, int] = defaultdict(int)
    children: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        counts[folder] += 1
    for folder in counts:
        path = PurePosixPath(folder)
        for child, parent in zip((path, *path.parents), path.parents, strict=False):
            children[parent.as_posix()].add(child.as_posix())
    shares: dict[str, float] = {}
    waiting = [(".", 1.0)]
    while waiting:
        folder, share = waiting.pop()
        parts = [(child, _weight(child, weights)) for child in sorted(children[folder])]
        own = _weight(folder, weights) if folder in counts else 0.0
        total = sum(weight for _, weight in parts) + own
        if total <= 0:
            continue
        if own > 0:
            shares[folder] = share * own / total
        waiting += [(child, share * weight / total) for child, weight in parts if weight > 0]
    rates = [shares.get(folder, 0.0) / counts[folder] for folder in folders]
    least = min((rate for rate in rates if rate > 0), default=1.0)
    return [min(round(rate / least, 2), cap) for rate in rates]


def _weight(folder: str, weights: Sequence[tuple[str, float]]) -> float:
    name = PurePosixPath(folder).name
    named = [weight for pattern, weight in weights if pattern == name]
    matching = [weight for pattern, weight in weights if fnmatchcase(folder, pattern)]
    return (named or matching or [1.0])[0]


def even_rates(
    base: Sequence[float], embeddings: Sequence[Sequence[str]], *, cap: float = MOST_REPEATS, rounds: int = EVEN_ROUNDS
) -> list[float]:
    """Rates at which every embedding comes about equally often, as near to `base` as may be; the mean stays 1 a
    picture.

    `embeddings` names each picture's embeddings. Iterative proportional fitting: each embedding's pictures are scaled
    to the common mean in turn (Deming & Stephan 1940); a picture of two embeddings answers to both, so where the
    embeddings never part the result is the nearest that exists. No rate leaves `base / cap` to `base * cap`.
    """
    rates = [float(rate) for rate in base]
    pictures: dict[str, list[int]] = defaultdict(list)
    for index, names in enumerate(embeddings):
        for name in dict.fromkeys(names):
            pictures[name].append(index)
    alive = {name: mine for name, mine in pictures.items() if sum(rates[i] for i in mine) > 0}
    if len(alive) < 2:
        return rates
    for _ in range(rounds):
        totals = {name: sum(rates[i] for i in mine) for name, mine in alive.items()}
        wanted = sum(totals.values()) / len(totals)
        if max(totals.values()) <= 1.0005 * min(totals.values()):
            break
        for mine in alive.values():
            factor = (wanted / max(sum(rates[i] for i in mine), 1e-12)) ** 0.5  # damped: shared pictures else swing
            for i in mine:
                rates[i] = min(max(rates[i] * factor, base[i] / cap), base[i] * cap)
    scale = sum(base) / sum(rates)
    return [rate * scale for rate in rates]


def with_embedding_weights(
    rates: Sequence[float], embeddings: Sequence[Sequence[str]], weights: Mapping[str, float]
) -> list[float]:
    """Rates times the product of the weights of each picture's embeddings."""
    result = []
    for rate, names in zip(rates, embeddings, strict=True):
        for name in names:
            rate *= weights.get(name, 1.0)
        result.append(rate)
    return result
