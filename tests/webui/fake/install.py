"""The fake web UI put into this process, and taken out again.

The web UI's own modules are `root/` (`modules`, `ldm`, `sgm`) and `lora/` (the built-in extension), one file a real
module; what they do is asked of them and of the real ones by the same questions (`questions.py`). Everything that a
start of the web UI changes comes back: `sys.modules`, `sys.path`, `torch.load`, the forward of torch's layers. The
modules of `lib_pivotal.webui` are imported anew inside, since each keeps what it imported.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lib_pivotal
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from tests.webui.fake import checkpoints

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
LORA = tuple(path.stem for path in (HERE / "lora").glob("*.py"))
OURS = "lib_pivotal.webui"
THEIRS = ("modules", "ldm", "sgm", "fake_launch", "xyz_grid", *LORA)
LAYERS = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention)
PATCHED = ("forward", "_load_from_state_dict")
_MISSING = object()


class FakeWebUI:
    """A web UI that has started; its modules are attributes: `webui.shared`, `webui.sd_models`, `webui.networks`."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return importlib.import_module(name if name in LORA else f"modules.{name}")

    @property
    def lora_folder(self) -> Path:
        return self.data / "models" / "Lora"

    @property
    def embeddings_folder(self) -> Path:
        return self.data / "embeddings"

    @property
    def opts(self) -> Any:
        return self.shared.opts

    @property
    def model(self) -> Any:
        """The checkpoint, loaded when first asked for."""
        return self.shared.sd_model

    @property
    def hijack(self) -> Any:
        return self.sd_hijack.model_hijack

    @property
    def comments(self) -> list[str]:
        """The lines under the picture that is being made, or was made last."""
        return list(self.hijack.comments)

    def choose(self, name: str) -> Any:
        """Load the checkpoint of this name, as if it were chosen above."""
        self.opts.data["sd_model_checkpoint"] = self.sd_models.get_closet_checkpoint_match(name).title
        return self.sd_models.reload_model_weights() if self.sd_models.model_data.sd_model else self.model

    def add_checkpoint(self, name: str) -> Path:
        """Another file in the models' folder, listed."""
        path = self.data / "models" / "Stable-diffusion" / f"{name}.safetensors"
        shutil.copyfile(checkpoints.checkpoint_file(checkpoints.kind_of(name)), path)
        self.sd_models.CheckpointInfo(str(path)).register()
        return path

    def txt2img(self, prompt: Any, **settings: Any) -> Any:
        """`process_images`: 16 px, 2 steps; `scripts` are those that always run."""
        scripts = settings.pop("scripts", ())
        settings = {"width": 16, "height": 16, "steps": 2, "seed": 1, "sampler_name": "Euler", **settings}
        p = self.processing.StableDiffusionProcessingTxt2Img(
            prompt=prompt, do_not_save_samples=True, do_not_save_grid=True, **settings
        )
        p.scripts = self.scripts.ScriptRunner(list(scripts)) if scripts else None
        self.shared.state.begin("txt2img")
        try:
            return self.processing.process_images(p)
        finally:
            self.shared.state.end()
            p.close()

    def pixels(self, prompt: Any, **settings: Any) -> list[bytes]:
        """Of every picture."""
        return [image.tobytes() for image in self.txt2img(prompt, **settings).images]

    def reload_ui(self) -> None:
        """ "Reload UI": scripts are unloaded and their callbacks forgotten; Lora's come back."""
        self.script_callbacks.script_unloaded_callback()
        self.script_callbacks.clear_callbacks()
        self.lora_script.load()

    def load_extension(self) -> types.ModuleType:
        """Execute scripts/pivotal.py as the web UI does: not in `sys.modules`."""
        spec = importlib.util.spec_from_file_location("pivotal.py", ROOT / "scripts" / "pivotal.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@contextmanager
def installed(data: Path, *, kinds: Sequence[str] = ("sd1",), lora: bool = True, **flags: Any) -> Iterator[FakeWebUI]:
    """Inside, the web UI has started on `data` with checkpoints of these kinds and without our extension.

    `lora=False`: the built-in extension is switched off. `flags` are command line arguments.
    """
    with ExitStack() as stack:
        stack.enter_context(_imports_restored())
        stack.enter_context(_torch_restored())
        for folder in ("models/Stable-diffusion", "models/Lora", "embeddings", "extensions"):
            (data / folder).mkdir(parents=True, exist_ok=True)
        (data / "CHANGELOG.md").write_text("## 1.10.1\n", encoding="utf-8")
        launch = types.ModuleType("fake_launch")
        launch.__dict__.update(
            data=data,
            script_path=data,
            flags=flags,
            tokenizer=clip_tokenizer(),
            build_checkpoint=lambda name: checkpoints.build_checkpoint(checkpoints.kind_of(name)),
            config_of=checkpoints.kind_of,
        )
        sys.modules["fake_launch"] = launch
        webui = FakeWebUI(data)
        webui.safe  # noqa: B018  # torch.load is replaced first of all
        for kind in kinds:
            webui.add_checkpoint(kind)
        webui.sd_models.list_models()
        webui.opts.data["sd_model_checkpoint"] = next(
            title for title in webui.sd_models.checkpoints_list if title.startswith(f"{kinds[0]}.")
        )
        if lora:
            webui.lora_script.load()
            webui.script_callbacks.before_ui_callback()
        yield webui


@contextmanager
def _imports_restored() -> Iterator[None]:
    """Inside, the fake's modules are found and none of ours is imported yet; `sys.modules` is as before on exit."""
    before, path = _taken_out(), list(sys.path)
    package = lib_pivotal.__dict__.pop("webui", _MISSING)
    sys.path[:0] = [str(HERE / "root"), str(HERE / "lora")]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        _taken_out()
        sys.modules.update(before)
        sys.path[:] = path
        lib_pivotal.__dict__.pop("webui", None)
        if package is not _MISSING:
            lib_pivotal.webui = package  # type: ignore[attr-defined]


def _taken_out() -> dict[str, types.ModuleType]:
    def concerned(name: str) -> bool:
        return name.split(".")[0] in THEIRS or name == OURS or name.startswith(f"{OURS}.")

    return {name: sys.modules.pop(name) for name in [name for name in sys.modules if concerned(name)]}


@contextmanager
def _torch_restored() -> Iterator[None]:
    load = torch.load
    before = {(layer, name): layer.__dict__.get(name, _MISSING) for layer in LAYERS for name in PATCHED}
    try:
        yield
    finally:
        torch.load = load
        for (layer, name), function in before.items():
            if function is not _MISSING:
                setattr(layer, name, function)
            elif name in layer.__dict__:
                delattr(layer, name)
