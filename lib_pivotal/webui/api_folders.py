"""Which folders the API may read and write: all behind a login, else the web UI's own and those of a setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modules import paths, shared

from lib_pivotal.confinement import Confinement
from lib_pivotal.files import typed_path
from lib_pivotal.webui import settings

OF_OPTIONS = ("ckpt_dir", "vae_dir", "lora_dir", "lyco_dir_backcompat", "embeddings_dir", "hypernetwork_dir")
OF_TEMPLATES = "textual_inversion_templates_dir"
SETTING = "pivotal_api_folders"
REMEDY = (
    f"Add its folder to the setting {SETTING} (Settings > Pivotal tuning), or start the web UI with --api-auth; the "
    "web UI's own folders (data, models, outputs, --lora-dir and the like) can always be used."
)


def of_the_api() -> Confinement:
    """As the web UI was started, and as its settings are now."""
    if shared.cmd_opts.api_auth:
        return Confinement()
    return Confinement.to(_folders(), REMEDY)


def _folders() -> Iterator[Path]:
    """Without the settings' places of pictures (`outdir_...`): whoever may call the API may set those."""
    data = Path(paths.data_path)
    yield data
    yield Path(paths.models_path)
    yield data / typed_path(str(settings.value("pivotal_runs_folder")))
    for name in (*OF_OPTIONS, OF_TEMPLATES):
        if folder := getattr(shared.cmd_opts, name, None):
            yield Path(folder)
    for line in str(settings.value(SETTING)).splitlines():
        if line.strip():
            yield data / typed_path(line)
