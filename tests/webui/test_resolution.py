"""What is said about the picture that is being made."""

from __future__ import annotations

import pytest

from tests.webui.fake.install import FakeWebUI


def test_a_line_is_said_once_and_logged(fake_webui: FakeWebUI, caplog: pytest.LogCaptureFixture) -> None:
    from lib_pivotal.webui.resolution import resolver, say

    for _ in range(2):
        say("something odd")
    assert fake_webui.comments == ["something odd"]
    assert caplog.text.count("something odd") == 1
    assert not resolver.in_force()
