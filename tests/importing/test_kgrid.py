"""kgrid's generated files: their own bases, unscaled rates, and words that begin as emb_init.json says."""

import pytest

from lib_pivotal.importing.settings import import_file

MAIN = """
exp_dir_base: exps
config_dir: {folder}
emb_dir: {folder}/embs
emb_lr: 1e-2
_base_: ['${{config_dir}}/train_base.yaml', '${{config_dir}}/dataset.yaml']
model: {{clip_skip: 1, tokenizer_repeats: 1}}
train:
  train_steps: 50000
  save_step: 5000
  scheduler: {{name: constant_with_warmup, num_warmup_steps: 1000, num_training_steps: 50000}}
{network}
tokenizer_pt:
  emb_dir: '${{emb_dir}}'
  replace: false
  train: [{{name: hanako, lr: '${{emb_lr}}'}}, {{name: fanart-x, lr: '${{emb_lr}}'}}]
"""
LORA = "lora_unet: [{lr: 2e-4, rank: 16, alpha: 8, layers: ['re:.*\\.attn.?$', 're:.*\\.ff$']}]"
LOHA = """
plugin_unet:
  loha: {_target_: lycoris.hcp.LohaBlock.wrap_model, lr: 2e-4, dim: 8, alpha: 4, layers: ['re:.*\\.attn.?$']}
"""
DATASET = """
dataset_dir: {folder}/data/training
data:
  dataset1:
    batch_size: 8
    source:
      data_source_1: {{img_root: '${{dataset_dir}}/1_character/hanako', repeat: 3, caption_file: {{path: x}}}}
      data_source_2: {{img_root: '${{dataset_dir}}/2_characters', repeat: 1}}
"""


@pytest.fixture
def kgrid(tmp_path):
    def run(network=LORA, *, with_dataset=True):
        path = tmp_path / "lora_conventional.yaml"
        path.write_text(MAIN.format(folder=tmp_path.as_posix(), network=network), encoding="utf-8")
        folder = tmp_path / "data" / "training" / "1_character" / "hanako"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "multiply.txt").write_text("2.6\n", encoding="utf-8")
        (tmp_path / "data" / "emb_init.json").write_text('{"hanako": ["cat_ears", "red eyes"]}', encoding="utf-8")
        if with_dataset:
            (tmp_path / "dataset.yaml").write_text(DATASET.format(folder=tmp_path.as_posix()), encoding="utf-8")
        return import_file(path)

    return run


def test_rates_are_not_scaled(kgrid):
    found = kgrid()
    assert found.report.peer == "kgrid"
    assert found.run.network.unet_lr == 2e-4
    assert found.run.embeddings_common.lr == 1e-2
    assert (found.run.network.unet_rank, found.run.network.unet_alpha) == (16, 8.0)


def test_its_own_bases_stand_in(kgrid):
    run = kgrid(with_dataset=False).run
    assert (run.schedule.batch_size, run.schedule.max_steps, run.memory.precision) == (8, 50000, "bf16")
    assert (run.network.weight_decay, run.embeddings_common.weight_decay) == (1e-3, 5e-4)
    assert run.data.resolution_px == 512


def test_embeddings_begin_with_their_tags_and_random_rows(kgrid):
    first, second = kgrid().run.embeddings
    assert (first.init_text, first.vectors) == ("cat_ears, red eyes, *[0.1,10]", 8)
    assert (second.init_text, second.vectors) == ("*[0.1,10]", 8)


def test_repeats_that_the_folder_says_too_are_kept(kgrid, line_of, tmp_path):
    found = kgrid()
    assert line_of(found, "data.dataset1.source.data_source_1.repeat").fate == "taken"
    assert found.run.data.folder == str(tmp_path / "data" / "training")
    assert found.run.network.te_targets == "none"


def test_loha_is_told_where_it_is_not_here(kgrid, line_of):
    from lib_pivotal.importing.translation import choices

    found = kgrid(LOHA)
    here = "loha" in choices("network.algorithm")
    assert line_of(found, "plugin_unet.loha._target_").fate == ("translated" if here else "not supported")
    assert (found.run.network.unet_rank, found.run.network.unet_alpha, found.run.network.unet_lr) == (8, 4.0, 2e-4)


def test_no_key_is_unknown(kgrid):
    assert kgrid().report.unknown() == []
