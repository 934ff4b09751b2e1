"""Class pictures: the host's own, complete or absent, made once, used by a scan."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lib_pivotal.config import run_from_dict
from lib_pivotal.data.dataset import scan
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.ports import SampleRequest
from lib_pivotal.training.class_pictures import class_pictures, class_requests, make_class_pictures


def _run(**settings):
    return run_from_dict(
        {"seed": 5, "words": [{"name": "aoi"}], "data": {"resolution_px": 100}, "regularisation": settings}
    )


def _requests(count=3, prompts=("1girl", "1boy, hat")):
    template = {"width_px": 64, "height_px": 64, "steps": 2}
    return [SampleRequest(prompts[n % len(prompts)], seed=n, **template) for n in range(count)]


def test_requests_of_a_run():
    found = class_requests(_run(folder="c", prompts=["1girl", "1boy"], count=3, negative_prompt="text"))
    assert [(r.prompt, r.seed) for r in found] == [("1girl", 5), ("1boy", 6), ("1girl", 7)]
    assert all((r.width_px, r.height_px, r.negative_prompt) == (64, 64, "text") for r in found)
    assert [r.prompt for r in class_requests(_run(folder="c", class_text="1girl", count=2))] == ["1girl", "1girl"]
    with pytest.raises(ConfigError, match=r"(?s)regularisation\.folder.*regularisation\.prompts"):
        class_requests(_run())


def test_they_are_the_hosts_own(tiny_host, tmp_path):
    told = []
    made = make_class_pictures(tiny_host, _requests(), tmp_path / "c", progress=lambda *p: told.append(p))
    assert made == 3 and told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    expected = tiny_host.sample(_requests()[:1], {})[0]
    pictures = scan(tmp_path / "c", minimum_px=32).pictures
    assert [picture.caption for picture in pictures] == ["1girl", "1boy, hat", "1girl"]
    with Image.open(pictures[0].path) as image:
        assert np.array_equal(np.asarray(image), np.asarray(expected))
        assert image.text["parameters"] == "1girl\nSteps: 2, CFG scale: 7, Seed: 0, Size: 64x64"


def test_what_is_there_is_not_made_again(tiny_host, tmp_path):
    asked = []
    stop_after = 2
    between = lambda: asked.append(1)  # noqa: E731
    first = make_class_pictures(
        tiny_host, _requests(), tmp_path, between=between, should_stop=lambda: len(asked) >= stop_after
    )
    assert first == 1 and len(list(tmp_path.iterdir())) == 2  # nothing half
    asked.clear()
    assert make_class_pictures(tiny_host, _requests(), tmp_path, between=between) == 3 and len(asked) == 2
    asked.clear()
    assert make_class_pictures(tiny_host, _requests(), tmp_path, between=between) == 3 and asked == []
    changed = [SampleRequest("1girl, hat", width_px=64, height_px=64, steps=2)]
    assert make_class_pictures(tiny_host, changed, tmp_path, between=between) == 1 and asked == [1]


def test_names_tell_what_a_picture_depends_on(tmp_path):
    def name(request, checkpoint="a"):
        return class_pictures([request], tmp_path, checkpoint=checkpoint)[0].path.name

    plain = SampleRequest("1girl")
    others = [SampleRequest("1boy"), SampleRequest("1girl", seed=1), SampleRequest("1girl", negative_prompt="x")]
    names = {name(plain), name(plain, "b"), *(name(other) for other in others)}
    assert len(names) == 5 and name(SampleRequest("1girl")) == name(plain)


def test_a_folder_that_cannot_be_written(tiny_host, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        make_class_pictures(tiny_host, _requests(), tmp_path / "file" / "below")
