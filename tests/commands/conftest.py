"""The three fronts over one process: its page, its API and the command line, with two LoRA files and a folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lib_pivotal.standalone.cli import main
from lib_pivotal.ui.bundle_controller import BundleController
from lib_pivotal.ui.page_controller import PageController
from tests.webui.test_api_paths import Site
from tests.webui.test_api_paths import site as site  # a fixture


@pytest.fixture
def page_bundles(site: Site) -> BundleController:  # noqa: F811
    """The Bundles page without widgets."""
    return BundleController(site.backend)


@pytest.fixture
def controller(site: Site) -> PageController:  # noqa: F811
    """The page without widgets."""
    return PageController(site.manager)


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command line says: on stderr where it refuses, with status 2."""

    def call(*arguments: object) -> str:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:  # wrong use
            status = int(str(error.code))
        said = capsys.readouterr()
        return said.err if status == 2 else said.out

    return call
