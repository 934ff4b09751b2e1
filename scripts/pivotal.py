"""The extension's door: everything lives in `lib_pivotal`; no class is defined here (v1.10.1 could not pickle it)."""

from lib_pivotal.webui import hooks
from lib_pivotal.webui.four_rows import FourRows
from lib_pivotal.webui.parts import LoraParts

__all__ = ["FourRows", "LoraParts"]

hooks.register()
