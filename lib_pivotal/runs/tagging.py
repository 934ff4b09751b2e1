"""Captions for pictures that have none, by whatever the process around has for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from PIL import Image

from lib_pivotal.data.pictures import open_picture
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.errors import DataError, HostError
from lib_pivotal.files import replacing


class Tagger(Protocol):
    """Writes captions."""

    @property
    def name(self) -> str:
        """What it is chosen by."""
        ...

    @property
    def title(self) -> str:
        """What it is and what it writes, for a list."""
        ...

    def missing(self) -> str:
        """Why it cannot be used and what to do, in plain words; empty if it can. Downloads nothing, loads nothing."""
        ...

    def __call__(self, picture: Image.Image) -> str:
        """The caption of a picture."""
        ...


def chosen(taggers: Sequence[Tagger], name: str) -> Tagger:
    """The tagger of this name.

    Raises:
        HostError: there is none, or it cannot be used; says why.
    """
    found = next((tagger for tagger in taggers if tagger.name == name), None)
    if found is None:
        names = ", ".join(tagger.name for tagger in taggers)
        raise HostError(
            f"{name}: no such tagger. There is {names}."
            if names
            else "captions cannot be written here: the web UI's interrogators are only in the web UI."
        )
    if reason := found.missing():
        raise HostError(reason)
    return found


def without_caption(dataset: Dataset) -> list[Picture]:
    """The pictures that have no caption but their name."""
    keys = {
        key
        for problem in dataset.problems
        if problem.code in ("caption_from_name", "no_caption")
        for key in problem.keys
    }
    return [picture for picture in dataset.pictures if picture.key in keys]


def write_captions(
    pictures: Sequence[Picture],
    tagger: Tagger,
    *,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[int, int]:
    """Write a caption file for each of `pictures` (see `without_caption`), where the layout looks for it: `NAME.txt`
    beside the picture; returns how many were written, and how many had none before.

    A caption file with text in it is never touched. A picture that cannot be read is passed over, as a run would.
    Raises DataError where a file cannot be written.
    """
    written = 0
    for done, picture in enumerate(pictures):
        if should_stop is not None and should_stop():
            break
        if progress is not None:
            progress(done, len(pictures))
        target = picture.text_place or picture.path.with_suffix(".txt")
        if target.exists() and target.read_text(encoding="utf-8", errors="replace").strip():
            continue  # written since the scan, by this or by someone else
        try:
            image = open_picture(picture.path)
        except DataError:
            continue
        caption = tagger(image).strip()
        if not caption:
            continue
        try:
            with replacing(target) as temporary:
                temporary.write_text(caption, encoding="utf-8")
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror}). Fix the folder's permissions.") from error
        written += 1
    return written, len(pictures)
