"""Finding out what a folder or file is, and reading it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.data.captions import read_text
from lib_pivotal.data.pictures import EXTENSIONS
from lib_pivotal.data.records import Problem
from lib_pivotal.data.sources import archives, hcp_dataset, kohya_toml, onetrainer
from lib_pivotal.data.sources.plain_files import labels, read_plain
from lib_pivotal.data.sources.source import Reading, Source
from lib_pivotal.data.sources.templates import read_templates
from lib_pivotal.errors import DataError

TITLES = {
    "plain": "one folder of pictures",
    "concepts": "a folder for each concept",
    "kohya": "kohya's folders, repeats in front of the name (10_name)",
    "kgrid": "kgrid's tree (image type / number of characters / character)",
    "kohya_toml": "kohya's dataset file (.toml)",
    "hcp": "HCP-Diffusion's dataset file (.yaml)",
    "onetrainer": "OneTrainer's concepts (.json)",
    "archive": "a zip or tar file of pictures",
}
"""Layouts by their names in the settings."""
TREES = ("plain", "concepts", "kohya", "kgrid")

_Reader = Callable[[Any, Path], Reading]
_FILES: Mapping[str, tuple[tuple[str, ...], Callable[[Any], bool], _Reader]] = {
    "kohya_toml": ((".toml",), kohya_toml.is_kohya, kohya_toml.read_kohya),
    "hcp": ((".yaml", ".yml"), hcp_dataset.is_hcp, hcp_dataset.read_hcp),
    "onetrainer": ((".json",), onetrainer.is_onetrainer, onetrainer.read_onetrainer),
}
_MOST_TRIED = 50


def read_layout(path: Path, layout: str = "auto", *, cache: Path | None = None) -> Reading:
    """What `path` is; `layout` says it where `auto` would guess wrong. Archives are unpacked into `cache`.

    Raises:
        DataError: there is nothing there, or it is not of that layout.
    """
    if layout != "auto" and layout not in TITLES:
        raise DataError(f"layout = {layout!r}: there is {', '.join(('auto', *TITLES))}.")
    if path.is_dir():
        return _of_folder(path, layout, cache)
    if not path.exists():
        raise DataError(f"{path}: does not exist. Give the folder that holds the pictures.")
    if archives.is_archive(path) and layout in ("auto", "archive", *TREES):
        return _of_archives([path], layout, path.parent, cache)
    found = _of_file(path, layout)
    if found is None:
        what = f"is not {TITLES[layout]}" if layout != "auto" else "is a file, not a folder"
        kinds = "a dataset file of kohya (.toml), HCP-Diffusion (.yaml) or OneTrainer (.json), a zip or a tar"
        raise DataError(f"{path}: {what}. Give the folder that holds the pictures, or {kinds}.")
    return found


def _of_file(path: Path, layout: str) -> Reading | None:
    for name, (suffixes, fits, read) in _FILES.items():
        if layout in ("auto", name) and path.suffix.lower() in suffixes:
            plain = read_plain(path)
            if fits(plain):
                return read(plain, path)
    return None


def _of_folder(path: Path, layout: str, cache: Path | None) -> Reading:
    files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
    if layout not in TREES and (found := _described(path, files, layout)):
        return found
    packed = [one for one in files if archives.is_archive(one)]
    if layout == "archive" or (layout == "auto" and packed and not _has_pictures(path)):
        if not packed:
            raise DataError(f"{path}: there is no zip or tar file in it. Set the layout to auto.")
        return _of_archives(packed, layout, path, cache)
    root = _inside(path) if layout in ("auto", "kgrid") else path
    templates = read_templates([*path.glob("*.txt"), *path.glob("textual_inversion_templates/*.txt")])
    settings: dict[str, Any] = {"data.templates": templates} if templates else {}
    if (wildcards := root / "wildcard.txt").is_file() and (lines := _lines(wildcards)):
        settings["data.word_lists"] = (f"wildcard = {' | '.join(lines)}",)
    source = Source(root=root, tree=layout)  # type: ignore[arg-type]
    return Reading(layout, TITLES.get(layout, ""), root, (source,), settings)


def _described(path: Path, files: list[Path], layout: str) -> Reading | None:
    """By a dataset file that lies in the folder. Files of other kinds, also broken ones, are none, unless asked for."""
    for name, (suffixes, fits, read) in _FILES.items():
        if layout not in ("auto", name):
            continue
        for one in [one for one in files if one.suffix.lower() in suffixes][:_MOST_TRIED]:
            try:
                plain = read_plain(one)
                if fits(plain):
                    return read(plain, one)
            except DataError:
                if layout == name:
                    raise
        if layout == name:
            raise DataError(f"{path}: there is no {TITLES[name].partition(' (')[0]} in it. Set the layout to auto.")
    return None


def _of_archives(paths: list[Path], layout: str, folder: Path, cache: Path | None) -> Reading:
    sources: list[Source] = []
    problems: list[Problem] = []
    tree = layout if layout in TREES else "auto"
    for path, label in zip(paths, labels([path.with_suffix("") for path in paths]), strict=True):
        target, told = archives.unpacked(path, cache)
        problems += told
        sources.append(Source(root=target, tree=tree, label=label))  # type: ignore[arg-type]
    title = paths[0].name if len(paths) == 1 else f"{len(paths)} archives"
    place = sources[0].root if len(sources) == 1 else folder
    return Reading("archive", f"{title}, unpacked into the cache", place, tuple(sources), {}, tuple(problems))


def _has_pictures(path: Path) -> bool:
    return any(one.suffix.lower() in EXTENSIONS for one in path.rglob("*"))


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_text(path)[0].splitlines()] if path.stat().st_size < 2**18 else []
    except OSError:
        return []
    return [line for line in lines if line and "|" not in line][:200]


def _inside(path: Path) -> Path:
    """kgrid's `training` where the folder of the whole pipeline was given: beside it lie raw and cropped pictures."""
    training = path / "training"
    return training if training.is_dir() and (path / "intermediate").is_dir() else path
