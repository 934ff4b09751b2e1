"""Every callback of the web UI on one screen.

`register()` is called by scripts/pivotal.py at each load of the scripts, also after "Reload UI", when the web UI has
cleared all callbacks while this package stays imported: registering must never be an effect of an import.
"""

from __future__ import annotations

from modules import script_callbacks

from lib_pivotal.webui import bundles, conditionings


def register() -> None:
    """Hook the extension into the web UI."""
    bundles.register()
    conditionings.register()
    script_callbacks.on_script_unloaded(unregister)


def unregister() -> None:
    """Undo every patch, before the scripts are loaded anew."""
    conditionings.unregister()
    bundles.unregister()
