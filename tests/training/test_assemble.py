"""Settings into parts."""

import random
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lib_pivotal.config import NetworkConfig, run_from_dict
from lib_pivotal.data.records import Picture
from lib_pivotal.training import assemble, build
from lib_pivotal.training.objective import P2, Huber, MinSNR, SoftMinSNR, SoftMinSNRCubed
from tests.training.runs import compiled


def run_with(**sections):
    return run_from_dict({"name": "x", "words": [{"name": "aoi", "vectors": 3, "lr_factor": 2.0}], **sections})


def starts_of(run):
    return assemble.embedding_starts(run.embeddings, run.embeddings_common)


def objective_of(run):
    return assemble.make_objective(run.loss, run.noise, mask_prior=run.data.mask_prior)


def test_groups_of_embeddings_and_network(tiny_host):
    run = run_with(
        network={
            "unet_rank": 2,
            "te_targets": "attention",
            "te_lr": 1e-4,
            "te_rank": 3,
            "groups": [{"pattern": "attn2", "rank": 4, "lr_factor": 0.5}],
        }
    )
    embeddings = build.make_embeddings(
        starts_of(run),
        tiny_host.text,
        tiny_host.device,
        seed=run.seed,
    )
    network = build.make_network(
        assemble.network_plan(run.network), tiny_host.layers(), tiny_host.device, seed=run.seed
    )
    groups = {
        group.name: group
        for group in build.trained_groups(
            assemble.paces(run.embeddings_common, run.network, run.schedule), embeddings, network
        )
    }
    assert groups["word aoi"].lr_factor == 2.0 and groups["word aoi"].kind == "embeddings"
    assert {group.kind for group in groups.values()} == {"embeddings", "unet", "te"}
    assert any(group.lr_factor == 0.5 and group.kind == "unet" for group in groups.values())
    ranks = {network.spec(name).rank for name in network.layer_names if "attn2" in name and "unet" in name}
    assert ranks == {4}


@pytest.mark.parametrize(
    "network",
    [{"algorithm": "none"}, {"unet_targets": "none"}, {"unet_lr": 0.0}],
)
def test_embeddings_alone_have_no_network(tiny_host, network):
    plan = assemble.network_plan(run_with(network=network).network)
    assert build.make_network(plan, tiny_host.layers(), torch.device("cpu"), seed=0) is None


def test_same_seed_same_embeddings_and_every_embedding_its_own_chance(tiny_host):
    run = run_from_dict({"name": "x", "words": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 2}]})
    first = build.make_embeddings(
        starts_of(run),
        tiny_host.text,
        tiny_host.device,
        seed=run.seed,
    ).as_mapping()
    second = build.make_embeddings(
        starts_of(run),
        tiny_host.text,
        tiny_host.device,
        seed=run.seed,
    ).as_mapping()
    assert torch.equal(first["aoi"][0], second["aoi"][0])
    assert not torch.equal(first["aoi"][0], first["hana"][0])


def test_embedding_from_an_embedding_file(tiny_host, tmp_path):
    from lib_pivotal.bundle.embedding_files import write_embedding

    tensor = torch.randn(3, 16)
    path = write_embedding(tmp_path / "old.safetensors", (tensor,), name="old")
    run = run_from_dict({"name": "x", "words": [{"name": "aoi", "vectors": 3, "init_file": str(path)}]})
    embeddings = build.make_embeddings(
        starts_of(run),
        tiny_host.text,
        tiny_host.device,
        seed=run.seed,
    )
    torch.testing.assert_close(embeddings.as_mapping()["aoi"][0].detach(), tensor)


def test_loss_and_weighting_by_name():
    objective = objective_of(
        run_with(loss={"kind": "huber", "weighting": "min_snr", "snr_gamma": 3.0, "huber_schedule": "constant"})
    )
    assert objective.loss == Huber(0.1, "constant") and objective.weighting == MinSNR(3.0)
    other = objective_of(run_with(loss={"weighting": "p2", "snr_gamma": 1.0, "scale_v_like_noise": True}))
    assert other.weighting == P2(1.0) and other.scale_v_like_noise


def test_a_weighting_has_its_usual_gamma_unless_another_is_given():
    """5 for every weighting, as it was, is none of the papers' for two of them."""
    usual = {"min_snr": MinSNR(5.0), "soft_min_snr": SoftMinSNR(5.0), "soft_min_snr_cubed": SoftMinSNRCubed(2.0)}
    for name, weighting in {**usual, "p2": P2(1.0)}.items():
        assert objective_of(run_with(loss={"weighting": name})).weighting == weighting


def test_every_setting_of_the_noise_reaches_the_objective():
    wanted = {
        "offset": 0.1,
        "adaptive_offset": -0.05,
        "random_offset": True,
        "multires_iterations": 6,
        "multires_discount": 0.4,
        "perturbation": 0.2,
        "random_perturbation": True,
        "timestep_min": 5,
        "timestep_max": 900,
        "timestep_distribution": "late",
    }
    assert asdict(objective_of(run_with(noise=wanted)).noise) == wanted


def test_cycles_and_power_of_the_lr_scheduler():
    def rates(**schedule):
        settings = run_with(schedule={"max_steps": 20, **schedule}).schedule
        factor = assemble.make_rate_factor(settings, assemble.make_phase_plan(settings, NetworkConfig()))
        return [factor(step) for step in range(20)]

    restarts = rates(rate="cosine_restarts", lr_scheduler_cycles=2)
    assert restarts[0] == restarts[10] == 1.0 > restarts[9]
    assert rates(rate="polynomial", lr_scheduler_power=2.0)[10] == pytest.approx(0.25)


def test_rates_of_both_phases():
    schedule = run_with(schedule={"max_steps": 20, "phases": "two_phase", "words_steps": 10, "rate": "linear"}).schedule
    factor = assemble.make_rate_factor(schedule, assemble.make_phase_plan(schedule, NetworkConfig()))
    assert factor(0) > factor(9) and factor(10) == pytest.approx(factor(0))


@pytest.mark.parametrize(
    ("precision", "weights", "expected"),
    [
        ("fp32", torch.float16, None),
        ("bf16", torch.float32, torch.bfloat16),
        ("fp16", torch.float32, torch.float16),
        ("model", torch.float32, None),
        ("model", torch.bfloat16, torch.bfloat16),
    ],
)
def test_arithmetic(precision, weights, expected):
    session = assemble.session_request(run_with(memory={"precision": precision}))
    assert build.autocast_dtype(session.precision, torch.nn.Linear(2, 2).to(weights)) is expected


def test_captions_of_class_pictures_have_the_runs_lists_and_brackets():
    run = run_from_dict(
        {
            "words": [{"name": "aoi"}],
            "data": {
                "wildcards": True,
                "emphasis": False,
                "shuffle_tags": False,
                "word_lists": ["place = park"],
                "prefix": "aoi",
            },
        }
    )
    captions = assemble.class_caption_plan(run).chain()
    picture = Picture("a.png", Path("a.png"), "1girl, saber (fate), __place__", 64, 64, "")
    assert captions.draw(picture, rng=random.Random(0)) == r"1girl, saber \(fate\), park"


ASKS_SETTINGS = {
    *(
        "run",
        "assemble",
        "prepare",
        "scanning",
        "pruned_captions",
        "epochs",
        "training_metadata",
        "results",
        "class_pictures",
    ),
    "continuation",  # reads the settings of older states
}


def test_nobody_asks_the_settings_of_a_compiled_run():
    """`compile_run` is the last that meets a `Run`: what works on a host is told by `Prepared` alone."""
    folder = Path(assemble.__file__).parent
    asking = {path.stem for path in folder.glob("*.py") if "lib_pivotal.config" in path.read_text(encoding="utf-8")}
    assert asking == ASKS_SETTINGS


def test_a_compiled_run_is_resolved_for_its_pictures(two_embeddings_folder):
    run = run_from_dict(
        {
            "name": "",
            "words": [{"name": "aoi", "prune": True}, {"name": "hana"}],
            "data": {
                "folder": str(two_embeddings_folder),
                "parts": [{"applies_to": "aoi*", "keep_first": 2, "crop": "top", "loss_weight": 0.5, "flip": True}],
            },
            "schedule": {"epochs": 2, "batch_size": 2},
            "saving": {"preview_words": ["hana"]},
        }
    )
    prepared = compiled(run)
    pictures = prepared.pictures.pictures
    own = {picture.key for picture in pictures if picture.key.startswith("aoi")}
    assert prepared.name == prepared.settings["name"] == "pivotal"
    assert prepared.settings["schedule"]["epochs"] == 0 and prepared.loop.max_steps == len(pictures)
    assert prepared.latents.pictures == prepared.batches.pictures == pictures
    assert own == set(prepared.latents.own) == set(prepared.batches.captions.by_key) == prepared.latents.flip
    assert prepared.batches.loss_weights == dict.fromkeys(own, 0.5)
    assert {settings.keep_first for settings in prepared.batches.captions.by_key.values()} == {2}
    assert prepared.embeddings[0].init_text == prepared.pictures.embeddings[0].init_text != ""
    assert prepared.outputs.sampled == ("hana",)
