"""Scripts of extensions, and their turns while pictures are made."""

from __future__ import annotations

import re
from collections import namedtuple
from typing import Any

AlwaysVisible = object()
ScriptClassData = namedtuple("ScriptClassData", ["script_class", "path", "basedir", "module"])
scripts_data: list[ScriptClassData] = []


class Script:
    name: str | None = None
    filename: str | None = None
    args_from: int | None = None
    args_to: int | None = None
    alwayson = False
    is_txt2img = False
    is_img2img = False
    tabname: str | None = None
    create_group = True
    infotext_fields: Any = None

    def title(self) -> str:
        raise NotImplementedError

    def ui(self, is_img2img: bool) -> Any:
        return None

    def show(self, is_img2img: bool) -> Any:
        return True

    def run(self, p: Any, *args: Any) -> Any:
        return None

    def process(self, p: Any, *args: Any) -> None: ...

    def before_process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None: ...

    def after_extra_networks_activate(self, p: Any, *args: Any, **kwargs: Any) -> None: ...

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None: ...

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None: ...

    def elem_id(self, item_id: str) -> str:
        """With the tab's name for a script that is shown in both tabs."""
        tab = f"{'img2img' if self.is_img2img else 'txt2img'}_" if self.show(True) == self.show(False) else ""
        title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", self.title().lower()))
        return f"script_{tab}{title}_{item_id}"


class ScriptRunner:
    """The scripts that always run, in their order; what one raises stops nothing."""

    def __init__(self, scripts: list[Script]) -> None:
        self.alwayson_scripts = scripts

    def __getattr__(self, turn: str) -> Any:
        if turn.startswith("__"):
            raise AttributeError(turn)

        def run(p: Any, *args: Any, **kwargs: Any) -> None:
            from modules import errors

            for script in self.alwayson_scripts:
                try:
                    getattr(script, turn, lambda *_, **__: None)(p, *args, **kwargs)
                except Exception:
                    errors.report(f"Error running {turn}: {script.filename}", exc_info=True)

        return run
