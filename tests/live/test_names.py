"""Names of bundled words in a real web UI: each situation fails as the web UI comes, and passes with this extension."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.live.material import Material
from tests.live.situations import CASES, Situation

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture(scope="module")
def material(checkpoint: Path) -> Material:
    return Material(load_file(checkpoint))


@pytest.fixture(scope="module")
def stock(stock_webui, material: Material) -> Situation:
    return Situation(stock_webui, material)


@pytest.fixture(scope="module")
def pivotal(pivotal_webui, material: Material) -> Situation:
    return Situation(pivotal_webui, material)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_with_the_extension(pivotal: Situation, case: Callable[[Situation], None]) -> None:
    case(pivotal)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_stock_web_ui_fails(stock: Situation, case: Callable[[Situation], None]) -> None:
    with pytest.raises(Exception, match=""):  # an assertion, or the web UI's own error
        case(stock)
