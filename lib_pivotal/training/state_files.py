"""Where the states of a run lie, and which is the newest: told by names alone, never by the clock.

`<name>.state/` holds one folder a run (`run-0001`, `run-0002`, ...), so that a run that begins anew never meets the
states of an older one. Inside, `state-<step>-<serial>.safetensors`: serials count the states of a run in the order in
which they were written, also where it went on from an earlier step. Versions up to 0.1 put `state-<step>.pt` straight
into `<name>.state/`: they are listed, and read, but no longer written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lib_pivotal.errors import StateError

SUFFIX = ".safetensors"
_STATE = re.compile(r"state-(\d{8,})-(\d{4,})\.safetensors")
_OLD_STATE = re.compile(r"state-(\d{8,})\.pt")
_RUN = re.compile(r"run-(\d{4,})")


@dataclass(frozen=True, order=True)
class StateFile:
    """A state on the disk; of two in one folder the later written is the greater."""

    serial: int
    step: int
    path: Path

    @property
    def is_pickle(self) -> bool:
        """Written by an old version, with `torch.save`."""
        return self.path.suffix == ".pt"


def states_folder(log_folder: Path, name: str) -> Path:
    """The folder of all states of runs called `name` that log to `log_folder`."""
    return log_folder / f"{name}.state"


def list_states(folder: Path) -> list[StateFile]:
    """The states in one run's folder, the last written first."""
    found = []
    for path in _entries(folder):
        if match := _STATE.fullmatch(path.name):
            found.append(StateFile(int(match[2]), int(match[1]), path))
        elif match := _OLD_STATE.fullmatch(path.name):
            found.append(StateFile(-1, int(match[1]), path))
    return sorted(found, reverse=True)


def next_state(folder: Path, step: int) -> Path:
    """The file of the state after `step` steps, later than all that are there."""
    serials = (state.serial for state in list_states(folder))
    return folder / f"state-{step:08d}-{max((0, *serials)) + 1:04d}{SUFFIX}"


def new_run_folder(states: Path) -> Path:
    """A folder in `states` that no other run has: made here, so that two that start together get two.

    Raises:
        OSError: it cannot be made.
    """
    states.mkdir(parents=True, exist_ok=True)
    while True:
        folder = states / f"run-{_latest_number(states) + 1:04d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def latest_run_folder(states: Path) -> Path | None:
    """Where the states of the run that began last are, also if it has none yet; None where none ever began."""
    number = _latest_number(states)
    if number:
        return states / f"run-{number:04d}"
    return states if list_states(states) else None


def has_states(states: Path) -> bool:
    """Whether the run that began last can be continued; not where its folder cannot be read."""
    try:
        folder = latest_run_folder(states)
        return folder is not None and bool(list_states(folder))
    except StateError:
        return False


def _latest_number(states: Path) -> int:
    matches = (_RUN.fullmatch(path.name) for path in _entries(states) if path.is_dir())
    return max((int(match[1]) for match in matches if match), default=0)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, nothing where there is none. Raises StateError where it cannot be read."""
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise StateError(f"{folder}: the saved states cannot be looked at ({error.strerror or error})") from error
