"""Which web UI this is, and what differs between its versions: the only file that knows."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modules import call_queue, paths_internal, progress, sd_hijack_clip, sd_models

from lib_pivotal.errors import HostError

OLDEST = (1, 7, 0)
"""The first version that reads bundles (its pull request 13568)."""


def version() -> tuple[int, int, int] | None:
    """The web UI's version by its change log, or None where that cannot be read (forks)."""
    try:
        text = Path(paths_internal.script_path, "CHANGELOG.md").read_text(encoding="utf-8")[:200]
    except OSError:
        return None
    found = re.search(r"^## (\d+)\.(\d+)\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def program() -> dict[str, str]:
    """What runs us, for a problem report."""
    found = version()
    return {"web UI": "unknown" if found is None else ".".join(map(str, found))}


def check_version() -> None:
    """Refuse a web UI that is too old.

    Raises:
        HostError: one sentence for the user.
    """
    found = version()
    if found is not None and found < OLDEST:
        raise HostError(
            f"Pivotal tuning needs web UI {'.'.join(map(str, OLDEST))} or newer; this is {'.'.join(map(str, found))}. "
            "Update it (git pull) and start it again."
        )


def in_fresh_thread(function: Callable[[], None]) -> None:
    """Call `function` in a thread of its own, and wait for it.

    `script_callbacks.add_callback` (script_callbacks.py:115) looks through its caller's stack with `inspect.stack`,
    which takes about 0.1 s for each callback below the import machinery of a script, and nothing in a fresh thread.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pivotal") as pool:
        pool.submit(function).result()


def text_model_base() -> Any:
    """The class that turns a line into chunks: `TextConditionalModel` since 1.10, before that the base of CLIP's."""
    base = getattr(sd_hijack_clip, "TextConditionalModel", None)
    return sd_hijack_clip.FrozenCLIPEmbedderWithCustomWordsBase if base is None else base


def jobs_waiting() -> bool:
    """Whether somebody waits for the queue lock. `FIFOLock` since 1.7; a plain lock tells nothing but queued tasks."""
    waiting = getattr(call_queue.queue_lock, "_pending_threads", None)
    return bool(progress.pending_tasks if waiting is None else waiting)


def lock_is_taken() -> bool:
    """Whether somebody holds the queue lock now."""
    lock: Any = getattr(call_queue.queue_lock, "_lock", call_queue.queue_lock)
    return bool(lock.locked())


def lora_networks() -> Any:
    """The module `networks` of the built-in Lora extension.

    Raises:
        HostError: the extension is switched off.
    """
    networks = find_lora_networks()
    if networks is None:
        raise HostError("the built-in extension Lora is switched off. Enable it in Extensions, and reload.")
    return networks


def find_lora_networks() -> Any:
    """The same, or None where the extension is switched off."""
    found = sys.modules.get("networks")
    return found if hasattr(found, "loaded_networks") else None


def list_lora_files(names: Sequence[str]) -> None:
    """Let the Lora extension find files of these names that it has not listed; before 1.10 it lists all anew."""
    networks = lora_networks()
    if hasattr(networks, "process_network_files"):
        networks.process_network_files(list(names))
    else:
        networks.list_available_networks()


def ui_module() -> Any:
    """`modules.ui`, which has long been imported when the page is wanted, and is not needed without one."""
    return importlib.import_module("modules.ui")


def loaded_model() -> Any:
    """The checkpoint in memory, or None; asking for `shared.sd_model` would load one."""
    return sd_models.model_data.sd_model
