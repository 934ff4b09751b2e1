"""Takes out of texts what nobody else should see: folders, user names, the machine's name, tokens, addresses.

A path keeps its last part; one of a program's own code keeps what comes behind `site-packages` and the like, so that a
traceback can still be read.
"""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HIDDEN, USER, MACHINE, FOLDER = "<hidden>", "<user>", "<machine>", "<folder>"
CODE = ("site-packages", "lib_pivotal", "extensions", "extensions-builtin", "modules", "repositories", "torch")
"""Folders of programs: what lies below tells nothing of the user."""
LEAST_NAME = 3
"""Shorter user names are only hidden in paths: as words they would hit everything."""
NO_NAMES = frozenset({"root", "user", "users", "home", "admin", "public", "ubuntu", "default"})

_HOMES = re.compile(r"(?:/(?:home|Users)/|[A-Za-z]:[\\/]+Users[\\/]+)([^\\/\s\"':;,<>|]+)")
_START = r"(?:file:/+|[A-Za-z]:[\\/]+|\\\\+(?=\w)|~?/)"
_QUOTED = re.compile(rf"([\"'`])({_START}[^\"'`\n]+)\1")
_SIGN = r"[^\s\\/\"'`<>|:;,()\[\]{}*?]"
_BARE = re.compile(rf"(?<![\w.:/~<>\\-]){_START}(?:{_SIGN}+[\\/]+)*{_SIGN}+[\\/]*")
_KEYED = re.compile(
    r"(?i)([\w-]*(?:token|api[_-]?key|secret|password|passwd|authorization|cookie|api-auth|gradio-auth))"
    r"(\\?[\"']?\s*[=:]\s*|\s+)(\\?[\"']?)(?:(?:bearer|basic)\s+)?([^\s\"',&\\]+)"
)
_KEY_NAMES = re.compile(r"(?i)^[\w-]*(?:token|api[_-]?key|secret|password|passwd|authorization|cookie|auth)$")
_TOKENS = re.compile(
    r"\b(?:hf|ghp|gho|ghs|ghu|github_pat|glpat|sk|pk|xox[abps]|npm|pypi)[_-][A-Za-z0-9_-]{8,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]+\.[\w-]+\.[\w-]+|(?i:\bbearer\s+)\S{6,}"
    r"|\b(?=[\w-]*[A-Z])(?=[\w-]*[a-z])(?=[\w-]*\d)[A-Za-z0-9_-]{32,}\b"
)
_LOGIN = re.compile(r"(://)[^/\s@]+@")
_QUERY = re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']+")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


class Scrubber:
    """Replaces by marks in `<>`; what was replaced once stays.

    `folders` are known ones by the mark that stands for them. Where a path with blanks ends in a sentence, only those
    that are known tell: those, and what `learn` was given. Names of users are taken from the system, too.
    """

    def __init__(self, folders: Mapping[str, Path] | None = None) -> None:
        self._paths = {str(path.absolute()): f"<{mark}>" for mark, path in (folders or {}).items()}
        self._users = {name.lower() for name in (_user(), Path.home().name) if name}
        self._machine = platform.node()

    def learn(self, texts: Iterable[str]) -> None:
        """Remember texts that are paths as a whole, and the users whose home folders stand in these texts."""
        for text in texts:
            self._users |= {name.lower() for name in _HOMES.findall(text)}
            if len(text) > 1 and "\n" not in text and re.match(_START, text):
                self._paths.setdefault(text, self._short(text))

    def text(self, text: str) -> str:
        """A text without them."""
        text = _QUERY.sub(rf"\1?{HIDDEN}", _LOGIN.sub(rf"\1{HIDDEN}@", text))
        text = _KEYED.sub(_hidden_value, text)
        for path in sorted(self._paths, key=len, reverse=True):
            for spelling in {path, path.replace("\\", "\\\\")}:
                short = self._paths[path].replace("\\", r"\\")
                text = re.sub(re.escape(spelling) + r"(?![\w-])", short, text)
        text = _QUOTED.sub(lambda match: f"{match[1]}{self._short(match[2])}{match[1]}", text)
        text = _BARE.sub(lambda match: self._short(match[0]), text)
        text = _MAIL.sub("<mail>", _TOKENS.sub(HIDDEN, text))
        return self._nameless(text)

    def plain(self, value: Any) -> Any:
        """JSON values without them; a text that is a path as a whole may hold blanks."""
        if isinstance(value, Mapping):
            return {self._whole(str(key)): self._entry(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        return self._whole(value) if isinstance(value, str) else value

    def _entry(self, key: str, value: Any) -> Any:
        return HIDDEN if isinstance(value, str) and value and _KEY_NAMES.match(key) else self.plain(value)

    def _whole(self, text: str) -> str:
        if "\n" not in text and re.match(_START, text):
            return self.text(self._short(text))
        return self.text(text)

    def _short(self, path: str) -> str:
        parts = [part for part in re.split(r"[\\/]+", path.removeprefix("file:")) if part]
        places = [place for place, part in enumerate(parts) if part in CODE]
        kept = parts[places[0] :] if places else parts[-1:]
        if not places and (len(parts) == 1 or _HOMES.fullmatch(path.rstrip("\\/"))):
            return FOLDER
        return "/".join((FOLDER, *kept))

    def _nameless(self, text: str) -> str:
        names = {name for name in self._users if len(name) >= LEAST_NAME and name not in NO_NAMES}
        marks = dict.fromkeys(names, USER) | ({self._machine.lower(): MACHINE} if len(self._machine) > 2 else {})
        for name in sorted(marks, key=len, reverse=True):
            text = re.sub(rf"(?i)(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", marks[name], text)
        return text


def _hidden_value(match: re.Match[str]) -> str:
    key, between, quote, _ = match.groups()
    if not between.strip("\\\"' ") and not key.startswith("-"):  # "token embeddings": two words of a sentence
        return match[0]
    return f"{key}{between}{quote}{HIDDEN}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a process of nobody
        return ""
