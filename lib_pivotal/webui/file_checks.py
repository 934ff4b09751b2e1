"""What the web UI, with the checkpoint that it has loaded, makes of a LoRA file."""

from __future__ import annotations

from pathlib import Path

from modules import call_queue

from lib_pivotal.bundle.format import Problem, family_of_widths
from lib_pivotal.bundle.layer_names import UnetShape
from lib_pivotal.webui import catalog, compat, resolution_patch
from lib_pivotal.webui.resolution import resolver


def unet_shape(path: Path) -> UnetShape | None:
    """The blocks of the loaded checkpoint's U-Net, if the file is for its family; else None."""
    model = compat.loaded_model()
    seen = catalog.catalog.look(path)
    widths = resolution_patch.model_widths() if model is not None else ()
    if not widths or isinstance(seen, str) or seen.family not in ("unknown", family_of_widths(widths)):
        return None
    return UnetShape.from_compvis_paths(f"{name}." for name, _ in model.model.diffusion_model.named_modules())


def stock_loader_says(name: str) -> list[Problem]:
    """Read the file with `networks.load_network` as v1.10.1 has it: what it refuses, which names it would know."""
    entry = catalog.find_on_disk(name)
    original = next((patch.original for patch in resolver.patches.applied if patch.name == "load_network"), None)
    if entry is None or original is None:
        return []
    described = catalog.describe(entry)
    ours = {embedding["name"] for embedding in described["words"]}
    with call_queue.queue_lock:
        try:
            net = original(entry.name, entry)
        except Exception as error:
            what = f"a web UI without this extension refuses the whole file: {error or type(error).__name__}"
            dotted = ", ".join(sorted(name for name in ours if "." in name))
            mend = f"rename {dotted} without a dot" if dotted else "fix it"
            return [Problem("warning", what, f"With it, the file works; for others {mend}.")]
    odd = sorted(ours ^ set(net.bundle_embeddings))
    problems = []
    if odd:
        what = (
            f"a web UI without this extension knows other names: {', '.join(sorted(net.bundle_embeddings)) or 'none'}"
        )
        problems.append(Problem("warning", what, f"Rename {', '.join(sorted(ours & set(odd)))}."))
    if described["parts"] and not net.modules:
        problems.append(Problem("warning", "no layer of its network fits the checkpoint that is loaded"))
    return problems
