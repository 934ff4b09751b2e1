"""kohya's flags, looked at by the scripts' own names, also where bmaltais' GUI calls them otherwise."""

from __future__ import annotations

from typing import Any

from lib_pivotal.importing.common import Origin
from lib_pivotal.importing.datasets import read_described
from lib_pivotal.importing.kohya_names import GUI_NAMES
from lib_pivotal.importing.reading import number
from lib_pivotal.importing.sheet import Sheet


class Flags:
    """A sheet looked at by the scripts' own names for their flags; the GUI calls some of them otherwise."""

    def __init__(self, sheet: Sheet, origin: Origin, *, gui: bool) -> None:
        self.sheet = sheet
        self.origin = origin
        self.gui = gui
        self.epoch_steps = 0
        self.dataset_file = origin.find(self.sheet.get("dataset_config"))
        found = self.dataset_file
        self.described = None if found is None else read_described(found, "kohya_toml", origin.may_read)
        """kohya's dataset file as a scan reads it; None where there is none, or its folders are not here."""
        self._names = {ours: theirs for theirs, ours in GUI_NAMES.items()} if gui else {}

    def key(self, name: str) -> str:
        """The file's key for a flag."""
        other = self._names.get(name, name)
        return other if self.sheet.has(other) or not self.sheet.has(name) else name

    def get(self, name: str) -> Any:
        """The flag's value; None where it is missing, empty, or 0 in a GUI's file, where that means the default."""
        value = self.sheet.get(self.key(name))
        return None if value in ("", []) else value

    def number(self, name: str) -> float | None:
        """The flag's number."""
        return number(self.get(name))

    def flag(self, name: str) -> bool:
        """Whether the flag is on."""
        return self.sheet.flag(self.key(name))


def take_flag(flags: Flags, name: str, path: str, value: Any, *, default: Any) -> None:
    """A flag as it is, or kohya's default where the file has none."""
    key = flags.key(name)
    if flags.sheet.has(key) and flags.get(name) is not None:
        flags.sheet.taken(key, path, value)
    else:
        flags.sheet.honoured(key, "kohya's own default", f"{path} = {default}")
        flags.sheet.default(name, path, default, "kohya's own default")
