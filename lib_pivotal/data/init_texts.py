"""The init text of an embedding from its tags, and how many vectors hold all of it: no tag is cut in the middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lib_pivotal.data.tags import TagShare, init_text
from lib_pivotal.data.tokens import estimated_tokens

VECTORS = 4
"""Of an embedding of which nothing is known."""
RANDOM_VECTORS = 4
"""Beside what the init text takes, for what no tag says. On the avatars, vectors that could not hold the init text
left nothing in the embeddings (docs/evidence.md)."""
MOST_VECTORS = 16
INIT_STD = 0.017
"""Spread of random vectors in an init text: about that of CLIP's own rows, and HCP's example."""


def begin(
    tags: Sequence[str],
    count: Callable[[str], int] = estimated_tokens,
    *,
    most: int = MOST_VECTORS,
    random: int = RANDOM_VECTORS,
    std: float = INIT_STD,
) -> tuple[str, int]:
    """Init text and vectors of an embedding that begins with `tags`: as many rows as these take, and `random` ones.

    Overlapping tags are said once; what is beyond `most` vectors is left out, the rarest tags first.
    """
    chosen: list[str] = []
    places = 0
    for tag in tags:
        places += count(tag)
        if not tag or places > most - random:
            break
        chosen.append(tag)
    if not chosen:
        return "", VECTORS
    shares = [TagShare(tag, 1.0 - 0.001 * index) for index, tag in enumerate(chosen)]  # keeps their order
    tags_alone = init_text(shares, random_vectors=0)
    taken = sum(count(tag) for tag in tags_alone.split(", "))
    return init_text(shares, std=std, random_vectors=random), min(max(VECTORS, taken + random), max(most, taken))
