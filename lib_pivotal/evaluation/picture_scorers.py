"""Scores of pictures by programs that the user has: an interface, and where they are found. None is bundled.

A scorer is a class without arguments that satisfies `PictureScorer`. An installed package offers it as an entry point:

    [project.entry-points."lib_pivotal.picture_scorers"]
    ccip = "my_package.scorers:CcipScorer"
"""

from __future__ import annotations

import importlib.metadata
import logging
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from PIL import Image

from lib_pivotal.errors import HostError

GROUP = "lib_pivotal.picture_scorers"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredPicture:
    """A picture, the prompt that it was made of, and the embedding in it (empty: none)."""

    picture: Image.Image
    prompt: str
    embedding: str = ""


class PictureScorer(Protocol):
    """Looks at pictures. It is made when it is asked for, so it may load its model then."""

    def score(self, pictures: Sequence[ScoredPicture]) -> Sequence[float | None]:
        """A number from 0 (bad) to 1 (good) a picture; None where it can say nothing of one."""
        ...


SCORERS: Mapping[str, Callable[[], PictureScorer]] = MappingProxyType({})
"""Those of this package, by name: there are none, since each needs a model."""


def found_scorers() -> dict[str, Callable[[], PictureScorer]]:
    """Every scorer that can be asked for, by name: ours, and those that installed packages offer."""
    installed = {entry.name: _loading(entry) for entry in importlib.metadata.entry_points(group=GROUP)}
    return {**installed, **SCORERS}


def scorer_of(name: str) -> PictureScorer:
    """The scorer of a name, with its model loaded.

    Raises:
        HostError: there is none, or it cannot be loaded.
    """
    found = found_scorers()
    if name not in found:
        there = ", ".join(sorted(found)) or "none: install a package that offers one (docs/steps.md)"
        raise HostError(f"no picture scorer {name!r}; there is {there}")
    try:
        return found[name]()
    except Exception as error:  # somebody else's code
        logger.warning("the picture scorer %s cannot be loaded", name, exc_info=True)
        raise HostError(f"the picture scorer {name!r} cannot be loaded ({type(error).__name__}: {error})") from error


def mean_score(scorer: PictureScorer, pictures: Sequence[ScoredPicture], *, name: str = "") -> float | None:
    """The mean over pictures of which the scorer says something; None where there are none.

    Raises:
        HostError: it failed, or its answer is none.
    """
    try:
        scores = [float(score) for score in scorer.score(pictures) if score is not None]
    except Exception as error:  # as above
        raise HostError(f"the picture scorer {name!r} failed ({type(error).__name__}: {error})") from error
    return statistics.fmean(scores) if scores else None


def embedding_of(prompt: str, names: Iterable[str]) -> str:
    """Whose picture it is: the embedding that stands first in the prompt; empty where none does.

    >>> embedding_of("aoi, park", ["hana", "aoi"])
    'aoi'
    """
    places = {name: prompt.find(name) for name in names if name and name in prompt}
    return min(places, key=lambda name: (places[name], -len(name)), default="")


def _loading(entry: importlib.metadata.EntryPoint) -> Callable[[], PictureScorer]:
    def load() -> PictureScorer:
        scorer: PictureScorer = entry.load()()
        return scorer

    return load
