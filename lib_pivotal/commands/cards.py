"""Result cards: write one into a file (and what the web UI shows beside it), or export it as a model page."""

from __future__ import annotations

import re
import shutil
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from lib_pivotal.bundle.card import CardEdit, ResultCard, read_card
from lib_pivotal.bundle.card_files import preview_of
from lib_pivotal.bundle.model_page import model_page
from lib_pivotal.commands.bundles import BundleHost, Written
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import refuse_taken
from lib_pivotal.files import replacing, sentence_of
from lib_pivotal.runs.result_card import CardSamples, last_samples, pictures_of, write_files
from lib_pivotal.runs.samples import folder_of_file

WEIGHT_LIMITS, CFG_LIMITS = (-2.0, 2.0), (1.0, 30.0)


@dataclass(frozen=True)
class Describe:
    """What people add to a file's card. None: stays as it is. `samples` is the folder of its run; None: looked for."""

    file: Path
    _: KW_ONLY
    description: str | None = None
    licence: str | None = None
    unet: float | None = None
    te: float | None = None
    cfg: float | None = None
    samples: Path | None = None

    def edit(self) -> CardEdit:
        """Checked.

        Raises:
            BundleError: a number is out of its limits.
        """
        for title, value, (low, high) in (
            ("U-Net weight", self.unet, WEIGHT_LIMITS),
            ("text encoder weight", self.te, WEIGHT_LIMITS),
            ("CFG", self.cfg, CFG_LIMITS),
        ):
            if value is not None and not low <= value <= high:
                raise BundleError(f"{title} is {value:g}; it must be from {low:g} to {high:g}")
        weights = {key: value for key, value in (("unet", self.unet), ("te", self.te)) if value is not None}
        return CardEdit(description=self.description, licence=self.licence, weights=weights or None, cfg=self.cfg)


@dataclass(frozen=True)
class Export:
    """A model page of a file, as a folder: NAME.md with its pictures."""

    file: Path
    folder: Path
    _: KW_ONLY
    samples: Path | None = None
    overwrite: bool = False


def show(file: Path) -> ResultCard:
    """The card of a file.

    Raises:
        BundleError: the file cannot be read.
    """
    return read_card(file)


def describe(request: Describe, host: BundleHost | None = None, *, runs_folder: Path | None = None) -> Written:
    """Write the card into the file, a preview beside it where it has none, and the web UI's card file, in which what
    the user wrote stays.

    Raises:
        BundleError: the file cannot be read or written, or a number is out of its limits.
    """
    edit = request.edit()
    written = write_files(request.file, edit, _samples(request.file, request.samples, runs_folder))
    if host is not None:
        host.bundle_saved(request.file)
    names = ", ".join(path.name for path in written)
    kept = "" if any(path.suffix == ".png" for path in written) else _kept(request.file)
    return Written(tuple(written), f"Written: {names}.{kept}")


def export(request: Export, *, runs_folder: Path | None = None) -> Written:
    """Write the model page and copy its pictures beside it.

    Raises:
        BundleError: the file cannot be read, or the page cannot be written.
        FileNameError: there is a page of this name already.
    """
    card = read_card(request.file)
    page = request.folder / f"{request.file.stem}.md"
    refuse_taken([page], overwrite=request.overwrite)
    samples = _samples(request.file, request.samples, runs_folder)
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
        pictures = _copied(request, samples)
        with replacing(page) as temporary:
            text = model_page(card, request.file.name, pictures={title: path.name for title, path in pictures.items()})
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BundleError(sentence_of(error, page)) from error
    return Written((page, *pictures.values()), f"The model page is {page}, with {len(pictures)} pictures beside it.")


def _samples(file: Path, given: Path | None, runs_folder: Path | None) -> CardSamples | None:
    folder = given
    if folder is None and runs_folder is not None:
        folder = folder_of_file(file, runs_folder)
    return None if folder is None else last_samples(folder)


def _kept(file: Path) -> str:
    there = preview_of(file)
    if there is None:
        return " No samples of its run were found, so it has no preview."
    return f" The preview {there.name} stays as it is."


def _copied(request: Export, samples: CardSamples | None) -> dict[str, Path]:
    """The preview, then each drawn prompt's picture, by title."""
    stem, found = request.file.stem, dict[str, Path]()
    if samples is not None and samples.picture is not None:
        target = request.folder / f"{stem}-parts.png"
        with replacing(target) as temporary:
            samples.picture.save(temporary, format="PNG", optimize=True)
        found["full, U-Net only, text encoder only, embeddings only"] = target
    elif (preview := preview_of(request.file)) is not None:
        found[stem] = _copy(preview, request.folder / f"{stem}-preview{preview.suffix}")
    if samples is not None:
        for number, (prompt, path) in enumerate(pictures_of(samples.source).items(), 1):
            name = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40]
            found[prompt] = _copy(path, request.folder / f"{stem}-{number:02d}-{name}{path.suffix}")
    return found


def _copy(source: Path, target: Path) -> Path:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target
