"""The avatars' checkpoints for a web UI: `python dev.py checkpoint FOLDER`.

FOLDER is the web UI's (`models/Stable-diffusion` in it is used), or a folder of checkpoints (`--ckpt-dir`). The yaml
beside a checkpoint of unusual sizes tells the web UI its shape; a text model of another width than CLIP-L's needs a
folder with transformers' config.json and CLIP's tokenizer, too. That folder is made here; the yaml names it absolutely.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

from safetensors import safe_open

from examples.avatars.checkpoints import NAMES, checkpoint
from lib_pivotal.standalone.tokenizer import write_tokenizer

TEXT_CONFIG = "pivotal.text_model"
"""The checkpoint's metadata with the text model's config.json: heads and the like are not to be seen in the weights."""


def main(arguments: list[str] | None = None) -> int:
    """Copy both checkpoints of the avatars' world, or say why not."""
    parser = argparse.ArgumentParser(prog="python dev.py checkpoint", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the web UI's folder, or a folder of checkpoints")
    folder = parser.parse_args(arguments).folder.expanduser()
    if not folder.is_dir():
        print(f"{folder} is no folder. Give the web UI's, or that of its checkpoints.", file=sys.stderr)
        return 2
    models = folder / "models" / "Stable-diffusion"
    target = models if models.is_dir() else folder
    for name in NAMES:
        print(install(checkpoint(name), target))
    return 0


def install(original: Path, folder: Path) -> Path:
    """Copy a checkpoint, its yaml and its text folder into `folder`; returns the copy."""
    folder = folder.resolve()
    yaml = original.with_suffix(".yaml").read_text(encoding="utf-8")
    version = re.search(r"^( *version: *)(.+?) *$", yaml, flags=re.MULTILINE)
    if version is not None:
        text = folder / Path(version[2].strip("'\"")).name
        write_text_folder(text, original)
        yaml = yaml[: version.start()] + version[1] + json.dumps(text.as_posix()) + yaml[version.end() :]
    (folder / original.with_suffix(".yaml").name).write_text(yaml, encoding="utf-8")
    return Path(shutil.copyfile(original, folder / original.name))


def write_text_folder(folder: Path, checkpoint: Path) -> None:
    """config.json and tokenizer of the checkpoint's text model, as transformers reads them."""
    with safe_open(str(checkpoint), framework="pt") as file:
        config = (file.metadata() or {})[TEXT_CONFIG]
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    (folder / "config.json").write_text(config, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
