"""HCP-Diffusion: rates scaled by the batch, layers by pattern, words, loss, and a line for every key."""

import json

import pytest
import torch

from lib_pivotal.importing.reading import leaves
from lib_pivotal.importing.settings import import_file
from lib_pivotal.training.rates import rate_factor

BASE = """
mixed_precision: bf16
seed: 7
train:
  train_steps: 900
  gradient_accumulation_steps: 1
  max_grad_norm: 0.5
  save_step: 300
  optimizer: {_target_: torch.optim.AdamW, _partial_: True, weight_decay: 1e-3}
  optimizer_pt: {_target_: torch.optim.AdamW, _partial_: True, weight_decay: 5e-4}
  scale_lr: True
  scale_lr_pt: True
  scheduler: {name: constant_with_warmup, num_warmup_steps: 40, num_training_steps: 900}
  scheduler_pt: ${.scheduler}
  loss: {criterion: {_target_: hcpdiff.loss.MinSNRLoss, gamma: 2.0}, type: eps}
model: {pretrained_model_name_or_path: some/sd15, tokenizer_repeats: 3, clip_skip: 1, gradient_checkpointing: True}
"""

MAIN = """
_base_: [base.yaml]
hero: surtr
tokenizer_pt:
  emb_dir: embs
  train: [{name: '${hero}', lr: 0.003}, {name: other-word, lr: 0.001}]
lora_unet:
  - {lr: 1e-4, rank: 8, layers: ['re:.*\\.attn.?$', 're:.*\\.ff$']}
lora_text_encoder:
  - {lr: 1e-5, rank: 4, alpha: 2, layers: ['re:.*self_attn$', 're:.*mlp$']}
data:
  dataset1:
    batch_size: 4
    source:
      one:
        img_root: pics
        caption_file: pics
        text_transforms:
          transforms:
            - {_target_: hcpdiff.utils.caption_tools.TagShuffle}
            - {_target_: hcpdiff.utils.caption_tools.TagDropout, p: 0.25}
            - {_target_: hcpdiff.utils.caption_tools.TagErase, p: 0.05}
    bucket: {_target_: hcpdiff.data.bucket.RatioBucket.from_files, target_area: '${hcp.eval:"512*512"}', num_bucket: 5}
  dataset_class:
    batch_size: 1
    loss_weight: 0.7
    source: {one: {img_root: class_pics}}
"""


@pytest.fixture
def hcp(tmp_path):
    """The two files on disk, imported; `change` replaces text in the main one, `base` in the base."""

    def run(change=(), base=()):
        for name, text, pairs in (("main.yaml", MAIN, change), ("base.yaml", BASE, base)):
            for old, new in pairs:
                assert old in text
                text = text.replace(old, new)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return import_file(tmp_path / "main.yaml")

    return run


def test_rates_are_multiplied_by_all_pictures_of_a_step(hcp):
    # hcpdiff/train_ac.py, scale_lr: the batches of all datasets, the regularisation set's too
    run = hcp().run
    assert run.network.unet_lr == pytest.approx(1e-4 * 5)
    assert run.network.te_lr == pytest.approx(1e-5 * 5)
    assert [run.embeddings_common.lr * embedding.lr_factor for embedding in run.embeddings] == pytest.approx(
        [0.003 * 5, 0.001 * 5]
    )


def test_rates_stay_where_scale_lr_is_off(hcp):
    run = hcp(base=[("scale_lr: True", "scale_lr: False"), ("scale_lr_pt: True", "scale_lr_pt: False")]).run
    assert run.network.unet_lr == 1e-4
    assert run.embeddings_common.lr == 0.003


def test_one_of_the_two_may_be_scaled(hcp):
    run = hcp(base=[("scale_lr_pt: True", "scale_lr_pt: False")]).run
    assert run.network.unet_lr == pytest.approx(5e-4)
    assert run.embeddings_common.lr == 0.003


def test_accumulation_scales_rates_and_shortens_steps(hcp):
    # HCP counts micro-batches: 900 of them in threes are 300 updates
    run = hcp(base=[("gradient_accumulation_steps: 1", "gradient_accumulation_steps: 3")]).run
    assert run.network.unet_lr == pytest.approx(1e-4 * 15)
    assert (run.schedule.accumulation, run.schedule.max_steps, run.saving.every_steps) == (3, 300, 100)
    assert run.schedule.warmup_steps == 13


def test_options_that_are_settings_here_are_taken(hcp, line_of):
    options = "optimizer: {_target_: torch.optim.AdamW, betas: [0.9, 0.95], momentum: 0.9,"
    schedule = "name: polynomial, scheduler_kwargs: {power: 2.0, odd: 1},"
    found = hcp(base=[("optimizer: {_target_: torch.optim.AdamW,", options), ("name: constant_with_warmup,", schedule)])
    assert found.run.schedule.optimizer_options == ("betas = [0.9, 0.95]",)
    assert (found.run.schedule.lr_scheduler, found.run.schedule.lr_scheduler_power) == ("polynomial", 2.0)
    for key in ("optimizer.momentum", "scheduler.scheduler_kwargs.odd"):
        assert line_of(found, f"train.{key}").fate == "not supported"


def test_alpha_is_one_where_none_is_written(hcp):
    # models/lora_base.py: alpha / rank with alpha = 1.0
    run = hcp().run
    assert (run.network.unet_rank, run.network.unet_alpha) == (8, 1.0)
    assert (run.network.te_rank, run.network.te_alpha) == (4, 2.0)


def test_alpha_without_automatic_scaling_is_the_whole_factor(hcp):
    run = hcp(change=[("rank: 4, alpha: 2,", "rank: 4, alpha: 2, alpha_auto_scale: False,")]).run
    assert run.network.te_alpha / run.network.te_rank == 2.0


def test_everything_else_of_the_example(hcp):
    run = hcp().run
    assert (run.network.unet_targets, run.network.te_targets) == ("attention+ff", "attention+mlp")
    assert (run.schedule.lr_scheduler, run.schedule.warmup_steps, run.schedule.clip_network) == ("constant", 40, 0.5)
    assert (run.loss.weighting, run.loss.snr_gamma) == ("min_snr", 2.0)
    assert (run.clip_skip, run.data.max_tokens, run.data.resolution_px, run.data.bucket_step_px) == (2, 225, 512, 8)
    assert (run.data.shuffle_tags, run.data.tag_dropout, run.data.caption_dropout) == (True, 0.25, 0.05)
    assert (run.regularisation.batch_size, run.regularisation.weight) == (1, 0.7)
    assert (run.network.weight_decay, run.embeddings_common.weight_decay) == (1e-3, 5e-4)
    assert (run.embeddings_common.control, run.memory.precision, run.seed) == ("none", "bf16", 7)
    assert [embedding.name for embedding in run.embeddings] == ["surtr", "other-word"]


def test_a_loss_that_is_here_is_taken(hcp, line_of):
    found = hcp(base=[("_target_: hcpdiff.loss.MinSNRLoss, gamma: 2.0", "_target_: torch.nn.L1Loss")])
    assert (found.run.loss.kind, line_of(found, "train.loss.criterion._target_").fate) == ("l1", "translated")


def test_every_key_has_a_line_and_none_is_unknown(hcp):
    found = hcp()
    assert found.report.unknown() == []
    keys = {line.key for line in found.report.lines if not line.added}
    assert {"train.scale_lr", "hero", "data.dataset_class.loss_weight", "lora_unet.0.layers"} <= keys
    assert len(keys) == sum(not line.added for line in found.report.lines)
    assert found.faults == ()


def test_lines_say_what_was_done(hcp, line_of):
    found = hcp()
    line = line_of(found, "train.scale_lr")
    assert line.fate == "translated"
    assert "multiplies the network's learning rates by 5" in line.why
    assert line_of(found, "lora_unet.0.lr").became == "network.unet_lr = 0.0005"
    assert line_of(found, "train.scheduler.num_warmup_steps").fate == "taken"


def test_unknown_keys_are_told(hcp, line_of):
    found = hcp(change=[("hero: surtr", "hero: surtr\nfrobnicate: {level: 3}")])
    line = line_of(found, "frobnicate.level")
    assert (line.fate, line.known, line.value) == ("not supported", False, 3)


def test_embeddings_begin_with_their_files(hcp, tmp_path):
    (tmp_path / "embs").mkdir()
    torch.save({"string_to_param": {"*": torch.randn(6, 768)}, "name": "surtr"}, tmp_path / "embs" / "surtr.pt")
    first, second = hcp().run.embeddings
    assert (first.init_file, first.vectors) == (str(tmp_path / "embs" / "surtr.pt"), 6)
    assert second.init_file == ""


def test_a_name_that_programs_misread_is_changed_and_told(hcp, line_of):
    found = hcp(change=[("name: other-word", "name: pt-Cat1")])
    assert found.run.embeddings[1].name == "pt-cat"
    assert line_of(found, "tokenizer_pt.train.1.name").fate == "translated"
    assert any("pt-cat where they said pt-Cat1" in remark for remark in found.report.remarks)


def test_the_negative_embedding_of_dreamartist_is_left_out(hcp, line_of):
    change = [
        ("        caption_file: pics", "        caption_file: pics\n        word_names: {pt1: ['${hero}', other-word]}")
    ]
    found = hcp(change=change)
    assert [embedding.name for embedding in found.run.embeddings] == ["surtr"]
    assert line_of(found, "tokenizer_pt.train.1.name").fate == "not supported"


def test_one_cycle_ends_where_torchs_does(hcp):
    run = hcp(base=[("name: constant_with_warmup", "name: one_cycle")]).run
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=900, pct_start=40 / 900)
    rates = []
    for _ in range(900):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(rates) < 900 else None
    settings = run.schedule
    shape = {"warmup_steps": settings.warmup_steps, "final_factor": settings.final_factor}
    ours = [rate_factor(settings.lr_scheduler, step, max_steps=settings.max_steps, **shape) for step in range(900)]
    assert ours == pytest.approx(rates, abs=1e-9)


def test_without_its_base_hcps_own_values_are_used(imported):
    # train_base.yaml has scale_lr: True; an importer that forgot it would train at a quarter of the rate
    found = imported(MAIN.replace("[base.yaml]", "[cfgs/train/train_base.yaml]"), "main.yaml")
    assert found.run.network.unet_lr == pytest.approx(5e-4)
    assert any("train_base.yaml is not here" in remark for remark in found.report.remarks)


def test_a_base_that_nobody_knows_is_told(imported):
    found = imported(MAIN, "main.yaml")
    assert any("base.yaml is not on this computer" in remark for remark in found.report.remarks)
    # rates hang on scale_lr, which stands in train_base.yaml, the end of every chain of bases
    assert found.run.network.unet_lr == pytest.approx(5e-4)
    assert any("train_base.yaml holds when nobody changed it" in remark for remark in found.report.remarks)


def test_an_example_of_hcp_loaded_without_the_others(imported):
    text = """
        _base_: [cfgs/train/examples/lora_conventional.yaml]
        tokenizer_pt: {train: [{name: hero, lr: 0.003}]}
        data: {dataset1: {batch_size: 4, source: {a: {img_root: x}}}}
    """
    run = imported(text, "x.yaml").run
    assert (run.network.unet_lr, run.embeddings_common.lr) == (pytest.approx(4e-4), pytest.approx(0.012))
    assert (run.network.unet_rank, run.schedule.lr_scheduler, run.schedule.warmup_steps) == (8, "constant", 50)


def test_templates_come_from_their_file(hcp, tmp_path):
    (tmp_path / "t.txt").write_text("a photo of a {pt1} {class}, {caption}\n", encoding="utf-8")
    change = [
        (
            "        caption_file: pics",
            "        caption_file: pics\n        prompt_template: t.txt\n        word_names: {pt1: surtr, class: dog}",
        )
    ]
    assert hcp(change=change).run.data.templates == ("a photo of a {word} dog, {caption}",)


def test_whole_layers_become_a_network(imported, line_of):
    text = """
        unet: [{lr: 1e-6, layers: ['re:.*attn2\\.to_k$', 're:.*attn2\\.to_v$']}]
        tokenizer_pt: {train: [{name: dog-x, lr: 0.003}]}
        train: {train_steps: 10}
        model: {clip_skip: 0}
        data: {dataset1: {batch_size: 2, source: {a: {img_root: x}}}}
    """
    found = imported(text, "cd.yaml")
    assert found.run.network.unet_targets == "cross-kv"
    assert line_of(found, "unet.0.layers").fate == "not supported"


def test_report_is_json(hcp):
    plain = hcp().report.to_plain()
    assert json.loads(json.dumps(plain)) == plain
    assert list(dict(leaves(plain["counts"]))) == ["taken", "translated", "not supported", "ignored"]
