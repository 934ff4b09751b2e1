"""kohya's TOML and bmaltais' JSON."""

import json

import pytest
from PIL import Image

from lib_pivotal.commands.datasets import scan_pictures
from lib_pivotal.importing.kohya import gui_flags
from lib_pivotal.importing.settings import import_file, import_text
from lib_pivotal.networks.targets import preset_pattern

LORA = """
pretrained_model_name_or_path = "sd15.safetensors"
network_module = "networks.lora"
network_dim = 16
network_args = ["rank_dropout=0.1"]
unet_lr = 1e-4
text_encoder_lr = 5e-5
train_batch_size = 2
max_train_steps = 800
lr_scheduler = "cosine"
lr_warmup_steps = 0.1
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.05", "betas=0.9,0.99"]
min_snr_gamma = 5
noise_offset = 0.05
shuffle_caption = true
keep_tokens = 1
[picture_arguments]
resolution = "512,768"
enable_bucket = true
bucket_no_upscale = true
max_token_length = 225
clip_skip = 2
caption_dropout_rate = 0.1
save_precision = "bf16"
save_every_n_steps = 200
log_with = "wandb"
"""


def toml(imported, text=LORA, *changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return imported(text, "config.toml")


def test_flags_become_settings(imported):
    run = toml(imported).run
    assert (run.network.unet_rank, run.network.te_rank, run.network.rank_dropout) == (16, 16, 0.1)
    assert (run.network.unet_lr, run.network.te_lr, run.network.te_targets) == (1e-4, 5e-5, "attention+mlp")
    assert (run.schedule.batch_size, run.schedule.max_steps, run.schedule.lr_scheduler) == (2, 800, "cosine")
    assert (run.schedule.warmup_steps, run.schedule.optimizer, run.network.weight_decay) == (80, "adamw", 0.05)
    assert (run.loss.weighting, run.loss.snr_gamma, run.noise.offset) == ("min_snr", 5.0, 0.05)
    assert (run.data.resolution_px, run.data.bucketing, run.data.upscale) == (627, True, False)
    assert (run.data.max_tokens, run.clip_skip, run.data.keep_first) == (225, 2, 1)
    assert (run.data.caption_dropout, run.saving.dtype, run.saving.every_steps) == (0.1, "bf16", 200)


def test_rates_are_never_scaled_by_the_batch(imported):
    assert toml(imported, LORA, ("train_batch_size = 2", "train_batch_size = 8")).run.network.unet_lr == 1e-4


def test_kohyas_defaults_are_told_where_they_differ(imported, line_of):
    found = toml(imported)
    assert found.run.network.unet_alpha == 1.0
    assert line_of(found, "network_alpha").added
    assert (found.run.data.emphasis, found.run.data.wildcards) == (False, False)
    bare = toml(
        imported, LORA, ("network_dim = 16\n", ""), ("max_train_steps = 800\n", ""), ("shuffle_caption = true\n", "")
    )
    assert (bare.run.network.unet_rank, bare.run.schedule.max_steps, bare.run.data.shuffle_tags) == (4, 1600, False)


def test_every_key_has_a_line(imported, line_of):
    found = toml(imported)
    assert found.report.unknown() == []
    assert line_of(found, "log_with").fate == "ignored"
    assert line_of(found, "optimizer_args.betas").fate == "taken"
    assert found.run.schedule.optimizer_options == ("betas = [0.9, 0.99]",)
    assert line_of(found, "optimizer_type").why.endswith("instead of 8 bit")
    assert found.faults == ()


def test_the_layers_are_kohyas_192(imported):
    from lib_pivotal.importing.hcp_layers import unet_leaves
    from lib_pivotal.training.assemble import network_rules

    run = toml(imported).run
    rules = network_rules(run.network, "unet")
    names = [f"lora_unet_{leaf.kohya}" for leaf in unet_leaves()]
    reached = {name: next((rule for rule in rules if rule.matches(name)), None) for name in names}
    with_rank = {name for name, rule in reached.items() if rule is not None and rule.rank}
    import re

    wanted = {name for name in names if re.search(preset_pattern("unet", "kohya"), name)}
    assert with_rank == wanted
    assert len(wanted) == 192
    assert {(rule.rank, rule.alpha) for rule in reached.values() if rule} == {(16, 1.0)}


def test_locon_gets_a_group_for_3x3(imported):
    from lib_pivotal.training.assemble import network_rules

    run = toml(imported, LORA, ('["rank_dropout=0.1"]', '["conv_dim=4", "conv_alpha=2"]')).run
    rules = network_rules(run.network, "unet")
    first = {name: next(rule for rule in rules if rule.matches(f"lora_unet_{name}")) for name in (
        "down_blocks_0_resnets_0_conv1", "down_blocks_0_resnets_0_time_emb_proj", "mid_block_attentions_0_proj_in",
    )}  # fmt: skip
    assert [(rule.rank, rule.alpha) for rule in first.values()] == [(4, 2.0), (16, 1.0), (16, 1.0)]


def test_blocks_become_groups(imported):
    from lib_pivotal.training.assemble import network_rules

    down = ",".join(["0.5"] * 12)
    run = toml(imported, LORA, ('["rank_dropout=0.1"]', f'["down_lr_weight={down}", "mid_lr_weight=2"]')).run
    rules = network_rules(run.network, "unet")

    def factor(name):
        return next(rule for rule in rules if rule.matches(f"lora_unet_{name}")).lr_factor

    inner = "attentions_0_transformer_blocks_0_attn1_to_q"
    assert [factor(f"{block}_{inner}") for block in ("down_blocks_0", "mid_block", "up_blocks_1")] == [0.5, 2.0, 1.0]


def test_parts_that_are_not_trained(imported):
    only = toml(imported, LORA, ("clip_skip = 2", "network_train_unet_only = true")).run
    assert (only.network.te_targets, only.network.unet_lr) == ("none", 1e-4)
    text = toml(imported, LORA, ("clip_skip = 2", "network_train_text_encoder_only = true")).run
    assert (text.network.unet_targets, text.network.te_lr) == ("none", 5e-5)


def test_learning_rate_holds_where_a_part_has_none(imported):
    run = toml(imported, LORA, ("unet_lr = 1e-4\n", "learning_rate = 3e-4\n"), ("text_encoder_lr = 5e-5\n", "")).run
    assert (run.network.unet_lr, run.network.te_lr) == (3e-4, 3e-4)


@pytest.mark.parametrize(
    ("written", "te", "te2"),
    [
        ("[4e-5, 1e-5]", ("attention+mlp", 4e-5), ("attention+mlp", 1e-5)),
        ("[4e-5]", ("attention+mlp", 4e-5), ("attention+mlp", 4e-5)),
        ("[4e-5, 0]", ("attention+mlp", 4e-5), None),
        ("[0, 1e-5]", None, ("attention+mlp", 1e-5)),
        ("[0, 0]", None, None),
    ],
)
def test_rates_of_sdxls_text_encoders(imported, line_of, written, te, te2):
    """sd-scripts 48d368f, networks/lora.py, `prepare_optimizer_params_with_multiple_te_lrs`: one or two rates."""
    found = toml(imported, LORA, ("text_encoder_lr = 5e-5", f"text_encoder_lr = {written}"))
    network = found.run.network
    assert not [group for group in network.groups if "te2" in group.pattern]
    for part, wanted in (("te", te), ("te2", te2)):
        assert network.trains(part) == (wanted is not None)
        if wanted:
            assert (network.targets_of(part), network.lr_of(part)) == wanted
    line = line_of(found, "text_encoder_lr")
    assert line.fate in ("taken", "translated") and ("te2_" in line.became) == (te != te2)


def test_a_list_of_rates_where_only_the_unet_is_trained(imported):
    unet_only = "text_encoder_lr = [4e-5, 1e-5]\nnetwork_train_unet_only = true"
    network = toml(imported, LORA, ("text_encoder_lr = 5e-5", unet_only)).run.network
    assert not network.trains("te") and not network.trains("te2")


def test_epochs_where_the_pictures_are_here(tmp_path):
    folder = tmp_path / "img" / "5_hanako"
    folder.mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (8, 8)).save(folder / f"{index}.png")
    text = LORA.replace(
        "max_train_steps = 800", 'max_train_epochs = 4\ntrain_data_dir = "img"\nsave_every_n_epochs = 2'
    )
    path = tmp_path / "c.toml"
    path.write_text(text.replace("save_every_n_steps = 200\n", ""), encoding="utf-8")
    run = import_file(path).run
    # 3 pictures × 5 in batches of 2 are 8 steps an epoch
    assert (run.schedule.max_steps, run.saving.every_steps) == (32, 16)
    assert run.data.folder == str(tmp_path / "img")


def test_epochs_without_pictures_wait_for_the_scan(imported, line_of):
    found = toml(imported, LORA, ("max_train_steps = 800", "max_train_epochs = 4"))
    line = line_of(found, "max_train_epochs")
    assert (line.fate, line.became) == ("translated", "schedule.epochs = 4") and "computed at Scan" in line.why
    assert (found.run.schedule.epochs, found.run.schedule.max_steps) == (4, 1600)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("noise_offset_random_strength = true", "noise.random_offset"),
        ("adaptive_noise_scale = 0.01", "noise.adaptive_offset"),
        ("ip_noise_gamma_random_strength = true", "noise.random_perturbation"),
        ("scale_v_pred_loss_like_noise_pred = true", "loss.scale_v_like_noise"),
    ],
)
def test_what_a_run_has_a_setting_for_is_taken(imported, line_of, written, path):
    from lib_pivotal.importing.translation import exists

    found = toml(imported, LORA, ("clip_skip = 2", written))
    assert line_of(found, written.partition(" ")[0]).fate == ("taken" if exists(path) else "not supported")


def test_loha_and_others(imported, line_of):
    from lib_pivotal.importing.translation import choices

    lycoris = ('"networks.lora"', '"lycoris.kohya"')
    found = toml(imported, LORA, lycoris, ('["rank_dropout=0.1"]', '["algo=loha", "conv_dim=4"]'))
    here = "loha" in choices("network.algorithm")
    assert line_of(found, "network_args.algo").fate == ("translated" if here else "not supported")
    assert found.run.network.unet_rank == 16


def test_dora(imported):
    found = toml(
        imported,
        LORA,
        ('"networks.lora"', '"lycoris.kohya"'),
        ('["rank_dropout=0.1"]', '["algo=locon", "dora_wd=True"]'),
    )
    assert found.run.network.algorithm == "dora"


def test_textual_inversion(imported):
    text = """
        token_string = "zxc"
        init_word = "girl"
        num_vectors_per_token = 6
        learning_rate = 5e-4
        train_batch_size = 2
        max_train_steps = 100
        resolution = 512
    """
    run = imported(text, "ti.toml").run
    (embedding,) = run.embeddings
    assert (embedding.name, embedding.init_text, embedding.vectors) == ("zxc", "girl", 6)
    assert (run.network.algorithm, run.embeddings_common.lr, run.embeddings_common.control) == ("none", 5e-4, "none")


GUI = {
    "LoRA_type": "Standard",
    "network_dim": 32,
    "network_alpha": 16,
    "train_batch_size": "2",
    "learning_rate": "1e-4",
    "unet_lr": 1e-4,
    "text_encoder_lr": 0,
    "max_resolution": "768,768",
    "enable_bucket": True,
    "optimizer": "Prodigy",
    "lr_scheduler": "cosine",
    "lr_warmup": 10,
    "max_train_steps": "400",
    "epoch": "1",
    "noise_offset_type": "Multires",
    "noise_offset": 0.1,
    "multires_noise_iterations": 6,
    "multires_noise_discount": 0.3,
    "min_snr_gamma": 0,
    "max_timestep": 0,
    "mixed_precision": "fp16",
    "seed": "",
    "conv_dim": 8,
    "conv_alpha": 4,
    "block_dims": "",
    "additional_parameters": '--max_grad_norm=0 --caption_tag_dropout_rate 0.2 --optimizer_args "weight_decay=0.3"',
    "sample_prompts": "a cat --w 512 --n bad\n# no\na dog",
    "sample_every_n_steps": 50,
    "xformers": "xformers",
}


def gui(**changes):
    return import_text(json.dumps({**GUI, **changes}).encode(), "gui.json")


def test_a_gui_file(line_of):
    found = gui()
    run = found.run
    assert found.report.peer == "kohya-gui"
    assert found.report.unknown() == []
    assert (run.network.unet_rank, run.network.unet_alpha, run.network.te_targets) == (32, 16.0, "none")
    assert (run.schedule.max_steps, run.schedule.warmup_steps, run.schedule.optimizer) == (400, 40, "prodigy")
    assert (run.noise.offset, run.noise.multires_iterations) == (0.0, 6)
    assert (run.loss.weighting, run.noise.timestep_max, run.data.resolution_px) == ("none", 1000, 768)
    assert (run.schedule.clip_network, run.data.tag_dropout, run.network.weight_decay) == (0.0, 0.2, 0.3)
    assert run.saving.sample_prompts == ("a cat", "a dog")
    assert line_of(found, "conv_dim").why == "not used by this LoRA_type"


def test_a_guis_rate_of_0_leaves_a_part_out_but_two_are_the_common_one():
    assert gui(unet_lr=0, text_encoder_lr=5e-5).run.network.unet_targets == "none"
    both = gui(unet_lr=0, text_encoder_lr=0).run.network
    assert (both.unet_lr, both.te_lr, both.te_targets) == (1e-4, 1e-4, "attention+mlp")


def test_more_gpus_are_more_micro_batches():
    assert gui(num_processes=4, gradient_accumulation_steps=2).run.schedule.accumulation == 8


def test_dreambooth_becomes_a_network_with_an_embedding_about_it():
    plain = {key: value for key, value in GUI.items() if key not in ("LoRA_type", "network_dim", "network_alpha")}
    found = import_text(json.dumps(plain).encode(), "db.json")
    assert any("checkpoint's own weights" in remark for remark in found.report.remarks)


def test_flags_typed_into_the_gui():
    flags = gui_flags(
        {"optimizer": "AdamW", "additional_parameters": '--optimizer_type="Lion" --a=1 --b "x=1" "y=2" --c'}
    )
    assert flags["optimizer"] == "Lion"
    assert (flags["a"], flags["b"], flags["c"]) == ("1", '"x=1" "y=2"', True)


@pytest.mark.parametrize("name", ["sd3_checkbox", "flux1_checkbox"])
def test_other_families_are_told(name, line_of):
    assert line_of(gui(**{name: True}), name).fate == "not supported"


def test_a_description_of_datasets_is_read_by_the_scan(tmp_path):
    """From kohya's two files to the pictures that it would train, with their repeats."""
    (tmp_path / "pics").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "pics" / "a.png")
    described = f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{(tmp_path / "pics").as_posix()}"\nnum_repeats = 3\n'
    (tmp_path / "data.toml").write_text(described)
    (tmp_path / "run.toml").write_text('network_dim = 4\nmax_train_steps = 10\ndataset_config = "data.toml"\n')
    found = import_file(tmp_path / "run.toml")
    assert found.run.data.folder == str(tmp_path / "data.toml")
    assert [line.fate for line in found.report.lines if line.key == "dataset_config"] == ["taken"]
    assert [picture.repeats for picture in scan_pictures(found.run.data).pictures] == [3]
    (tmp_path / "data.toml").unlink()
    found = import_file(tmp_path / "run.toml")
    assert found.run.data.folder == ""
    assert [line.fate for line in found.report.lines if line.key == "dataset_config"] == ["not supported"]


@pytest.mark.parametrize(
    ("optimizer", "written", "option"),
    [
        ("Prodigy", "d_coef=2", "d_coef = 2"),
        ("Prodigy", "use_bias_correction=True", "use_bias_correction = true"),
        ("AdamW", "eps=1e-6", "eps = 1e-06"),
        ("AdamW", "d_coef=2", ""),
        ("AdamW", "betas=__import__('os')", ""),
    ],
)
def test_options_of_the_optimiser(imported, line_of, optimizer, written, option):
    found = toml(
        imported,
        LORA,
        ('optimizer_type = "AdamW8bit"', f'optimizer_type = "{optimizer}"'),
        ('"betas=0.9,0.99"', f'"{written}"'),
    )
    assert found.run.schedule.optimizer_options == ((option,) if option else ())
    fate = line_of(found, f"optimizer_args.{written.partition('=')[0]}").fate
    assert fate == ("taken" if option else "not supported") and found.faults == ()


def lycoris(imported, arguments):
    return toml(
        imported,
        LORA,
        ('"networks.lora"', '"lycoris.kohya"'),
        ('["rank_dropout=0.1"]', json.dumps(arguments)),
    )


@pytest.mark.parametrize(
    ("arguments", "algorithm", "options"),
    [
        (["algo=lokr", "factor=8", "full_matrix=True"], "lokr", {"factor": 8, "full_matrix": True}),
        (["algo=loha", "use_tucker=True", "rs_lora=True"], "loha", {"tucker": True, "rank_stabilised": True}),
        (["algo=diag-oft", "constraint=1e-4", "rescaled=True"], "oft", {"constraint": 1e-4, "rescale": True}),
        (["algo=boft"], "boft", {}),
        (["algo=ia3", "train_on_input=True"], "ia3", {"on_input": "all"}),
        (["algo=dylora", "block_size=8"], "dylora", {"unit": 8}),
        (["algo=glora"], "glora", {}),
        (["algo=full"], "full", {}),
        (["algo=locon", "dora_wd=True"], "dora", {}),
        (["algo=locon", "dora_wd=True", "use_tucker=True"], "dora", {"tucker": True}),
        (["algo=locon", "use_tucker=True"], "lora", {"tucker": True}),
        (["algo=loha", "dora_wd=True", "use_tucker=True"], "loha", {"weight_decompose": True, "tucker": True}),
        (["algo=lokr", "dora_wd=True"], "lokr", {"weight_decompose": True}),
    ],
)
def test_lycoris_kinds_with_their_own_settings(imported, arguments, algorithm, options):
    found = lycoris(imported, arguments)
    assert found.run.network.algorithm == algorithm and found.run.network.options == options
    refused = [line.key for line in found.report.lines if line.fate == "not supported"]
    assert not [key for key in refused if key.startswith("network_args")]


@pytest.mark.parametrize("exists", [True, False])
def test_begin_from_a_network(imported, line_of, tmp_path, exists):
    path = tmp_path / "before.safetensors"
    if exists:
        path.write_bytes(b"")
    written = f'clip_skip = 2\nnetwork_weights = "{path.as_posix()}"\ndim_from_weights = true'
    found = toml(imported, LORA, ("clip_skip = 2", written))
    assert line_of(found, "network_weights").fate == ("taken" if exists else "not supported")
    assert found.run.start.init_file == (str(path) if exists else "")
    assert found.run.start.network == "as-stored" and line_of(found, "dim_from_weights").fate == "translated"


def test_lora_plus(imported, line_of):
    arguments = '["loraplus_unet_lr_ratio=16", "loraplus_text_encoder_lr_ratio=4"]'
    found = toml(imported, LORA, ('["rank_dropout=0.1"]', arguments))
    assert found.run.network.up_lr_factor == 16
    assert line_of(found, "network_args.loraplus_unet_lr_ratio").fate == "taken"
    assert line_of(found, "network_args.loraplus_text_encoder_lr_ratio").fate == "not supported"


def test_lycoris_layer_sets_and_norms(imported):
    network = lycoris(imported, ["algo=loha", "preset=attn-only", "train_norm=True"]).run.network
    assert network.unet_targets == "attention"
    assert [(group.pattern, group.algorithm) for group in network.groups] == [(r"^lora_unet_.*_norm\d?$", "norm")]
