"""What is logged while a run goes on, and the last traceback in it."""

import logging

from lib_pivotal.errors import HostError
from lib_pivotal.runs.run_log import RECORDS, RunLog, last_traceback


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


def test_records_of_this_package_with_tracebacks(tmp_path):
    log, logger = RunLog(), logging.getLogger("lib_pivotal.training.loop")
    logger.warning("before")
    with log.listening():
        logger.warning("a %s", "warning")
        logging.getLogger("gradio").warning("somebody else's")
        logger.error("it failed", exc_info=raised(ValueError("no number")))
        log.add_error(raised(HostError("no model")))
    logger.warning("after")
    log.write(tmp_path / "aoi.log")
    text = (tmp_path / "aoi.log").read_text()
    assert "WARNING lib_pivotal.training.loop: a warning\n" in text and "ValueError: no number\n" in text
    assert not {"before", "after", "somebody"} & set(text.split())
    assert last_traceback(text).splitlines()[0] == "Traceback (most recent call last):"
    assert last_traceback(text).splitlines()[-1] == "lib_pivotal.errors.HostError: no model"


def test_only_the_last_are_kept_and_nothing_makes_no_file(tmp_path):
    log = RunLog()
    log.write(tmp_path / "aoi.log")
    assert not (tmp_path / "aoi.log").exists()
    with log.listening():
        for number in range(RECORDS + 5):
            logging.getLogger("lib_pivotal").warning("line %d", number)
    log.write(tmp_path / "aoi.log")
    lines = (tmp_path / "aoi.log").read_text().splitlines()
    assert len(lines) == RECORDS and lines[0].endswith("line 5")


def test_a_chain_of_errors_ends_with_the_last_ones_own_line():
    try:
        try:
            raise KeyError("a")
        except KeyError as error:
            raise ValueError("b") from error
    except ValueError as error:
        log = RunLog()
        log.add_error(error)
    text = last_traceback("\n".join([*log._lines, "2026-01-01 INFO later"]))
    assert text.splitlines()[-1] == "ValueError: b" and "later" not in text


def test_without_an_error_there_is_none():
    assert last_traceback("2026-01-01 INFO fine\n") == ""
