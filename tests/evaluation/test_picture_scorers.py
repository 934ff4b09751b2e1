"""Scorers that the user has: found as entry points, with the avatars' judge as the example."""

import importlib.metadata
import random
from importlib.metadata import EntryPoint

import pytest
from PIL import Image

from examples.avatars.characters import character_avatar
from examples.avatars.scores import load_scorer
from examples.avatars.step_scorer import AvatarScorer
from examples.avatars.world import render
from lib_pivotal.errors import HostError
from lib_pivotal.evaluation import picture_scorers
from lib_pivotal.evaluation.picture_scorers import GROUP, ScoredPicture, found_scorers, mean_score, scorer_of


class Brightness:
    """Knows nothing of pictures of nobody."""

    def score(self, pictures):
        return [one.picture.convert("L").getpixel((0, 0)) / 255 if one.embedding else None for one in pictures]


class Broken:
    def __init__(self):
        raise RuntimeError("no model file")


@pytest.fixture
def installed(monkeypatch):
    points = [
        EntryPoint("avatars", "examples.avatars.step_scorer:AvatarScorer", GROUP),
        EntryPoint("brightness", f"{__name__}:Brightness", GROUP),
        EntryPoint("broken", f"{__name__}:Broken", GROUP),
    ]

    def entry_points(*, group):
        return [point for point in points if point.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_none_is_bundled():
    assert not picture_scorers.SCORERS


def test_installed_ones_are_found_and_loaded(installed):
    assert set(found_scorers()) == {"avatars", "brightness", "broken"}
    white, black = (Image.new("RGB", (4, 4), colour) for colour in ("white", "black"))
    scorer = scorer_of("brightness")
    shown = [ScoredPicture(white, "aoi", "aoi"), ScoredPicture(black, "aoi", "aoi"), ScoredPicture(white, "park")]
    assert mean_score(scorer, shown) == 0.5 and mean_score(scorer, shown[2:]) is None


def test_what_is_not_there_or_fails_is_told(installed):
    with pytest.raises(HostError, match="no picture scorer 'ccip'; there is avatars, brightness, broken"):
        scorer_of("ccip")
    with pytest.raises(HostError, match="cannot be loaded .RuntimeError: no model file"):
        scorer_of("broken")
    with pytest.raises(HostError, match="'x' failed"):
        mean_score(scorer_of("brightness"), [ScoredPicture(None, "", "aoi")], name="x")


def test_the_avatars_judge_knows_its_characters():
    """Against the judge itself: a character's renders, and those of another one."""
    shown = [
        render(character_avatar(name, random.Random(number))) for number in range(3) for name in ("akavell", "corrixa")
    ]
    asked = [ScoredPicture(picture, "akavell, park", "akavell") for picture in shown]
    scores = AvatarScorer().score(asked)
    judge = load_scorer()
    assert scores == pytest.approx([judge.identity([picture], "akavell") for picture in shown], abs=1e-6)
    assert min(scores[::2]) > max(scores[1::2])
    assert AvatarScorer().score([ScoredPicture(shown[0], "somebody", "somebody")]) == [None]
