"""The report of an import as the page shows it."""

from dataclasses import replace

from lib_pivotal.importing.settings import import_text
from lib_pivotal.ui.train_panel import MANY, report_html

TOML = b"""
network_dim = 16
unet_lr = 1e-4
resolution = 512
optimizer_type = "AdamW8bit"
"<script>" = "<b>"
log_with = "wandb"
"""


def test_a_table_a_fate_and_nothing_of_the_file_is_markup():
    html = report_html(import_text(TOML, "config.toml"))
    assert html.count("<details") == 4
    assert html.index("not supported (") < html.index("translated (") < html.index("taken (")
    assert '<details class="not-supported" open>' in html
    assert '<details class="taken">' in html
    assert "<script>" not in html and "&lt;script&gt;" in html and "&lt;b&gt;" in html
    assert '<tr data-narrow="1" class="unknown">' in html
    assert "<code>network.unet_rank = 16</code>" in html
    assert "<i>(not in the file)</i>" in html


def test_remarks_stand_first():
    html = report_html(import_text(TOML, "config.toml"))
    assert html.index("<li>kohya trains no embeddings") < html.index("<details")


def test_a_long_report_has_a_field_to_find_in():
    found = import_text(TOML, "config.toml")
    line = found.report.lines[0]
    few, many = (replace(found, report=replace(found.report, lines=(line,) * count)) for count in (MANY - 1, MANY))
    assert "data-narrows" not in report_html(few)
    assert report_html(many).count("data-narrows") == 1 and report_html(many).count('data-narrow="1"') == MANY
