"""Every callback of the web UI on one screen.

`register()` is called by scripts/pivotal.py at each load of the scripts, also after "Reload UI", when the web UI has
cleared all callbacks while this package stays imported: registering must never be an effect of an import.
"""

from __future__ import annotations

import logging
from typing import Any

from modules import script_callbacks, shared

from lib_pivotal.errors import PivotalError
from lib_pivotal.webui import (
    axes,
    bundle_routes,
    cards,
    compat,
    cond_cache_patch,
    infotexts,
    resolution_patch,
    settings,
    token_counter_patch,
)

logger = logging.getLogger(__name__)


def register() -> None:
    """Hook the extension into the web UI; one that is too old is told so, and left alone."""
    try:
        compat.check_version()
    except PivotalError as error:
        logger.error("%s", error)
        return
    resolution_patch.register()
    cond_cache_patch.register()
    cards.register()
    compat.in_fresh_thread(_add_callbacks)


def _add_callbacks() -> None:
    token_counter_patch.register()
    script_callbacks.on_infotext_pasted(infotexts.pasted)
    axes.register()  # with --nowebui the scripts' arguments are settled before on_before_ui
    script_callbacks.on_before_ui(axes.register)
    script_callbacks.on_ui_settings(settings.register)
    script_callbacks.on_ui_tabs(_build_tab)
    script_callbacks.on_app_started(_app_started)
    script_callbacks.on_script_unloaded(unregister)


def unregister() -> None:
    """Undo every patch, before the scripts are loaded anew."""
    token_counter_patch.unregister()
    cards.unregister()
    cond_cache_patch.unregister()
    resolution_patch.unregister()


def _build_tab() -> list[Any]:
    from lib_pivotal.webui import tab  # here: with --nowebui no page is built

    return tab.build()


def _app_started(demo: Any, app: Any) -> None:
    settings.apply_log_level()
    bundle_routes.register_page(app)
    if shared.cmd_opts.api or shared.cmd_opts.nowebui:
        from lib_pivotal.webui import api  # here: training's modules are not needed to start

        api.register(app)
