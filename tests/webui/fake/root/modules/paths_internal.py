"""The folders of the web UI and of `--data-dir`."""

from __future__ import annotations

import fake_launch

script_path = str(fake_launch.script_path)
data_path = str(fake_launch.data)
models_path = f"{data_path}/models"
