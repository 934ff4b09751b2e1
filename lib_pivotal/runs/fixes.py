"""Fixes of warnings: each a pure change of a run, named by id and arguments so that page, API and files can ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from lib_pivotal.config import EmbeddingConfig, Run, check_run, run_to_dict
from lib_pivotal.data.lint_warnings import Fix, LintWarning
from lib_pivotal.data.tags import same_tag
from lib_pivotal.errors import ConfigError, DataError, Fault

SETTABLE = frozenset(
    "data.duplicates data.upscale data.resolution_px data.max_tokens data.balance data.flip data.keep_separator "
    "schedule.max_steps".split()
)
"""What the fix `set` may change."""


def apply_fix(run: Run, fix: Fix) -> Run:
    """The run with a fix applied; the same fix twice changes nothing more.

    Raises:
        DataError: there is no such fix, or an argument is missing or of the wrong kind.
        ConfigError: the result is no sound run; or the fix speaks of an embedding that the run does not have.
    """
    change = _change_of(fix)
    try:
        changed = change(run, fix.arguments)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        given = dict(fix.arguments)
        raise DataError(f"fix {fix.id}: its arguments {given!r} are not those of a plan ({error!r}).") from error
    before = {fault.field for fault in check_run(run_to_dict(run))[1]}
    checked, faults = check_run(run_to_dict(changed))
    faults = [fault for fault in faults if fault.field not in before]  # a run that is half filled in may be fixed, too
    if faults:
        raise ConfigError(faults)
    return checked


def apply_first_fixes(run: Run, lint: Callable[[Run], Sequence[LintWarning]]) -> tuple[Run, list[str]]:
    """The run after the first fix of each warning in turn, and the labels of those applied.

    `lint` says what is wrong with a run now; what no fix helps stays. Ends, as no warning is fixed twice.
    """
    applied: list[str] = []
    tried: set[tuple[str, tuple[str, ...]]] = set()
    while True:
        open_ones = (f for f in lint(run) if f.fix is not None and (f.kind, f.embeddings) not in tried)
        warning = next(open_ones, None)
        if warning is None or warning.fix is None:
            return run, applied
        tried.add((warning.kind, warning.embeddings))
        run = apply_fix(run, warning.fix)
        applied.append(warning.fix.label)


def _change_of(fix: Fix) -> Callable[[Run, Mapping[str, Any]], Run]:
    change = _CHANGES.get(fix.id)
    if change is None:
        raise DataError(f"fix = {fix.id!r}: is unknown. There are: {', '.join(_CHANGES)}.")
    return change


def _set(run: Run, arguments: Mapping[str, Any]) -> Run:
    path, value = arguments["path"], arguments["value"]
    if path not in SETTABLE:
        raise DataError(f"path = {path!r}: a fix can set {', '.join(sorted(SETTABLE))}.")
    section, name = path.split(".")
    run = replace(run, **{section: replace(getattr(run, section), **{name: value})})
    return replace(run, schedule=replace(run.schedule, epochs=0)) if path == "schedule.max_steps" else run


def _remove_embedding(run: Run, arguments: Mapping[str, Any]) -> Run:
    name = str(arguments["embedding"])
    kept = (
        replace(embedding, form_of="") if embedding.form_of == name else embedding
        for embedding in run.embeddings
        if embedding.name != name
    )
    shown = tuple(embedding for embedding in run.saving.sample_embeddings if embedding != name)
    return replace(run, embeddings=tuple(kept), saving=replace(run.saving, sample_embeddings=shown))


def _apply_to(run: Run, arguments: Mapping[str, Any]) -> Run:
    pattern = str(arguments["pattern"])

    def change(embedding: EmbeddingConfig) -> EmbeddingConfig:
        return replace(embedding, applies_to=tuple(dict.fromkeys((*embedding.applies_to, pattern))))

    return _with_embedding(run, arguments["embedding"], change)


def _absorb(run: Run, arguments: Mapping[str, Any]) -> Run:
    """The embedding absorbs what the rule says, and `tags` beside that."""

    def change(embedding: EmbeddingConfig) -> EmbeddingConfig:
        prune_tags, keep_tags = _moved(_tags(arguments), embedding.prune_tags, embedding.keep_tags)
        return replace(embedding, prune=True, prune_tags=prune_tags, keep_tags=keep_tags)

    return _with_embedding(run, arguments["embedding"], change)


def _keep(run: Run, arguments: Mapping[str, Any]) -> Run:
    """`tags` stay in the embedding's captions."""

    def change(embedding: EmbeddingConfig) -> EmbeddingConfig:
        keep_tags, prune_tags = _moved(_tags(arguments), embedding.keep_tags, embedding.prune_tags)
        return replace(embedding, keep_tags=keep_tags, prune_tags=prune_tags)

    return _with_embedding(run, arguments["embedding"], change)


def _moved(tags: Sequence[str], to: tuple[str, ...], away: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An embedding's two lists with `tags` in the first and not in the second."""
    there, forms = {same_tag(tag) for tag in to}, {same_tag(tag) for tag in tags}
    added = tuple(tag for tag in tags if same_tag(tag) not in there)
    return (*to, *added), tuple(tag for tag in away if same_tag(tag) not in forms)


def _vectors(run: Run, arguments: Mapping[str, Any]) -> Run:
    for name, number in dict(arguments["vectors"]).items():
        run = _with_embedding(run, name, lambda embedding, number=number: replace(embedding, vectors=int(number)))  # type: ignore[misc]
    return run


def _weighted(embedding: EmbeddingConfig, weight: float) -> EmbeddingConfig:
    return replace(embedding, sampling_weight=weight)


def _sampling_weights(run: Run, arguments: Mapping[str, Any]) -> Run:
    for name, weight in dict(arguments["weights"]).items():
        run = _with_embedding(run, name, partial(_weighted, weight=float(weight)))
    return run


def _no_mirror(run: Run, arguments: Mapping[str, Any]) -> Run:
    return _with_embedding(run, arguments["embedding"], lambda embedding: replace(embedding, flip=False))


def _with_embedding(run: Run, name: Any, change: Callable[[EmbeddingConfig], EmbeddingConfig]) -> Run:
    if name not in [embedding.name for embedding in run.embeddings]:
        known = ", ".join(embedding.name for embedding in run.embeddings) or "none"
        raise ConfigError(
            [Fault("embeddings", name, "is not an embedding of the run", f"Its embeddings are: {known}.")]
        )
    return replace(
        run,
        embeddings=tuple(change(embedding) if embedding.name == name else embedding for embedding in run.embeddings),
    )


def _all(run: Run, arguments: Mapping[str, Any]) -> Run:
    """Several fixes in turn; that of an embedding which one before has taken out is passed over."""
    names = {embedding.name for embedding in run.embeddings}
    for plain in arguments["fixes"]:
        fix = Fix.from_dict(plain)
        if fix.id == "all":
            raise DataError("fix all: holds another one of its kind; it takes single fixes.")
        embedding = fix.arguments.get("embedding")
        if embedding in names and embedding not in [one.name for one in run.embeddings]:
            continue
        run = _change_of(fix)(run, fix.arguments)
    return run


def _tags(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    tags = arguments.get("tags", ())
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("tags must be a list of texts")
    return tuple(tags)


_CHANGES: Mapping[str, Callable[[Run, Mapping[str, Any]], Run]] = MappingProxyType(
    {
        "set": _set,
        "remove_word": _remove_embedding,
        "apply_to": _apply_to,
        "absorb": _absorb,
        "keep": _keep,
        "vectors": _vectors,
        "draw_weights": _sampling_weights,
        "no_mirror": _no_mirror,
        "all": _all,
    }
)
