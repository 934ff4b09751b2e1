"""Who trains when."""

import pytest

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.phases import Phase, PhasePlan


def test_joint_trains_all_from_the_first_step():
    assert PhasePlan(10).at(0) == Phase("joint", 1.0, 1.0, 1.0)


def test_network_starts_late_and_text_encoder_stops_early():
    plan = PhasePlan(100, network_start=0.2, te_stop=0.5)
    assert plan.at(19) == Phase("words", 1.0, 0.0, 0.0)
    assert plan.at(20) == Phase("joint", 1.0, 1.0, 1.0)
    assert plan.at(49).te == 1.0
    assert plan.at(50) == Phase("joint", 1.0, 1.0, 0.0)


def test_two_phase_freezes_or_continues_the_words():
    plan = PhasePlan(30, kind="two_phase", words_steps=10)
    assert [plan.at(step).words for step in (0, 9, 10, 29)] == [1.0, 1.0, 0.0, 0.0]
    assert [plan.at(step).unet for step in (0, 9, 10, 29)] == [0.0, 0.0, 1.0, 1.0]
    assert PhasePlan(30, kind="two_phase", words_steps=10, continued_words_factor=0.2).at(15).words == 0.2


def test_each_phase_has_its_own_schedule_of_rates():
    plan = PhasePlan(30, kind="two_phase", words_steps=10)
    assert plan.rate_position(9) == (9, 10)
    assert plan.rate_position(10) == (0, 20)
    assert PhasePlan(30).rate_position(10) == (10, 30)


@pytest.mark.parametrize("words_steps", [0, 30, 31])
def test_impossible_two_phase_plan_is_refused(words_steps):
    with pytest.raises(TrainingError, match="words_steps"):
        PhasePlan(30, kind="two_phase", words_steps=words_steps)
