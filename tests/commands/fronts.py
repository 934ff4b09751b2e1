"""What the fronts say when they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lib_pivotal.errors import PivotalError
from tests.webui.test_api_paths import Site


def refusal(act: Callable[[], Any]) -> str:
    """The sentence of the error that `act` raises."""
    with pytest.raises(PivotalError) as caught:
        act()
    return str(caught.value)


def detail(site: Site, path: str, body: Any) -> str:
    """The sentence of the API's answer, which is a 4xx."""
    answer = site.post(path, body)
    assert 400 <= answer.status_code < 500, answer.text
    found = answer.json()["detail"]
    return str(found if isinstance(found, str) else found["message"])
