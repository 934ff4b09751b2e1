"""HCP-Diffusion's YAML: `_base_` files, `${...}` references and `---` for "not this one", without running any of it.

HCP merges with OmegaConf (hcpdiff/utils/utils.py, `load_config`, 404f0e8): a file wins over its bases, an earlier
base over a later one; mappings are merged, lists replaced. `${hcp.eval:...}` is Python there; here it is sums of
numbers only. References to the environment, and those that lead nowhere, are left as text.

OmegaConf itself is the measure in tests/parity and is not used here, as a file may come from anybody: its resolvers are
the process's, where `hcp.eval` is Python's `eval` as soon as HCP is loaded; thirty lines `k1: ${k2}${k2}` keep it busy
for days; and one `${` in a caption or an unknown reference ends it.
"""

from __future__ import annotations

import ast
import copy
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_pivotal.errors import ConfigError
from lib_pivotal.importing.reading import MOST_LEAVES, check_size, children, parse_text, read_bytes, refuse

MOST_BASES = 16
MOST_ROUNDS = 12
LONGEST_TEXT = 4096
LARGEST_NUMBER = 1e12
REMOVED = "---"
UNDER_ALL = "train_base.yaml"
"""What every chain of bases ends with: where a link is missing, so may be this one, and rates hang on it."""

_REFERENCE = re.compile(r"\$\{([^${}]*)\}")
_OPERATIONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass
class MergedYaml:
    """A file with all its bases merged in and all references filled in.

    `used` are dotted keys that others refer to; `missing` are bases that are not on this computer.
    """

    plain: dict[str, Any]
    used: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    copied: int = 0


def resolve(
    plain: Mapping[str, Any],
    place: Path | None,
    known_bases: Mapping[str, Mapping[str, Any]],
    *,
    only_below: bool = False,
) -> MergedYaml:
    """Merge bases and fill references. `place` is the file's folder; None: bases are not looked for on disk.

    `known_bases` stands in, by file name, for bases that are not there; `only_below`: none is read that lies outside
    of `place`.
    Raises ConfigError for bases in a circle or a file of absurd size.
    """
    merged = MergedYaml({})
    bases = _Bases(known_bases, place if only_below else None, merged)
    whole = bases.below(copy.deepcopy(dict(plain)), place)
    if merged.missing and UNDER_ALL in known_bases:
        whole = merge(copy.deepcopy(dict(known_bases[UNDER_ALL])), whole)
        merged.remarks.append(f"Below all, what {UNDER_ALL} holds when nobody changed it was used.")
    whole = _without_removed(whole)
    _fill_references(whole, merged)
    check_size(whole, "the merged settings")
    merged.plain = whole
    return merged


# ---- bases ----


@dataclass(frozen=True)
class _Bases:
    """Where bases come from: files, of which a file that somebody else may have sent reaches only those in `root` and
    below, links followed; else `known`."""

    known: Mapping[str, Mapping[str, Any]]
    root: Path | None
    merged: MergedYaml

    def below(self, plain: dict[str, Any], folder: Path | None, depth: int = 0) -> dict[str, Any]:
        """`plain` over its bases; those are looked for from `folder`, that of the file that names them."""
        written = plain.pop("_base_", None) or []
        if depth > MOST_BASES:
            raise refuse("_base_", "the bases refer to each other in a circle", "Take one of them out.")
        for one in (written if isinstance(written, list) else [written])[:MOST_BASES]:
            base, place = self._base(_filled_text(str(one), plain), folder)
            plain = merge(self.below(base, place, depth + 1), plain)
        return plain

    def _base(self, name: str, folder: Path | None) -> tuple[dict[str, Any], Path | None]:
        """What a base holds, and where its own bases are looked for."""
        short, found = Path(name).name, self._find(name, folder)
        if found is not None:
            try:
                plain = parse_text(read_bytes(found), found.name)
            except ConfigError as error:
                self.merged.remarks.append(f"The base {name} cannot be read: {error.faults[0].problem}.")
                return {}, None
            return (plain, found.parent) if isinstance(plain, dict) else ({}, None)
        if short in self.known:
            text = f"The base {name} is not here; what it holds when nobody changed it was used."
            self.merged.remarks.append(text)
            return copy.deepcopy(dict(self.known[short])), None
        self.merged.missing.append(name)
        return {}, None

    def _find(self, written: str, folder: Path | None) -> Path | None:
        """The file that a base's name means. HCP looks from where it is started, so every folder above is tried, and
        then a part of HCP's folders that was taken along."""
        name = Path(written)
        if folder is None or name.suffix.lower() not in (".yaml", ".yml") or "\0" in written:
            return None
        tries = [name] if name.is_absolute() else [above / name for above in (folder, *folder.parents)]
        tries += [folder / Path(*name.parts[first:]) for first in range(1, len(name.parts))]
        try:
            return next((path for path in tries if self._may(path) and path.is_file()), None)
        except (OSError, ValueError, RuntimeError):
            return None

    def _may(self, path: Path) -> bool:
        return self.root is None or path.resolve().is_relative_to(self.root.resolve())


def merge(below: Any, above: Any) -> Any:
    """`above` over `below`: mappings key by key, everything else replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        keys = [*below, *(key for key in above if key not in below)]
        return {key: merge(below[key], above[key]) if key in below and key in above else
                (above[key] if key in above else below[key]) for key in keys}  # fmt: skip
    return above


def _without_removed(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _without_removed(value) for key, value in item.items() if value != REMOVED}
    if isinstance(item, list):
        return [_without_removed(value) for value in item if value != REMOVED]
    return item


# ---- references ----


def _fill_references(whole: dict[str, Any], merged: MergedYaml) -> None:
    """Round after round, innermost first, until nothing changes; a circle ends with the last round."""
    for _ in range(MOST_ROUNDS):
        if not _fill_round(whole, whole, (), merged):
            return
        check_size(whole, "the merged settings")


def _fill_round(item: Any, whole: dict[str, Any], path: tuple[str, ...], merged: MergedYaml) -> bool:
    """Replace references in `item`, in place; whether any was."""
    changed = False
    pairs = list(item.items()) if isinstance(item, dict) else list(enumerate(item))
    for key, value in pairs:
        if isinstance(value, str) and "${" in value:
            filled = _filled(value, whole, (*path, str(key)), merged)
            if filled != value:
                item[key] = filled
                changed = True
        elif children(value):
            changed |= _fill_round(value, whole, (*path, str(key)), merged)
    return changed


def _filled(text: str, whole: dict[str, Any], path: tuple[str, ...], merged: MergedYaml) -> Any:
    """One value with its innermost references filled; a value that is one reference gets what it refers to as it is."""
    alone = _REFERENCE.fullmatch(text)
    if alone:
        return _value_of(alone.group(1), text, whole, path, merged)

    def one(match: re.Match[str]) -> str:
        found = _value_of(match.group(1), match.group(0), whole, path, merged)
        return match.group(0) if isinstance(found, dict | list) else str(found)

    filled = _REFERENCE.sub(one, text)
    return filled if len(filled) <= LONGEST_TEXT else text


def _filled_text(text: str, whole: dict[str, Any]) -> str:
    """A text whose references are to plain values of the same file, as base paths are."""
    for _ in range(4):
        filled = _filled(text, whole, (), MergedYaml({}))
        if filled == text or not isinstance(filled, str):
            break
        text = filled
    return text


def _value_of(inside: str, written: str, whole: dict[str, Any], path: tuple[str, ...], merged: MergedYaml) -> Any:
    """What `${inside}` stands for; `written` where it stands for nothing here."""
    name, colon, argument = inside.partition(":")
    if colon:
        return _computed(name.strip(), argument, written)
    dots = len(inside) - len(inside.lstrip("."))
    keys = [key for key in inside[dots:].split(".") if key]
    start = [*path[: max(0, len(path) - dots)]] if dots else []
    target = (*start, *keys)
    if target == path[: len(target)]:
        return written  # it would hold itself
    found: Any = whole
    for key in target:
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            return written
    merged.used.add(".".join(target))
    merged.copied += _size(found)
    if merged.copied > MOST_LEAVES:
        raise refuse("${...}", f"references stand for more than {MOST_LEAVES} values", "That is no settings file.")
    return copy.deepcopy(found)


def _size(found: Any) -> int:
    """How many values `found` holds, itself included, counted as far as is allowed."""
    level, count = [found], 1
    while level and count <= MOST_LEAVES:
        level = [child for item in level for child in children(item)]
        count += len(level)
    return count


def _computed(name: str, argument: str, written: str) -> Any:
    if name == "hcp.eval":
        found = arithmetic(argument.strip().strip("\"'"))
    elif name == "times":
        found = arithmetic(argument.replace(",", "*"))
    elif name == "hcp.time":
        return "TIME"
    else:
        return written
    return written if found is None else found


def arithmetic(text: str) -> int | float | None:
    """The value of a sum of numbers such as `512*512`; None for anything else."""
    if len(text) > 100:
        return None
    try:
        return _calculated(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError, TypeError):
        return None


def _calculated(node: ast.AST) -> int | float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float) and abs(node.value) <= LARGEST_NUMBER:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        found = _OPERATIONS[type(node.op)](_calculated(node.left), _calculated(node.right))
        if abs(found) <= LARGEST_NUMBER:
            return found
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_calculated(node.operand)
    raise ValueError("not a sum of numbers")
