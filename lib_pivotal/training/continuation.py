"""Whether a saved state belongs to a run: what it was made of is kept beside it and compared, field by field.

A run that was to be continued and cannot be is refused with the settings that differ and both values, before anything
is written. What cannot change the trained result may differ, and so may the length: a run can be made longer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from lib_pivotal.config import check_run, run_to_dict
from lib_pivotal.config_versions import as_version_1
from lib_pivotal.data.pictures import file_sha256
from lib_pivotal.errors import StateError
from lib_pivotal.ports import Host
from lib_pivotal.training.prepared import Prepared
from lib_pivotal.training.state import SavedState

LENGTH = ("schedule.max_steps", "schedule.epochs")
HARMLESS = (
    *LENGTH,
    "version",
    "name",
    "saving",
    "data.folder",  # the pictures themselves are compared
    "start.init_file",  # and the file
    "data.cache_folder",
    "regularisation.folder",
    "memory.latents_mb",
    "memory.gradient_checkpointing",
    "validation",  # it changes no step, but by the pictures that it holds out, and these are compared
)
"""Settings, or groups of them, that may differ: where files go, how memory is spared, and how long the run is."""

MOST_NAMED = 8
_GONE = "no such picture"


def describe_basis(prepared: Prepared, host: Host) -> dict[str, Any]:
    """What a state depends on, as plain values to keep with it: settings, checkpoint, pictures with their captions."""
    pictures = {f"{side}{picture.key}": _digest(picture) for side, picture in _pictures(prepared)}
    checkpoint = {"name": host.info.name, "sha256": host.info.sha256, "autoencoder": host.codec.fingerprint}
    start = {} if prepared.start is None else {"name": prepared.start.file.name, "sha256": prepared.start.sha256()}
    return {"settings": dict(prepared.settings), "checkpoint": checkpoint, "pictures": pictures, "start": start}


def check_continuation(
    saved: SavedState,
    prepared: Prepared,
    host: Host,
    *,
    now: Mapping[str, Any],
    recorded: Mapping[str, Any] | None,
) -> list[str]:
    """Remarks on a state that the run can be continued from.

    `now` is the run's own basis (`describe_basis`), `recorded` the run.json beside the state, for old states.

    Raises:
        StateError: it belongs to another run. The sentence names what differs, with both values.
    """
    then, remarks = saved.content.get("basis"), [*saved.passed_over]
    if then is None:
        then, remark = _old_basis(saved, prepared, host, now=now, recorded=recorded)
        remarks += [remark] if remark else []
    differing = differences(then, now)
    if differing:
        told = "; ".join(differing[:MOST_NAMED])
        more = f"; and {len(differing) - MOST_NAMED} more" if len(differing) > MOST_NAMED else ""
        raise StateError(
            f"the state {saved.path} belongs to a run with other settings, pictures or checkpoint, so it cannot be "
            f"continued: {told}{more}. Restore these, or start a new run. Nothing was changed"
        )
    if saved.step > prepared.loop.max_steps:
        raise StateError(
            f"schedule.max_steps = {prepared.loop.max_steps}, but the state {saved.path} is after step {saved.step} "
            "already: ask for more steps. Nothing was changed"
        )
    return remarks + _length_remarks(then["settings"], now["settings"])


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of two bases differs and matters, one sentence part each."""
    old, new = flat_settings(then["settings"]), flat_settings(now["settings"])
    found = [
        f"{path} was {json.dumps(old.get(path))}, is {json.dumps(new.get(path))}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path) and not _is_harmless(path)
    ]
    found += _checkpoint_differences(then["checkpoint"], now["checkpoint"]) + _picture_differences(then, now)
    return found + _start_differences(then.get("start", {}), now.get("start", {}))


def flat_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting by dotted path; one that an older version did not know has its default."""
    run, _ = check_run(dict(plain))
    found: dict[str, Any] = {}
    _flatten(run_to_dict(run), "", found)
    return found


def _flatten(value: Any, path: str, found: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            _flatten(item, f"{path}.{number}", found)
    else:
        found[path] = value


def _is_harmless(path: str) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in HARMLESS)


def _checkpoint_differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    hashed = then.get("sha256") and now.get("sha256")
    field = "sha256" if hashed else "name"
    if then.get(field) == now.get(field) and then.get("autoencoder") == now.get("autoencoder"):
        return []
    if then.get(field) == now.get(field):
        return [f"the autoencoder (VAE) of {now['name']} is another one"]
    return [f"the checkpoint was {_titled(then)}, is {_titled(now)}"]


def _start_differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The file that the run began from."""
    if then.get("sha256") == now.get("sha256"):
        return []
    titles = [f"{one['name']} [{one['sha256'][:10]}]" if one else "none" for one in (then, now)]
    return [f"the file that the run began from (start.init_file) was {titles[0]}, is {titles[1]}"]


def _titled(checkpoint: Mapping[str, str]) -> str:
    return f"{checkpoint.get('name')} [{(checkpoint.get('sha256') or 'no hash')[:10]}]"


def _picture_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = then["pictures"], now["pictures"]
    if old is None:
        return []
    changed = [key for key in old.keys() | new.keys() if old.get(key, _GONE) != new.get(key, _GONE)]
    if not changed:
        return []
    named = ", ".join(sorted(changed)[:3])
    return [f"{len(changed)} pictures or captions differ ({named}{', ...' if len(changed) > 3 else ''})"]


def _length_remarks(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before, after = flat_settings(then)["schedule.max_steps"], now["schedule"]["max_steps"]
    if before == after:
        return []
    rate = now["schedule"]["lr_scheduler"]
    stretched = "" if rate == "constant" else f"; the LR scheduler {rate} follows the new one"
    return [f"the length of the run changes from {before} to {after} steps{stretched}"]


def _pictures(prepared: Prepared) -> list[tuple[str, Any]]:
    own = [("", picture) for picture in prepared.pictures.pictures]
    return own + [("class pictures: ", picture) for picture in prepared.pictures.regularisation]


def _digest(picture: Any) -> str:
    """Of everything that a picture gives to a run; of the files themselves, so that no change of them goes unseen."""
    facts = [picture.caption, picture.alternatives, picture.repeats, picture.width_px, picture.height_px]
    contents = [_content(picture.path), picture.mask_path and _content(picture.mask_path)]
    return hashlib.blake2b(json.dumps([*facts, *contents]).encode(), digest_size=8).hexdigest()


def _content(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:  # encoding it will say so
        return ""


# ---- states of version 0.1 hold one hash of everything ----


def _old_basis(
    saved: SavedState,
    prepared: Prepared,
    host: Host,
    *,
    now: Mapping[str, Any],
    recorded: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], str]:
    """What an old state can be said to depend on, and a remark where that is less than everything."""
    if saved.content.get("fingerprint") == _old_fingerprint(prepared, host):
        return dict(now), ""
    if recorded is None:
        raise StateError(
            f"the state {saved.path} was written by an older version, for other settings, pictures or another "
            "checkpoint, and no run.json beside it tells which. Restore these, or start a new run. Nothing was changed"
        )
    return (
        {"settings": dict(recorded), "checkpoint": now["checkpoint"], "pictures": None},
        "the state was written by an older version: its settings were compared, its pictures and checkpoint could not",
    )


def _old_fingerprint(prepared: Prepared, host: Host) -> str:
    settings = deepcopy(as_version_1(prepared.settings))
    del settings["saving"], settings["name"]
    settings["data"].pop("cache_folder")
    settings["memory"].pop("latents_mb")
    trained: Sequence[Any] = (*prepared.pictures.pictures, *prepared.pictures.regularisation)
    pictures = [[picture.key, picture.caption, picture.repeats] for picture in trained]
    facts = json.dumps([settings, host.info.name, host.info.sha256, host.codec.fingerprint, pictures], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()
