"""Small settings files of other trainers, written for these tests."""

import textwrap

import pytest

from lib_pivotal.importing.settings import import_text
from tests.data.conftest import add

__all__ = ["add"]


@pytest.fixture
def imported():
    """Import text as if it came without a place on this computer."""

    def run(text, name):
        return import_text(textwrap.dedent(text).encode(), name)

    return run


@pytest.fixture
def line_of():
    """The line of a key; fails where there is none."""

    def find(found, key):
        lines = [line for line in found.report.lines if line.key == key]
        assert lines, f"no line for {key}"
        return lines[0]

    return find
