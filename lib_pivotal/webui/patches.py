"""Replace functions of the web UI, so that every replacement can be taken back, at any time and in any order.

Another extension may have wrapped a function after us. Then ours stays inside its wrapper, and from then on only hands
the call through: nothing of ours is left at work after `undo`, and nothing of theirs is lost.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)


@dataclass
class Patch:
    """One replaced function: where it was, what it was, and whether the replacement is at work."""

    owner: Any
    name: str
    original: Callable[..., Any]
    replacement: Callable[..., Any]
    inherited: bool
    active: bool = True


@dataclass
class Patches:
    """All replacements of one part of the extension."""

    applied: list[Patch] = field(default_factory=list)

    def wrap(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        """Let `owner.name(*arguments)` be `wrapper(original, *arguments)`.

        `owner` is a module or a class. Wrapping the same function twice is refused, since undoing would then depend on
        the order: RuntimeError.
        """
        if any(patch.owner is owner and patch.name == name for patch in self.applied):
            raise RuntimeError(f"{name} is wrapped already")
        original = getattr(owner, name)

        @functools.wraps(original)
        def replacement(*arguments: Any, **named: Any) -> Any:
            if not patch.active:
                return original(*arguments, **named)
            return wrapper(original, *arguments, **named)

        inherited = isinstance(owner, type) and name not in vars(owner)
        patch = Patch(owner, name, original, replacement, inherited)
        setattr(owner, name, replacement)
        self.applied.append(patch)

    def undo(self) -> None:
        """Take back everything, last first. Calling it again does nothing."""
        while self.applied:
            patch = self.applied.pop()
            patch.active = False
            if getattr(patch.owner, patch.name, None) is not patch.replacement:
                logger.debug("%s was wrapped again by another extension; ours is passed through", patch.name)
            elif patch.inherited:
                delattr(patch.owner, patch.name)
            else:
                setattr(patch.owner, patch.name, patch.original)
