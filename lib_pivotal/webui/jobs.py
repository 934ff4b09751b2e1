"""The one run manager of the process: it outlives pages and "Reload UI", as this package stays imported."""

from __future__ import annotations

import functools

from lib_pivotal.commands.runs import make_manager
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.webui.backend import WebUIBackend


@functools.lru_cache(maxsize=1)
def run_manager() -> RunManager:
    """Made when first asked for; always the same."""
    return make_manager(WebUIBackend())
