"""Sizes and settings by the kind of the checkpoint."""

from dataclasses import replace

import pytest

from lib_pivotal.config import DataConfig, NetworkConfig, Run
from lib_pivotal.ports import ModelInfo
from lib_pivotal.runs.checkpoint_advice import SECOND_ENCODER, idle_settings, native_px, suitability_remarks

SD1, SD2, V2 = ModelInfo("a"), ModelInfo("b", "sd2"), ModelInfo("v", "sd2", v_prediction=True)
SDXL = ModelInfo("x", "sdxl")


@pytest.mark.parametrize(("model", "side"), [(None, 512), (SD1, 512), (SD2, 512), (V2, 768), (SDXL, 1024)])
def test_the_size_that_a_checkpoint_draws_best(model, side):
    assert native_px(model) == side


def run_of(size, **changes):
    return Run(data=DataConfig(resolution_px=size), **changes)


def test_a_fitting_run_needs_no_remark():
    assert suitability_remarks(run_of(64, clip_skip=2), SD1, fitting_px=64) == ()
    assert suitability_remarks(run_of(768), V2, fitting_px=768) == ()
    assert suitability_remarks(run_of(512, clip_skip=2), None) == ()


def test_a_size_too_small_or_too_large_is_said_with_the_right_one():
    (small,) = suitability_remarks(run_of(512), SDXL, fitting_px=1024)
    assert "512" in small and "SDXL" in small and "1024" in small
    assert suitability_remarks(run_of(512), SDXL, fitting_px=512) == (), "the pictures hold no more"
    (large,) = suitability_remarks(run_of(1024), SD1, fitting_px=512)
    assert "made for 512" in large


def test_clip_skip_and_both_text_encoders_are_explained():
    assert "Clip skip: 2" in suitability_remarks(run_of(512, clip_skip=2), SD2)[0]
    run = replace(run_of(1024), network=NetworkConfig(te_targets="attention"))
    (both,) = suitability_remarks(run, SDXL)
    assert "lora_te1_" in both and "lora_te2_" in both
    assert suitability_remarks(replace(run, data=DataConfig(resolution_px=512)), SD1) == ()


@pytest.mark.parametrize("model", [SD1, SD2, V2])
def test_a_second_text_encoder_where_there_is_only_one_is_told(model):
    assert idle_settings(model) == SECOND_ENCODER
    for network in (NetworkConfig(te2_targets="attention"), NetworkConfig(te2_lr=1e-4)):
        (told,) = suitability_remarks(Run(network=network), model)
        assert "Second text encoder" in told and "no effect" in told
    assert suitability_remarks(Run(network=NetworkConfig(te2_targets="none")), model) == ()


def test_sdxl_has_two():
    assert idle_settings(SDXL) == idle_settings(None) == ()
    own = replace(run_of(1024), network=NetworkConfig(te_targets="attention", te2_targets="attention", te2_lr=1e-4))
    assert suitability_remarks(own, SDXL) == ()
