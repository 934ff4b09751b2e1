"""The ranked strip on the page."""

from lib_pivotal.commands.steps import rank_steps
from lib_pivotal.ui.steps_panel import _rounded, steps_html
from tests.runs.test_samples import write_run


def test_a_strip_with_pictures_and_buttons(tmp_path):
    html = steps_html(rank_steps(write_run(tmp_path / "1-two")))
    assert html.index("step 100") < html.index("step 50") and html.count("<figure") == 2
    assert html.count('class="best"') == 1 and html.count("data:image") == 2
    assert 'data-use="1-two:100"' in html


def test_a_figure_keeps_the_zeros_that_its_neighbours_have():
    assert [_rounded(value) for value in (0.026, 0.0266, 33.6, 100.0)] == ["0.0260", "0.0266", "33.6", "100"]


def test_rank_and_use_on_the_page(browser, manager):
    write_run(manager.backend.runs_folder() / "1-two")
    browser.press("pivotal_lists")
    shown = browser.press("pivotal_steps_rank")
    assert "1-two:100" in shown["pivotal_steps"] and "the last one is first" in shown["pivotal_steps_said"]
    browser.set("pivotal_steps_act", "1-two:50")
    assert "Kept as two-000050.safetensors" in browser.press("pivotal_steps_do")["pivotal_steps_said"]
    assert (manager.backend.lora_folder() / "two-000050.safetensors").is_file()
    browser.set("pivotal_steps_act", "1-two:77")
    assert "has no file to keep" in browser.press("pivotal_steps_do")["pivotal_steps_said"]


def test_before_any_run(browser):
    assert "no run" in browser.press("pivotal_steps_rank")["pivotal_steps_said"]
