"""Finding out what a folder or file is, and reading it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_pivotal.data.captions import read_text
from lib_pivotal.data.pictures import EXTENSIONS
from lib_pivotal.data.records import DatasetProblem
from lib_pivotal.data.sources import archives
from lib_pivotal.data.sources.projects import project_of
from lib_pivotal.data.sources.source import DatasetFile, PictureSource, SourceReading, labels
from lib_pivotal.data.sources.templates import read_templates
from lib_pivotal.errors import DataError

TITLES: Mapping[str, str] = {
    "plain": "one folder of pictures",
    "concepts": "a folder for each concept",
    "kohya": "kohya's folders, repeats in front of the name (10_name)",
    "kgrid": "kgrid's tree (image type / number of characters / character)",
    "archive": "a zip or tar file of pictures",
}
"""Layouts by their names in the settings; those of dataset files bring their own."""
TREES = ("plain", "concepts", "kohya", "kgrid")

_MOST_TRIED = 50


def read_layout(
    path: Path, layout: str = "auto", *, files: Sequence[DatasetFile] = (), cache: Path | None = None
) -> SourceReading:
    """What `path` is; `layout` says it where `auto` would guess wrong. Archives are unpacked into `cache`, and `files`
    are the kinds of dataset files that are understood.

    Raises:
        DataError: there is nothing there, or it is not of that layout.
    """
    titles = {**TITLES, **{file.layout: file.title for file in files}}
    if layout != "auto" and layout not in titles:
        names = ("auto", *TREES, *(file.layout for file in files), "archive")
        raise DataError(f"layout = {layout!r}: there is {', '.join(names)}.")
    if path.is_dir():
        return _of_folder(path, layout, files, cache)
    if not path.exists():
        raise DataError(f"{path}: does not exist. Give the folder that holds the pictures.")
    if archives.is_archive(path) and layout in ("auto", "archive", *TREES):
        return _of_archives([path], layout, path.parent, cache)
    found = _of_file(path, layout, files)
    if found is None:
        what = f"is not {titles[layout]}" if layout != "auto" else "is a file, not a folder"
        kinds = "a dataset file of kohya (.toml), HCP-Diffusion (.yaml) or OneTrainer (.json), a zip or a tar"
        described = any(path.suffix.lower() in file.suffixes for file in files)
        more = " Settings of a trainer are read by `import` and on the Train page (Load)." if described else ""
        raise DataError(f"{path}: {what}. Give the folder that holds the pictures, or {kinds}.{more}")
    return found


def _of_file(path: Path, layout: str, files: Sequence[DatasetFile]) -> SourceReading | None:
    for file in files:
        if layout in ("auto", file.layout) and path.suffix.lower() in file.suffixes:
            plain = file.parse(path)
            if file.fits(plain):
                return file.read(plain, path)
    return None


def _of_folder(path: Path, layout: str, kinds: Sequence[DatasetFile], cache: Path | None) -> SourceReading:
    files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
    lost: list[DatasetProblem] = []
    if layout not in TREES and (found := _described(path, files, layout, kinds, lost)):
        return found
    packed = [one for one in files if archives.is_archive(one)]
    if layout == "archive" or (layout == "auto" and packed and not _has_pictures(path)):
        if not packed:
            raise DataError(f"{path}: there is no zip or tar file in it. Set the layout to auto.")
        found = _of_archives(packed, layout, path, cache)
        return replace(found, problems=(*lost, *found.problems))
    root = _inside(path) if layout in ("auto", "kgrid") else path
    templates = read_templates([*path.glob("*.txt"), *path.glob("textual_inversion_templates/*.txt")])
    settings: dict[str, Any] = {"data.templates": templates} if templates else {}
    if (wildcards := root / "wildcard.txt").is_file() and (lines := _lines(wildcards)):
        settings["data.word_lists"] = (f"wildcard = {' | '.join(lines)}",)
    source, more, told = _of_tree(root, layout)
    return SourceReading(layout, TITLES.get(layout, ""), root, (source,), {**settings, **more}, (*lost, *told))


def _of_tree(root: Path, tree: str, label: str = "") -> tuple[PictureSource, dict[str, Any], list[DatasetProblem]]:
    """A folder of pictures, or of a whole project the part that holds them, with settings that the other parts are."""
    project = project_of(root) if tree in ("auto", "kohya") else None
    if project is None:
        return PictureSource(root=root, tree=tree, label=label), {}, []  # type: ignore[arg-type]
    plain = not any(one.is_dir() for one in project.pictures.iterdir())
    concept = root.resolve().name if plain else ""  # pictures without folders are not of a concept `img`
    source = PictureSource(root=project.pictures, tree=tree, label=label, concept=concept)  # type: ignore[arg-type]
    settings = {} if project.class_pictures is None else {"regularisation.folder": str(project.class_pictures)}
    return source, settings, [DatasetProblem("info", "project", project.told(), project.with_pictures)]


def _described(
    path: Path, files: list[Path], layout: str, kinds: Sequence[DatasetFile], lost: list[DatasetProblem]
) -> SourceReading | None:
    """By a dataset file that lies in the folder; of one that cannot be read as such `lost` tells. Files of other kinds
    are none, unless asked for."""
    for kind in kinds:
        if layout not in ("auto", kind.layout):
            continue
        for one in [one for one in files if one.suffix.lower() in kind.suffixes][:_MOST_TRIED]:
            plain: Any = None
            try:
                plain = kind.parse(one)
                if kind.fits(plain):
                    return kind.read(plain, one)
            except DataError as error:
                if layout == kind.layout:
                    raise
                if plain is not None or kind.suffixes != (".json",):  # a broken json is told with the captions
                    lost.append(_lost(one, error, plain))
        if layout == kind.layout:
            raise DataError(f"{path}: there is no {kind.title.partition(' (')[0]} in it. Set the layout to auto.")
    return None


def _lost(path: Path, error: DataError, plain: Any) -> DatasetProblem:
    """A dataset file of which nothing came, and what was lost with it."""
    keys = [key for key in dict.fromkeys(_keys(plain)) if not isinstance(key, int)]
    settings = f" What it says of them does not count: {', '.join(keys[:12])}." if keys else ""
    reason = str(error).replace(str(path), path.name)
    text = f"{reason}{settings} The folder is read as if {path.name} were not there."
    return DatasetProblem("warning", "dataset_file_lost", text, (path.name,))


def _keys(plain: Any) -> Iterator[str]:
    """The innermost keys of a structure."""
    for key, value in plain.items() if isinstance(plain, Mapping) else ():
        if isinstance(value, Mapping | list):
            yield from _keys(value)
        else:
            yield str(key)
    for value in plain if isinstance(plain, list) else ():
        yield from _keys(value)


def _of_archives(paths: list[Path], layout: str, folder: Path, cache: Path | None) -> SourceReading:
    sources: list[PictureSource] = []
    problems: list[DatasetProblem] = []
    settings: dict[str, Any] = {}
    tree = layout if layout in TREES else "auto"
    for path, label in zip(paths, labels([path.with_suffix("") for path in paths]), strict=True):
        target, told = archives.unpacked(path, cache)
        problems += told
        source, more, said = _of_tree(target, tree, label)
        sources.append(source)
        settings |= more
        problems += said
    title = paths[0].name if len(paths) == 1 else f"{len(paths)} archives"
    place = sources[0].root if len(sources) == 1 else folder
    return SourceReading(
        "archive", f"{title}, unpacked into the cache", place, tuple(sources), settings, tuple(problems)
    )


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
