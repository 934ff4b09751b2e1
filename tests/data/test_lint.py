"""Each kind of warning about words and captions: a dataset that has it, and one that has not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.commands import datasets
from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.captions import Cut
from lib_pivotal.data.lint import (
    ASYMMETRIC,
    LETTERS,
    SAYS_SIDE,
    SIDE,
    UNNAMED_MARK,
    caption_length,
    cut_remarks,
    embedding_warnings,
    mirror_remarks,
    mirror_warnings,
    overruns,
    reasons,
    too_small,
    unnamed_mark,
)
from lib_pivotal.data.lint_warnings import LintWarning
from lib_pivotal.data.pruning import EmbeddingRules, PrunedCaptions, TagRules
from lib_pivotal.data.records import Picture
from lib_pivotal.data.tags import same_tag
from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.prompts import PromptReading
from lib_pivotal.standalone.cli import main
from tests.conftest import write_pictures

PLACES = ("park", "sky", "sea", "city")


def pictures(*captions: str | tuple[str, str]) -> list[Picture]:
    """`(concept, caption)`, or captions of one folder."""
    pairs = [("all", text) if isinstance(text, str) else text for text in captions]
    return [Picture(f"{c}/{n}.png", Path("x"), text, 64, 64, c) for n, (c, text) in enumerate(pairs)]


def lint(
    captions: list[Picture], *uses: EmbeddingRules | str, rules: TagRules | None = None
) -> dict[str, list[LintWarning]]:
    """Warnings by kind."""
    embeddings = [EmbeddingRules(use) if isinstance(use, str) else use for use in uses]
    found: dict[str, list[LintWarning]] = {}
    for warning in embedding_warnings(PrunedCaptions(captions, embeddings, rules or TagRules())):
        found.setdefault(warning.kind, []).append(warning)
    return found


SOUND = [f"{name}, {tag}" for name in ("aoi", "hana") for tag in PLACES]


def test_a_sound_set_has_no_finding() -> None:
    assert lint(pictures(*SOUND), "aoi", "hana") == {}


# -- never, always


def test_an_embedding_that_no_caption_has() -> None:
    found = lint(pictures(*SOUND), "aoi", "hana", "kaze")["word_never"]
    assert [(f.severity, f.embeddings, [r.id for r in f.fixes]) for f in found] == [
        ("error", ("kaze",), ["remove_word"]),
    ]


def test_an_embedding_that_no_caption_has_but_a_folder_is_called_so() -> None:
    mixed = pictures(*(("Kaze Hino", f"1girl, {tag}") for tag in PLACES), *(("b", f"aoi, {tag}") for tag in PLACES))
    fix = lint(mixed, "aoi", "kaze-hino")["word_never"][0].fix
    assert fix is not None
    assert (fix.id, fix.arguments) == ("apply_to", {"embedding": "kaze-hino", "pattern": "concept:Kaze Hino"})


def test_an_embedding_that_every_caption_has() -> None:
    everywhere = pictures(*(f"ink, {caption}" for caption in SOUND))
    found = lint(everywhere, "aoi", "hana", "ink")["word_always"]
    assert [(f.severity, f.embeddings) for f in found] == [("warning", ("ink",))] and found[0].fix is not None
    assert "word_always" not in lint(pictures(*SOUND, *(f"ink, {tag}" for tag in PLACES)), "aoi", "hana", "ink")


def test_a_single_embedding_that_every_caption_has_is_no_fault() -> None:
    found = lint(pictures(*(f"aoi, {tag}" for tag in PLACES)), "aoi")["word_always"]
    assert [(f.severity, f.fixes) for f in found] == [("info", ())]
    assert "word_always" not in lint(pictures("aoi, park"), "aoi")


# -- apart


def test_embeddings_that_never_part() -> None:
    together = pictures(*(f"aoi, cat-ears-x, {tag}" for tag in PLACES), *(f"hana, {tag}" for tag in PLACES))
    found = lint(together, "aoi", "cat-ears-x", "hana")["words_never_apart"]
    assert found[0].embeddings == ("aoi", "cat-ears-x") and len(found[0].keys) == 4
    assert found[0].fix is not None and found[0].fix.arguments == {"embedding": "cat-ears-x"}
    apart = pictures(*(f"aoi, cat-ears-x, {tag}" for tag in PLACES), "aoi, park", "cat-ears-x, park", *SOUND)
    assert "words_never_apart" not in lint(apart, "aoi", "cat-ears-x", "hana")


def test_a_style_that_only_its_own_characters_have() -> None:
    captions = [f"{name}, ink, {tag}" for name in ("aoi", "hana") for tag in PLACES]
    others = [f"kaze, {tag}" for tag in PLACES]
    found = lint(pictures(*captions, *others), "aoi", "hana", "ink", "kaze")["word_explained"]
    assert [(f.severity, f.embeddings) for f in found] == [("warning", ("ink", "aoi", "hana"))]
    one_apart = pictures(*captions, *others, "aoi, park")  # then aoi is not ink's alone, but hana is: ink has aoi's
    assert "word_explained" not in lint(one_apart, "aoi", "hana", "ink", "kaze")


def test_forms_explain_their_character_and_that_is_meant() -> None:
    captions = [f"aoi, {form}, {tag}" for form in ("aoi-red", "aoi-blue") for tag in PLACES]
    captions = [
        c.replace("aoi-red,", "aoi-red, red coat,").replace("aoi-blue,", "aoi-blue, blue coat,") for c in captions
    ]
    uses = (EmbeddingRules("aoi"), EmbeddingRules("aoi-red", form_of="aoi"), EmbeddingRules("aoi-blue", form_of="aoi"))
    assert "word_explained" not in lint(pictures(*captions, *(f"hana, {t}" for t in PLACES)), *uses, "hana")


@pytest.mark.parametrize(("tag", "told"), [("", True), (", red coat", False)])
def test_an_embedding_that_nothing_marks_among_anothers_pictures(tag: str, told: bool) -> None:
    winter = [f"aoi, aoi-winter{tag}, {place}" for place in PLACES * 2]
    captions = [*winter, *(f"aoi, {place}" for place in PLACES * 2), *(f"hana, {place}" for place in PLACES)]
    found = lint(pictures(*captions), "aoi", "aoi-winter", "hana").get("word_explained", [])
    assert [(f.severity, f.embeddings) for f in found] == ([("info", ("aoi-winter", "aoi"))] if told else [])


def test_other_embeddings_tell_an_embedding_apart_in_a_style() -> None:
    """All of aoi's pictures are in ink, and ink's others are hana's: the words say which is which."""
    captions = [f"{name}, ink, {tag}" for name in ("aoi", "hana") for tag in PLACES] + [f"hana, {t}" for t in PLACES]
    assert "word_explained" not in lint(pictures(*captions), "aoi", "hana", "ink")


# -- captions without a word


def test_a_caption_that_lacks_its_folders_embedding() -> None:
    captions = [("aoi", f"aoi, {tag}") for tag in PLACES] + [("aoi", "1girl, park")]
    captions += [("hana", f"hana, {tag}") for tag in PLACES]
    found = lint(pictures(*captions), "aoi", "hana")["no_word"]
    assert [(f.severity, f.keys, f.embeddings) for f in found] == [("warning", ("aoi/4.png",), ("aoi",))]
    assert found[0].fix is not None
    assert found[0].fix.arguments == {"embedding": "aoi", "pattern": "concept:aoi"}


def test_captions_of_nobody_are_only_told() -> None:
    captions = [("aoi", f"aoi, {tag}") for tag in PLACES] + [("others", f"1girl, {tag}") for tag in PLACES]
    found = lint(pictures(*captions), "aoi")["no_word"]
    assert [(f.severity, len(f.keys), f.fixes) for f in found] == [("info", 4, ())]
    assert "no_word" not in lint(pictures(*SOUND), "aoi", "hana")


def test_an_embedding_that_a_template_writes_is_there() -> None:
    wording = PrunedCaptions(
        pictures("park", "sky"), [EmbeddingRules("aoi")], TagRules(), extra=lambda picture: ("aoi",)
    )
    assert {warning.kind for warning in embedding_warnings(wording)} == {"word_always"}


# -- tags that the word should be


def test_tags_that_describe_the_embedding() -> None:
    captions = [f"aoi, blue hair, {tag}" for tag in PLACES] + [f"hana, green hair, {tag}" for tag in PLACES]
    found = lint(pictures(*captions), "aoi", EmbeddingRules("hana", prune=True))["tags_describe_word"]
    assert [(f.severity, f.embeddings) for f in found] == [("warning", ("aoi",))]
    assert "blue hair (100%)" in found[0].text and len(found[0].keys) == 4
    assert found[0].fix is not None and found[0].fix.arguments == {"embedding": "aoi", "tags": []}
    absorbing = (EmbeddingRules("aoi", prune=True), EmbeddingRules("hana", prune=True))
    assert "tags_describe_word" not in lint(pictures(*captions), *absorbing)


def test_what_an_embedding_always_wears_may_belong_to_it() -> None:
    captions = [f"aoi, red kimono, {tag}" for tag in PLACES] + [f"hana, {tag}" for tag in PLACES]
    found = lint(pictures(*captions), EmbeddingRules("aoi", prune=True), "hana")["tags_describe_word"]
    assert [(f.severity, f.embeddings) for f in found] == [("info", ("aoi",))]
    assert found[0].fix is not None and found[0].fix.arguments == {"embedding": "aoi", "tags": ["red kimono"]}
    kept = EmbeddingRules("aoi", prune=True, keep_tags=("red kimono",))
    assert "tags_describe_word" not in lint(pictures(*captions), kept, "hana")


@pytest.mark.parametrize("tag", ["smile", "white background", "1girl", "masterpiece", "looking at viewer"])
def test_what_is_of_the_picture_is_never_the_embeddings(tag: str) -> None:
    captions = [f"aoi, {tag}, {place}" for place in PLACES] + [f"hana, {place}" for place in PLACES]
    assert "tags_describe_word" not in lint(pictures(*captions), EmbeddingRules("aoi", prune=True), "hana")


def test_a_style_absorbs_nothing() -> None:
    captions = [f"{name}, ink, sketch, {tag}" for name in ("aoi", "hana", "kaze") for tag in PLACES]
    captions += [f"{name}, {tag}" for name in ("aoi", "hana", "kaze") for tag in PLACES]
    found = lint(pictures(*captions), "aoi", "hana", "kaze", "ink").get("tags_describe_word", [])
    assert not any("ink" in warning.embeddings for warning in found)


def test_reasons() -> None:
    assert reasons("aoi, Heterochromia, (side_ponytail:1.2), smile") == {
        "Heterochromia": SIDE,
        "(side_ponytail:1.2)": SIDE,
    }
    assert reasons("1girl, english text, sword in left hand") == {
        "english text": LETTERS,
        "sword in left hand": SAYS_SIDE,
    }
    assert reasons("bright eyes, copyright, upright, twintails, standing") == {}
    assert reasons("") == {}


def test_tags_are_spelled_as_they_are_compared() -> None:
    assert all(same_tag(tag) == tag for tag in ASYMMETRIC)
    assert {"eyepatch", "heterochromia", "side ponytail", "asymmetrical legwear", "mole under eye"} <= set(ASYMMETRIC)


def test_warnings_by_embedding() -> None:
    pictures = {
        "aoi": [(f"a{n}.png", "aoi, eyepatch, smile" if n < 5 else "aoi, smile") for n in range(10)],
        "hana": [(f"h{n}.png", "hana, hat, eyepatch" if n == 0 else "hana, hat") for n in range(10)],
        "taro": [(f"t{n}.png", "taro, text" if n == 0 else "taro") for n in range(10)],
        "none": [],
    }
    problems = mirror_warnings(pictures)
    assert [problem.message.split(":")[0] for problem in problems] == ["aoi", "taro"]
    assert all(problem.level == "warning" and problem.code == "mirrored" for problem in problems)
    assert problems[0].keys == tuple(f"a{n}.png" for n in range(5)) and "eyepatch (5 of 10" in problems[0].message
    assert problems[1].keys == ("t0.png",) and "Turn mirroring off" in problems[1].message
    many = mirror_warnings({"aoi": [("a.png", ", ".join(list(ASYMMETRIC)[:7]))]})
    assert "and 3 more" in many[0].message


def _picture(key: str, size: tuple[int, int] = (64, 64), caption: str = "x") -> Picture:
    return Picture(key, Path(key), caption, *size, "x")


def test_nothing_where_everything_fits() -> None:
    assert cut_remarks([_picture("a"), _picture("b")], Buckets(64)) == []
    assert cut_remarks([], Buckets(64)) == []


def test_one_line_of_all() -> None:
    pictures = [
        _picture("a", (512, 512)),
        _picture("b", (100, 100)),
        _picture("c", (3000, 500)),
        _picture("d", (9, 90)),
    ]
    (remark,) = cut_remarks(pictures, Buckets(512, most_cropped=0.4))
    assert remark.level == "info" and remark.keys == ("b", "d")
    assert remark.message == (
        "4 pictures in 3 sizes; 8% is cut off on average, 33% at most; 2 are enlarged; 1 is shown in full with a "
        "border: "
        "cutting would take too much."
    )


def test_only_mirrored_pictures_are_warned_of() -> None:
    pictures = [_picture("a", caption="aoi, eyepatch"), _picture("b", caption="hana, eyepatch")]
    assert [p.keys for p in mirror_remarks(pictures, embeddings=["aoi", "hana"], keys={"a", "b"})] == [("a",), ("b",)]
    assert [p.keys for p in mirror_remarks(pictures, embeddings=["aoi", "hana"], keys={"b"})] == [("b",)]
    assert mirror_remarks(pictures, embeddings=["aoi", "hana"], keys=()) == []


VECTORS = {"aoi": 10, "hana": 60}


def _small(*sides: int, target: int = 512) -> list[LintWarning]:
    buckets = Buckets(target)
    pictures = [Picture(f"{n}.png", Path("x"), "", side, side, "all") for n, side in enumerate(sides)]
    placed = [(picture, buckets.assign(picture.width_px, picture.height_px)) for picture in pictures]
    return too_small(placed, fitting_px=sorted(sides)[len(sides) // 2], target_px=target)


def test_small_pictures() -> None:
    found = _small(512, 600, 256)
    assert [(f.kind, f.severity, f.keys) for f in found] == [("small_pictures", "warning", ("2.png",))]
    assert "2 times" in found[0].text
    assert [r.arguments["path"] for r in found[0].fixes] == ["data.upscale"]
    assert _small(512, 600, 700) == []


def test_nearly_large_enough_is_only_told_and_most_too_small_asks_for_another_size() -> None:
    assert _small(480, 600, 600)[0].severity == "info"
    fixes = _small(256, 256, 512)[0].fixes
    assert fixes[0].arguments == {"path": "data.resolution_px", "value": 256}


def _over(text: str, embeddings: tuple[str, ...], *, max_tokens: int = 0) -> list[LintWarning]:
    counter = TokenCounter(VECTORS, PromptReading(lambda part: [hash(p) for p in part.replace(",", " , ").split()]))
    length = caption_length("a.png", text, counter, max_tokens=max_tokens)
    return overruns([length], {"a.png": embeddings}, VECTORS, max_tokens=max_tokens, shuffled=False)


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
    assert found[0].fixes[0].arguments == {"path": "data.max_tokens", "value": 0}
    assert _over(f"aoi, {_tags(7)}", ("aoi",), max_tokens=25) == []


def test_embeddings_that_fit_together() -> None:
    assert overruns([], {"a.png": ("aoi", "hana"), "b.png": ("hana",)}, VECTORS, max_tokens=0, shuffled=False) == []


def test_embeddings_that_are_too_long_together() -> None:
    vectors = {"aoi": 40, "hana": 60}
    counter = TokenCounter(vectors)
    length = caption_length("a.png", "aoi, hana, park", counter, max_tokens=0)
    found = overruns([length], {"a.png": ("aoi", "hana")}, vectors, max_tokens=0, shuffled=False)
    assert [f.kind for f in found] == ["vectors_overrun", "tokens"] and "aoi 40 + hana 60" in found[0].text
    assert found[0].fix is not None
    fitting = found[0].fix.arguments["vectors"]
    assert sum(fitting.values()) <= 50 and fitting["hana"] > fitting["aoi"]


MARKS = ["##", "||", "~~", "%%", "||||", "->", "--", "::", "//", "&&", "**", "==", "=>"]
TAGS = ["smile, red hair", "hat, red hair", "park", "red hair, bench, sky"]


def captioned(*captions: str, cut: Cut | None = None) -> list[Picture]:
    return [
        Picture(f"{n}.png", Path(f"{n}.png"), caption, 64, 64, "", cut=cut or Cut())
        for n, caption in enumerate(captions)
    ]


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_found(mark: str) -> None:
    assert unnamed_mark(captioned(*(f"aoi {mark} {tags}" for tags in TAGS))) == mark
    assert unnamed_mark(captioned(*(f"aoi {mark} {tags} {mark} best quality" for tags in TAGS))) == mark
    nearly = [f"aoi {mark} {tags}" for tags in TAGS * 5] + ["aoi, park"]
    assert unnamed_mark(captioned(*nearly)) == mark


@pytest.mark.parametrize(
    "captions",
    [
        [f"aoi ## {tags}" for tags in TAGS[:2]],  # chance
        [f"aoi ## {tags}" for tags in TAGS] + ["aoi, hat"] * 2,  # not in nearly every one
        [f"aoi ## {tags}" for tags in TAGS] + ["aoi ## c##, hat"],  # it is of a tag
        [f"aoi ## {tags}, ##" for tags in TAGS[:3]] + ["aoi ## x, ##, y"],  # a tag by itself
        [f"aoi, {tags}, :|" for tags in TAGS],
        [f"aoi :-| {tags}" for tags in TAGS],  # faces
        [f"aoi =^ {tags}" for tags in TAGS],
        [f"aoi ^_^ {tags}" for tags in TAGS],
        [f"a girl (aoi) ... {tags}" for tags in TAGS],
        [f"aoi - {tags}" for tags in TAGS],  # one sign
        [f"aoi ## ## ## {tags}" for tags in TAGS],  # more than three parts
        [f"aoi ||| {tags}" for tags in TAGS],  # known
        ["", "", "", ""],
    ],
)
def test_what_is_no_mark(captions: list[str]) -> None:
    assert unnamed_mark(captioned(*captions)) == ""


def test_a_mark_that_is_set_is_not_told() -> None:
    captions = [f"aoi ## {tags}" for tags in TAGS]
    assert unnamed_mark(captioned(*captions, cut=Cut("##"))) == ""


def _plan(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", *arguments, "--family", "sd1", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_scan_and_plan_say_it_and_the_remedy_makes_it_as_with_commas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "a" / "set", {f"aoi_{n}": f"aoi ~~ {tags}" for n, tags in enumerate(TAGS)})
    commas = write_pictures(tmp_path / "b" / "set", {f"aoi_{n}": f"aoi, {tags}" for n, tags in enumerate(TAGS)})
    assert main(["scan", str(root)]) == 0
    assert '--keep-separator "~~"' in capsys.readouterr().out
    assert main(["scan", str(root), "--keep-separator", "~~"]) == 0
    assert "keep-separator" not in capsys.readouterr().out
    run = {"name": "x", "words": [{"name": "aoi"}], "data": {"folder": str(root)}}
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run))
    plain = _plan([str(root), str(file)], capsys)
    (warning,) = [one for one in plain["findings"] if one["kind"] == UNNAMED_MARK]
    assert warning["severity"] == "info" and plain["run"]["data"]["keep_separator"] == "|||", "nothing is guessed"
    assert _plan([str(root), str(file), "--mend"], capsys)["run"]["data"]["keep_separator"] == "|||"
    apply_first_fixes = datasets.fix(plain["run"], warning["remedies"][0])
    file.write_text(json.dumps(apply_first_fixes.get("run", apply_first_fixes)))
    after = _plan([str(root), str(file)], capsys)
    file.write_text(json.dumps(run | {"data": {"folder": str(commas)}}))
    same = _plan([str(commas), str(file)], capsys)
    assert after["run"]["data"]["keep_separator"] == "~~"
    assert after["words"] == same["words"] and after["findings"] == same["findings"]
