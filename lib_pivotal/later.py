"""Modules that are imported when they are first used: a page that only starts should not wait for what a click needs.

    if TYPE_CHECKING:
        from lib_pivotal.runs import proposal
    else:
        proposal = later("lib_pivotal.runs.proposal")

Type checkers and readers see an ordinary import; `proposal.propose` imports the module the first time.
"""

from __future__ import annotations

import importlib
from typing import Any


class Later:
    """Stands for a module until one of its names is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # a copy or a pickle asks for those: that is no use of the module
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


def later(name: str) -> Any:
    """The module `name`, imported when first used."""
    return Later(name)
