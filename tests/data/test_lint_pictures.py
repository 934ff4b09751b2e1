"""Small pictures, and captions that are longer than a prompt's places."""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.findings import Finding
from lib_pivotal.data.lint_pictures import caption_length, overruns, too_small
from lib_pivotal.data.records import Picture
from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.prompts import PromptReading

VECTORS = {"aoi": 10, "hana": 60}


def _small(*sides: int, target: int = 512) -> list[Finding]:
    buckets = Buckets(target)
    pictures = [Picture(f"{n}.png", Path("x"), "", side, side, "all") for n, side in enumerate(sides)]
    placed = [(picture, buckets.assign(picture.width_px, picture.height_px)) for picture in pictures]
    return too_small(placed, fitting_px=sorted(sides)[len(sides) // 2], target_px=target)


def test_small_pictures() -> None:
    found = _small(512, 600, 256)
    assert [(f.kind, f.severity, f.keys) for f in found] == [("small_pictures", "warning", ("2.png",))]
    assert "2 times" in found[0].text
    assert [r.arguments["path"] for r in found[0].remedies] == ["data.upscale"]
    assert _small(512, 600, 700) == []


def test_nearly_large_enough_is_only_told_and_most_too_small_asks_for_another_size() -> None:
    assert _small(480, 600, 600)[0].severity == "info"
    remedies = _small(256, 256, 512)[0].remedies
    assert remedies[0].arguments == {"path": "data.resolution_px", "value": 256}


def _over(text: str, words: tuple[str, ...], *, max_tokens: int = 0) -> list[Finding]:
    counter = TokenCounter(VECTORS, PromptReading(lambda part: [hash(p) for p in part.replace(",", " , ").split()]))
    length = caption_length("a.png", text, counter, max_tokens=max_tokens)
    return overruns([length], {"a.png": words}, VECTORS, max_tokens=max_tokens, shuffled=False)


def _tags(count: int) -> str:
    return ", ".join(f"tag{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(count))


def test_a_caption_that_fits() -> None:
    assert _over(f"aoi, {_tags(32)}", ("aoi",)) == []  # 10 + 1 + 32 + 31 = 74


def test_what_falls_into_the_next_chunk_is_named() -> None:
    found = _over(f"aoi, {_tags(35)}", ("aoi",))  # 10 + 35 commas + 35 tags: 80 places
    assert [(f.kind, f.severity, f.keys) for f in found] == [("tokens", "info", ("a.png",))]
    assert "80 at most" in found[0].text
    assert "`tagbh`, `tagbi`" in found[0].text and "`tagbf`" not in found[0].text


def test_what_a_limit_cuts_off_is_named_and_chunks_mend_it() -> None:
    found = _over(f"aoi, {_tags(10)}", ("aoi",), max_tokens=25)
    assert found[0].severity == "warning" and "loses `tagah`, `tagai`, `tagaj`" in found[0].text
    assert found[0].remedies[0].arguments == {"path": "data.max_tokens", "value": 0}
    assert _over(f"aoi, {_tags(7)}", ("aoi",), max_tokens=25) == []


def test_words_that_fit_together() -> None:
    assert overruns([], {"a.png": ("aoi", "hana"), "b.png": ("hana",)}, VECTORS, max_tokens=0, shuffled=False) == []


def test_words_that_are_too_long_together() -> None:
    vectors = {"aoi": 40, "hana": 60}
    counter = TokenCounter(vectors)
    length = caption_length("a.png", "aoi, hana, park", counter, max_tokens=0)
    found = overruns([length], {"a.png": ("aoi", "hana")}, vectors, max_tokens=0, shuffled=False)
    assert [f.kind for f in found] == ["vectors_overrun", "tokens"] and "aoi 40 + hana 60" in found[0].text
    assert found[0].remedy is not None
    fitting = found[0].remedy.arguments["vectors"]
    assert sum(fitting.values()) <= 50 and fitting["hana"] > fitting["aoi"]
