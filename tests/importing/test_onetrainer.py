"""OneTrainer's config JSON."""

import json

import pytest

from lib_pivotal.importing.settings import import_file, import_text

LORA = {
    "training_method": "LORA",
    "model_type": "STABLE_DIFFUSION_15",
    "batch_size": 4,
    "gradient_accumulation_steps": 4,
    "learning_rate": 1e-4,
    "embedding_learning_rate": 2e-3,
    "learning_rate_scheduler": "COSINE",
    "epochs": 10,
    "learning_rate_warmup_steps": 40,
    "learning_rate_min_factor": 0.1,
    "lora_rank": 8,
    "lora_alpha": 4.0,
    "resolution": "768",
    "loss_weight_fn": "MIN_SNR_GAMMA",
    "loss_weight_strength": 3.0,
    "offset_noise_weight": 0.05,
    "min_noising_strength": 0.1,
    "max_noising_strength": 0.8,
    "masked_training": True,
    "unmasked_weight": 0.2,
    "optimizer": {"optimizer": "ADAMW_8BIT", "weight_decay": 0.02, "beta1": 0.9, "beta2": 0.95, "fused": True},
    "unet": {"train": True, "learning_rate": None, "weight_dtype": "FLOAT_16"},
    "text_encoder": {"train": True, "learning_rate": 2e-5, "dropout_probability": 0.05},
    "additional_embeddings": [
        {"placeholder": "<hero>", "token_count": 5, "initial_embedding_text": "girl", "train": True},
        {
            "placeholder": "other-word",
            "token_count": None,
            "stop_training_after": 300,
            "stop_training_after_unit": "STEP",
        },
        {"placeholder": "fixed", "train": False},
    ],
    "preserve_embedding_norm": True,
    "output_model_destination": "models\\my lora.safetensors",
    "ema": "GPU",
    "ema_decay": 0.999,
    "ema_update_step_interval": 5,
    "layer_filter_preset": "attn-only",
    "clip_grad_norm": 0.5,
}


def lora(**changes):
    return import_text(json.dumps({**LORA, **changes}).encode(), "ot.json")


def test_settings(line_of):
    found = lora()
    run = found.run
    assert found.report.unknown() == []
    assert found.faults == ()
    assert (run.network.unet_rank, run.network.unet_alpha, run.network.unet_targets) == (8, 4.0, "attention")
    assert (run.network.unet_lr, run.network.te_lr, run.embeddings_common.lr) == (1e-4, 2e-5, 2e-3)
    assert (run.schedule.lr_scheduler, run.schedule.final_factor, run.schedule.optimizer) == ("cosine", 0.1, "adamw")
    assert run.schedule.warmup_steps == 10, "40 micro-batches in fours"
    assert (run.loss.weighting, run.loss.snr_gamma, run.noise.offset) == ("min_snr", 3.0, 0.05)
    assert (run.noise.timestep_min, run.noise.timestep_max) == (100, 800)
    assert (run.data.masks, run.data.mask_minimum, run.data.mask_off, run.data.mask_normalise) == (
        "linear",
        0.2,
        0.1,
        False,
    )
    assert (run.embeddings_common.control, run.data.caption_dropout, run.name) == ("preserve_norm", 0.05, "my lora")
    assert (run.schedule.clip_network, run.schedule.clip_embeddings, run.network.weight_decay) == (0.5, 0.5, 0.02)
    assert run.schedule.ema_decay == pytest.approx(0.999 ** (1 / 5), abs=1e-6)
    assert (line_of(found, "epochs").fate, run.schedule.epochs) == ("translated", 10)
    assert line_of(found, "optimizer.beta2").fate == "taken"
    assert run.schedule.optimizer_options == ("betas = [0.9, 0.95]",)
    assert line_of(found, "optimizer.beta1").fate == "taken"


def test_embeddings(line_of):
    found = lora()
    first, second = found.run.embeddings
    assert (first.name, first.vectors, first.init_text) == ("hero", 5, "girl")
    assert (second.name, second.freeze_step, second.init_text) == ("other-word", 300, "*")
    assert line_of(found, "additional_embeddings.2.placeholder").fate == "not supported"
    assert any("must say hero where they said <hero>" in remark for remark in found.report.remarks)


@pytest.mark.parametrize(
    ("scaler", "factor"), [("NONE", 1), ("BATCH", 2), ("GRADIENT_ACCUMULATION", 2), ("BOTH", 4), ("GLOBAL_BOTH", 4)]
)
def test_rates_are_scaled_by_a_square_root(scaler, factor):
    # NamedParameterGroup.py: lr · scale ** 0.5, with 4 pictures and 4 micro-batches
    run = lora(learning_rate_scaler=scaler).run
    assert run.network.unet_lr == pytest.approx(1e-4 * factor)
    assert run.embeddings_common.lr == pytest.approx(2e-3 * factor)


def test_its_defaults_are_told(line_of):
    bare = import_text(b'{"training_method": "LORA", "model_type": "STABLE_DIFFUSION_15"}', "ot.json")
    run = bare.run
    assert (run.network.unet_rank, run.network.unet_alpha, run.network.unet_targets) == (16, 1.0, "all")
    assert (run.network.unet_lr, run.schedule.batch_size, run.schedule.lr_scheduler) == (3e-6, 1, "constant")
    assert line_of(bare, "lora_alpha").added


def test_an_embedding_run():
    found = import_text(
        json.dumps({
            "training_method": "EMBEDDING", "model_type": "STABLE_DIFFUSION_15", "learning_rate": 3e-4,
            "embedding": {"placeholder": "<my cat>", "token_count": 3, "initial_embedding_text": "cat"},
        }).encode(),
        "ti.json",
    )  # fmt: skip
    assert (found.run.network.algorithm, found.run.embeddings_common.lr) == ("none", 3e-4)
    assert [(embedding.name, embedding.vectors) for embedding in found.run.embeddings] == [("my-cat", 3)]


@pytest.mark.parametrize(
    ("first", "second", "te", "te2"),
    [
        ({}, {}, 2e-5, 2e-5),
        ({}, {"train": True, "learning_rate": 1e-5}, 2e-5, 1e-5),
        ({}, {"train": False}, 2e-5, None),
        ({"train": False}, {"train": True, "learning_rate": 1e-5}, None, 1e-5),
        ({"train": False}, {"train": False}, None, None),
        ({}, {"train": True, "learning_rate": 0.0}, 2e-5, None),
    ],
)
def test_sdxls_text_encoders(line_of, first, second, te, te2):
    own = {"train": True, "learning_rate": 2e-5}
    found = lora(
        model_type="STABLE_DIFFUSION_XL_10_BASE", text_encoder={**own, **first}, text_encoder_2={**own, **second}
    )
    network = found.run.network
    assert not network.groups
    for part, rate in (("te", te), ("te2", te2)):
        assert network.trains(part) == (rate is not None)
        assert rate is None or (network.lr_of(part), network.targets_of(part)) == (rate, "attention+mlp")
    for key in ("text_encoder_2.train", "text_encoder_2.learning_rate"):
        assert line_of(found, key).fate == "taken"


def test_sd1_has_no_second_encoder():
    network = lora(text_encoder_2={"train": False, "learning_rate": 1.0}).run.network
    assert (network.te2_targets, network.te2_lr) == ("same", 0.0)


def test_concepts_and_samples_in_files_of_their_own(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "pics" / name).mkdir(parents=True)
    concepts = [{"path": str(tmp_path / "pics" / name), "enabled": True} for name in ("a", "b")]
    (tmp_path / "concepts.json").write_text(json.dumps(concepts), encoding="utf-8")
    (tmp_path / "samples.json").write_text(json.dumps([{"prompt": "a cat"}, {"prompt": ""}]), encoding="utf-8")
    path = tmp_path / "ot.json"
    names = {"concept_file_name": "concepts.json", "sample_definition_file_name": "samples.json"}
    path.write_text(json.dumps({**LORA, **names}), encoding="utf-8")
    run = import_file(path).run
    assert run.data.folder == str(tmp_path / "concepts.json")
    assert run.saving.sample_prompts == ("a cat",)


def test_dora_and_other_kinds(line_of):
    assert lora(lora_decompose=True).run.network.algorithm == "dora"
    from lib_pivotal.importing.translation import choices

    found = lora(peft_type="LOKR")
    assert line_of(found, "peft_type").fate == ("taken" if "lokr" in choices("network.algorithm") else "not supported")


def test_other_models_and_losses_are_told(line_of):
    found = lora(model_type="FLUX_DEV_1", mse_strength=0.5, mae_strength=0.5)
    assert line_of(found, "model_type").fate == "not supported"
    assert line_of(found, "mae_strength").fate == "not supported"


def test_masked_training_with_its_prior():
    masked = {"masked_training": True, "masked_prior_preservation_weight": 0.4, "unmasked_weight": 0.2}
    data = lora(**masked).run.data
    assert (data.masks, data.mask_prior, data.mask_minimum) == ("linear", 0.4, 0.2)
    assert lora(**{**masked, "masked_training": False}).run.data.mask_prior == 0


def test_options_that_our_optimiser_has_are_taken(line_of):
    options = {"optimizer": "PRODIGY", "beta1": 0.9, "beta2": 0.99, "d_coef": 0.5, "slice_p": 11, "odd": 3}
    found = import_text(json.dumps({**LORA, "optimizer": options}).encode(), "x.json")
    assert found.run.schedule.optimizer_options == ("betas = [0.9, 0.99]", "d_coef = 0.5", "slice_p = 11")
    assert line_of(found, "optimizer.beta2").fate == line_of(found, "optimizer.d_coef").fate == "taken"
    assert line_of(found, "optimizer.odd").fate == "not supported"


def test_lokr_with_its_own_settings():
    found = lora(peft_type="LOKR", lokr_decompose_factor=8, lokr_full_matrix=True, lokr_dim=12)
    network = found.run.network
    assert (network.algorithm, network.unet_rank) == ("lokr", 12)
    assert network.options == {"factor": 8, "full_matrix": True}
