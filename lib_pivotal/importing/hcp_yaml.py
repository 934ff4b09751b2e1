"""HCP-Diffusion's YAML: `_base_` files, `${...}` references and `---` for "not this one", without running any of it.

HCP merges with OmegaConf (hcpdiff/utils/utils.py, `load_config`, 404f0e8): a file wins over its bases, an earlier
base over a later one; mappings are merged, lists replaced. References are read by OmegaConf's grammar and visitor, and
looked up here: a file may come from anybody, so no resolver that the process has registered is reached (`oc.env`;
HCP's own `hcp.eval` is Python's `eval`), what leads nowhere or in a circle stays as text, and growth has bounds.
`${hcp.eval:...}` is sums of numbers only.
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
from lib_pivotal.importing.reading import (
    MOST_LEAVES,
    check_size,
    children,
    package,
    parse_text,
    read_bytes,
    refuse,
)

MOST_BASES = 16
LONGEST_CHAIN = 24
LONGEST_TEXT = 4096
MOST_REFERRING = 100_000
"""Characters of texts with references, over all: settings have some thousand."""
LARGEST_NUMBER = 1e12
REMOVED = "---"
UNDER_ALL = "train_base.yaml"
"""What every chain of bases ends with: where a link is missing, so may be this one, and rates hang on it."""

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
    references = _References(_without_removed(whole))
    merged.plain, merged.used = references.tree(references.whole, ()), references.used
    check_size(merged.plain, "the merged settings")
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
            base, place = self._base(str(_References(plain).text(str(one), ("_base_",))), folder)
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


class _References:
    """Fills the references of one tree, each text once. `used` are dotted keys that others refer to."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self.whole = whole
        self.used: set[str] = set()
        self._texts: dict[tuple[str, ...], Any] = {}
        self._open: list[tuple[str, ...]] = []
        self._referring = self._copied = 0

    def tree(self, item: Any, path: tuple[str, ...]) -> Any:
        """The same tree with its references filled; `path` is where it stands."""
        if isinstance(item, dict):
            return {key: self.tree(value, (*path, key)) for key, value in item.items()}
        if isinstance(item, list):
            return [self.tree(value, (*path, str(index))) for index, value in enumerate(item)]
        return self.text(item, path) if isinstance(item, str) and "${" in item else item

    def text(self, text: str, path: tuple[str, ...]) -> Any:
        """One text; one that is a reference alone gets what it refers to as it is."""
        if "${" not in text or len(text) > LONGEST_TEXT or path in self._texts:
            return self._texts.get(path, text)
        self._referring += len(text)
        if len(self._open) > LONGEST_CHAIN or self._referring > MOST_REFERRING:
            raise refuse("${...}", "references are more, or lead further, than those of settings", "Write values.")
        grammar = package("yaml", ("omegaconf.grammar_parser",), "omegaconf")
        visitor = package("yaml", ("omegaconf.grammar_visitor",), "omegaconf").GrammarVisitor
        errors = package("yaml", ("omegaconf.errors",), "omegaconf").OmegaConfBaseException
        self._open.append(path)
        try:
            found = visitor(lambda key, memo: self._value(key, path), _computed, None).visit(grammar.parse(text))
        except (errors, ValueError, OverflowError):
            found = text
        except RecursionError as error:
            raise refuse("${...}", "references are nested too deep", "That is no settings file.") from error
        self._open.pop()
        self._texts[path] = text if isinstance(found, str) and len(found) > LONGEST_TEXT else found
        return self._texts[path]

    def _value(self, key: str, path: tuple[str, ...]) -> Any:
        """What `${key}` at `path` stands for; as written where that is nothing here, or holds itself."""
        dots = len(key) - len(key.lstrip("."))
        target = (*(path[: max(0, len(path) - dots)] if dots else ()), *re.findall(r"[^.\[\]]+", key))
        found: Any = self.whole
        for part in target:
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return f"${{{key}}}"
        if any(one[: len(target)] == target for one in self._open):
            return f"${{{key}}}"
        self.used.add(".".join(target))
        found = self.tree(found, target)
        self._copied += _size(found)
        if self._copied > MOST_LEAVES:
            raise refuse("${...}", f"references stand for more than {MOST_LEAVES} values", "That is no settings file.")
        return found


def _size(found: Any) -> int:
    """How many values `found` holds, itself included, counted as far as is allowed."""
    level, count = [found], 1
    while level and count <= MOST_LEAVES:
        level = [child for item in level for child in children(item)]
        count += len(level)
    return count


def _computed(*, name: str, args: tuple[Any, ...], args_str: tuple[str, ...]) -> Any:
    """HCP's own resolvers, of which sums of numbers are left; every other one stays as it is written."""
    if name == "hcp.time":
        return "TIME"
    found = arithmetic("*".join(map(str, args))) if name in ("hcp.eval", "times") else None
    return f"${{{name}:{','.join(args_str)}}}" if found is None else found


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
