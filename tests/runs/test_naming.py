"""The checker of names, with the words and the tokenizer that are here."""

from __future__ import annotations

from typing import Any

import pytest

from lib_pivotal.runs.naming import name_issues
from lib_pivotal.standalone.tokenizer import clip_tokenizer


class Here:
    """A backend as far as names go: CLIP's own tokenizer, and what is there."""

    def __init__(self, taken: dict[str, str], *, loaded: bool = True) -> None:
        self._taken, self._loaded = taken, loaded

    def taken_names(self) -> dict[str, str]:
        return self._taken

    def token_ids(self, text: str) -> list[int]:
        return list(clip_tokenizer()(text, add_special_tokens=False)["input_ids"]) if self._loaded else []


def told(name: str, taken: dict[str, str] | None = None, *, loaded: bool = True, **more: Any) -> str:
    return "\n".join(str(issue) for issue in name_issues(Here(taken or {}, loaded=loaded), name, **more))  # type: ignore[arg-type]


def test_a_made_up_name_is_good() -> None:
    assert told("zq-aoiko") == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my.word", "error"),
        ("my word", "error"),
        ("(aoi)", "error"),
        ("cat", "single token"),
        ("aoiko2", "error"),
        ("", "error"),
    ],
)
def test_what_is_wrong_with_a_name(name: str, says: str) -> None:
    assert says in told(name)


def test_a_clash_says_with_what() -> None:
    assert "embeddings folder" in told("zq-aoiko", {"zq-aoiko": "embeddings folder"})
    assert "ink.safetensors" in told("zq-aoiko", {"zq-aoiko": "ink.safetensors"})


def test_the_file_that_is_written_anew_is_no_clash() -> None:
    assert told("zq-aoiko", {"zq-aoiko": "gekidol.safetensors"}, file="gekidol.safetensors") == ""


def test_embeddings_beside_it_in_the_file_are() -> None:
    assert "this file" in told("zq-aoiko", siblings={"ZQ-aoiko": "this file"})
    assert "part of" in told("zq-aoi", {"zq-aoi-ko": "ink.safetensors"})


def test_what_it_takes_of_a_prompt() -> None:
    assert "takes 40 of 75" in told("zq-aoiko", vectors=40)


@pytest.mark.parametrize("loaded", [True, False])
def test_a_part_of_another_is_found_with_and_without_a_tokenizer(loaded: bool) -> None:
    assert "'zq-aoi-ko' (ink.safetensors)" in told("zq-aoi", {"zq-aoi-ko": "ink.safetensors"}, loaded=loaded)


def test_thousands_of_other_embeddings_are_not_tokenised() -> None:
    here = Here({f"word-{index}-x": "ink.safetensors" for index in range(5000)})
    asked: list[str] = []
    ids_of = here.token_ids
    here.token_ids = lambda text: asked.append(text) or ids_of(text)  # type: ignore[method-assign, func-returns-value]
    name_issues(here, "zq-aoiko")  # type: ignore[arg-type]
    assert len(asked) < 40
