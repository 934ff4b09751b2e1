"""The settings section: defaults of their own, components that fit, a log level that acts at once."""

from __future__ import annotations

import logging

import gradio as gr

from tests.webui.fake.install import FakeWebUI


def test_values_have_defaults_where_no_section_was_made(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import settings

    for option in settings.OPTIONS:
        assert settings.value(option.key) == option.default
    fake_webui.opts.data["pivotal_keep_states"] = 7
    assert settings.value("pivotal_keep_states") == 7


def test_the_section(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import settings

    fake_webui.opts.data["pivotal_precision"] = "fp32"  # from the user's config.json
    settings.register()
    labels = fake_webui.opts.data_labels
    for option in settings.OPTIONS:
        info = labels[option.key]
        assert info.section == ("pivotal", "Pivotal tuning")
        assert info.default == option.default
        component = (info.component or gr.Textbox)(
            **(info.component_args or {}), label=info.label, value=option.default
        )
        assert component.get_config()["label"] == option.label
        if option.choices:
            assert [value for _, value in component.choices] == list(option.choices)
        assert option.info in info.comment_after
    assert fake_webui.opts.pivotal_precision == "fp32"
    assert fake_webui.opts.pivotal_runs_folder == "pivotal_runs"


def test_the_log_level_acts_when_it_is_changed(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import settings

    logger = logging.getLogger("lib_pivotal")
    before = logger.level
    try:
        settings.register()
        assert fake_webui.opts.set("pivotal_log_level", "WARNING")
        assert logger.level == logging.WARNING
        fake_webui.opts.data["pivotal_log_level"] = "DEBUG"
        settings.apply_log_level()
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)
