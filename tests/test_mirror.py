"""Tests mirror the package: `lib_pivotal/data/masks.py` is tested by `tests/data/test_masks.py`.

A module without such a file is named below with the file that tests it, as a part of a larger whole.
"""

from fnmatch import fnmatch
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "lib_pivotal"
MODULES = [
    path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py")) if not path.stem.startswith("__")
]
TESTED_BY = {
    # protocols, errors and plain records: where they are satisfied, raised and read
    "errors.py": "networks/test_network.py",
    "ports.py": "standalone/test_model.py",
    "hosting.py": "standalone/test_session.py",
    "config_checks.py": "test_config.py",
    "config_pictures.py": "test_config.py",
    "config_schema.py": "test_config.py",
    "runs/backend.py": "webui/test_backend.py",
    "runs/host_defaults.py": "runs/test_defaults.py",
    "training/model_yield.py": "webui/test_backend.py",
    "training/progress.py": "training/test_run.py",
    "training/build.py": "training/test_assemble.py",
    "training/prepared.py": "training/test_assemble.py",
    "evaluation/in_run.py": "training/test_run.py",
    "parameter_groups.py": "training/test_optimizers.py",
    # kinds of network: one battery for all of them
    "networks/algorithm.py": "networks/test_registry.py",
    "networks/kinds/*.py": "networks/test_network.py",
    # parts of a run: by whole runs, and by runs with a fault in each part
    "training/loop.py": "training/test_run.py",
    "training/trainable.py": "training/test_step.py",
    "training/epochs.py": "standalone/test_one_length.py",
    "training/training_metadata.py": "training/test_results.py",
    "training/keeping.py": "training/test_run_faults.py",
    "training/outputs.py": "training/test_run_faults.py",
    "training/recovery.py": "training/test_run_faults.py",
    "runs/preflight.py": "standalone/test_one_length.py",
    # one dataset format each: all through the same scan
    "data/image_probes.py": "data/test_scan_cache.py",
    "data/preprocessing.py": "data/test_crops.py",
    "data/sources/*.py": "data/sources/test_layout.py",
    "runs/linting.py": "runs/test_plan.py",
    # one trainer's settings: through its own file, as a user's settings file comes in
    "importing/*.py": "importing/test_settings.py",
    # the command line: through what is called
    "standalone/bundle_cli.py": "standalone/test_cli.py",
    "standalone/signals.py": "training/test_torchrun.py",
    # a panel of the page: through the page's handlers and its whole
    "ui/standalone_page.py": "standalone/test_page.py",
    "ui/bundles_*.py": "ui/test_bundle_controller.py",
    "ui/compare_panel.py": "ui/test_bundle_controller.py",
    "ui/run_panel.py": "ui/test_tab.py",
    "ui/setting_components.py": "ui/test_form.py",
    # what the web UI's pages get from us: through its cards, its rows and a run in it
    "ui/parts_rows.py": "webui/test_parts.py",
    "webui/checkpointing.py": "webui/test_session.py",
    "webui/api_folders.py": "webui/test_api_paths.py",
}
"""Module, or a pattern for several -> the file that tests it."""


def mirrored(module):
    """Where the module's own tests are, below tests/."""
    path = Path(module)
    return (path.parent / f"test_{path.name}").as_posix()


UNMIRRORED = [module for module in MODULES if not (TESTS / mirrored(module)).is_file()]


@pytest.mark.parametrize("module", UNMIRRORED)
def test_every_module_has_its_tests(module):
    found = [file for pattern, file in TESTED_BY.items() if fnmatch(module, pattern)]
    assert found, f"write tests/{mirrored(module)}, or say in TESTED_BY which file tests it"
    assert (TESTS / found[0]).is_file(), f"tests/{found[0]} is gone"


def test_no_exception_is_left_over():
    idle = [pattern for pattern in TESTED_BY if not any(fnmatch(module, pattern) for module in UNMIRRORED)]
    assert not idle, f"no longer needed: {idle}"
