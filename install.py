"""Run by the web UI at each start, in a process of its own: adds what is missing, and is quick when nothing is.

All that the extension needs comes with the web UI; a package is only asked for where somebody's environment lacks it.
Nothing that is there is upgraded or pinned. No heavy package is imported: whether one is there is looked up.
"""

from __future__ import annotations

import importlib.util

NEEDED = {"safetensors": "safetensors", "open_clip": "open_clip_torch", "numpy": "numpy", "PIL": "Pillow"}
"""Importable name -> name for pip."""


def main() -> None:
    """Install what cannot be found; without the web UI's launcher nothing is done."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return
    import launch

    for package in missing:
        launch.run_pip(f"install {package}", f"{package} for Pivotal tuning")


main()
