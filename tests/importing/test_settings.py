"""The door: whose file it is, and that nothing but our own error ever comes out."""

import json
import os
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_pivotal.config import check_run
from lib_pivotal.errors import ConfigError
from lib_pivotal.importing import hcp, kgrid, kohya, onetrainer
from lib_pivotal.importing.reading import LARGEST_BYTES, Origin, parse_text
from lib_pivotal.importing.report import FATES, KeyReport, Report, table
from lib_pivotal.importing.settings import PEERS, detect, import_file, import_text, looks_foreign


def keys_of(table):
    """The keys that a trainer's table has rows for."""
    return [name.rstrip("*").rstrip(".") for row in table if isinstance(row, tuple) for name in row[0].split()]


LAUGHS = b"".join(
    b"%c: &%c [%s]\n" % (65 + i, 65 + i, b",".join([b"*%c" % (64 + i) if i else b"1"] * 9)) for i in range(8)
)
"""Each line is nine times the one before."""


@pytest.mark.parametrize(
    ("plain", "peer"),
    [
        ({"tokenizer_pt": {}, "train": {}}, "hcp"),
        ({"exp_dir_base": "x", "emb_lr": 1, "tokenizer_pt": {}, "train": {}}, "kgrid"),
        ({"training_method": "LORA", "model_type": "X"}, "onetrainer"),
        ({"LoRA_type": "Standard", "max_resolution": "512"}, "kohya-gui"),
        ({"network_dim": 4, "unet_lr": 1, "resolution": 512}, "kohya"),
        ({"a": {"network_dim": 4, "unet_lr": 1}, "b": {"resolution": 512}}, "kohya"),
    ],
)
def test_whose_file(plain, peer):
    assert detect(plain, "x.json").name == peer


@pytest.mark.parametrize(
    ("plain", "told"),
    [
        ({"datasets": [], "general": {}}, "description of a dataset"),
        ({"pretrained_model": "x", "infer_args": {}}, "making pictures"),
        ({"_base_": "x.yaml", "prompt": "1girl", "infer_args": {}, "exp_dir": "x"}, "making pictures"),
        ({"hello": 1}, "its keys are hello"),
        ({}, "it is empty"),
        ([1], "no mapping"),
    ],
)
def test_nobodys_file_says_why(plain, told):
    with pytest.raises(ConfigError, match=told):
        detect(plain, "x.json")


def test_our_own_run_json_is_told_apart():
    ours = json.dumps({"words": [], "network": {}, "data": {}}).encode()
    assert not looks_foreign(ours, "run.json")
    assert looks_foreign(json.dumps({"training_method": "LORA", "model_type": "X"}).encode(), "run.json")
    assert looks_foreign(b"", "x.toml")
    assert not looks_foreign(b"{", "x.json")
    with pytest.raises(ConfigError, match="of this program"):
        import_text(ours, "run.json")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"{", "x.json"),
        (b"\xff\xfe\x00", "x.json"),
        (b"[" * 100_000, "x.json"),
        (b"a: [" * 5000, "x.yaml"),
        (b"a: !!python/object/apply:os.system ['echo hi']", "x.yaml"),
        (b"&a [*a]", "x.yaml"),
        (LAUGHS, "x.yaml"),
        (b"= 1", "x.toml"),
        (b"x", "x.exe"),
        (b" " * (LARGEST_BYTES + 1), "x.json"),
        (b"2024-99-99: 1", "x.yaml"),
        (b"lr_scheduler = 0x" + b"f" * 5000, "x.toml"),
        (b"a: 0x" + b"f" * 5000, "x.yaml"),
        (b"0x" + b"f" * 5000 + b": 1", "x.yaml"),
        (b'{"a": [1' + b"0" * 6000 + b"]}", "x.json"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(content, name):
    with pytest.raises(ConfigError):
        import_text(content, name)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(ConfigError, match="not a file"):
            import_file(path)


def test_dates_sets_and_odd_keys_become_text():
    plain = parse_text(b"1: 2020-01-01\n~: !!set {a, b}\ntrue: !!binary aGk=\n", "x.yaml")
    assert json.loads(json.dumps(plain)) == plain


TEXTS = ["1e-4", "nan", "inf", "", "true", "${a}", "${.b}", "---", "re:(a+)+$", "a" * 3000, "\0", "../..", "-1"]
SPECIAL = st.sampled_from([*TEXTS, 10**400, -(10**30), 1e308])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | SPECIAL
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = {
    "kohya-easy": [
        *(f"general_args.args.{key}" for key in keys_of(kohya.TABLE)),
        *"""
        subsets train_mode train_mode.train_mode general_args general_args.args network_args.args.network_args
        network_args.args.network_dim optimizer_args.args.warmup_ratio general_args.dataset_args.batch_size
        optimizer_args.args.lr_scheduler general_args.args.max_train_epochs bucket_args.dataset_args
        """.split(),
    ],
    "hcp": [
        *keys_of(hcp.TABLE),
        *"""
        lora_unet lora_text_encoder plugin_unet tokenizer_pt tokenizer_pt.train data data.d data.d.source
        data.d.source.s data.d.bucket data.d.batch_size data.reg train train.scheduler train.scheduler.name
        train.optimizer _base_ unet
        train.optimizer._target_ train.loss.criterion model model.clip_skip model.ema data.d.source.s.img_root
        data.d.source.s.text_transforms.transforms data.d.bucket.target_area train.gradient_accumulation_steps
        train.train_steps train.scale_lr model.tokenizer_repeats
        """.split(),
    ],
    "kgrid": [*kgrid.MARKS, "tokenizer_pt.train", "data.dataset1.source", "lora_unet"],
    "kohya": [
        *keys_of(kohya.TABLE),
        *"""
        network_dim network_alpha network_args unet_lr text_encoder_lr max_train_steps max_train_epochs train_batch_size
        lr_warmup_steps optimizer_type optimizer_args token_string sample_prompts resolution loss_type huber_c
        min_snr_gamma save_every_n_epochs
        """.split(),
    ],
    "kohya-gui": [
        *keys_of(kohya.TABLE),
        *"""
        LoRA_type block_dims down_lr_weight conv_dim lr_warmup noise_offset additional_parameters num_processes epoch
        max_resolution optimizer network_dim
        """.split(),
    ],
    "onetrainer": [
        *keys_of(onetrainer.TABLE),
        *"""
        additional_embeddings embedding optimizer optimizer.optimizer unet text_encoder text_encoder_2.train concepts
        samples training_method model_type ema ema_decay ema_update_step_interval batch_size resolution layer_filter
        lora_rank peft_type min_noising_strength loss_weight_fn learning_rate_warmup_steps learning_rate_scheduler
        """.split(),
    ],
}
LAYERS = st.lists(st.sampled_from(["re:.*\\.ff$", "", "mid_block", "re:(x", "re:.*attn.?$"]) | SCALARS, max_size=3)
GROUP = st.fixed_dictionaries(
    {"layers": LAYERS},
    optional=dict.fromkeys(("lr", "rank", "alpha", "branch", "dropout", "dim", "_target_", "alpha_auto_scale"), VALUES),
)
EMBEDDING = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("name", "lr", "placeholder", "token_count", "train", "path", "prompt"), VALUES)
)


def nested(pairs):
    plain = {}
    for key, value in pairs:
        *parents, last = key.split(".")
        place = plain
        for parent in parents:
            inner = place.get(parent)
            if not isinstance(inner, dict):
                inner = place[parent] = {}
            place = inner
        place[last] = value
    return plain


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_garbage_raises_nothing_but_our_error(peer, data):
    keys = st.sampled_from(KEYS[peer.name]) | st.text(max_size=8)
    grouped = st.dictionaries(st.text(max_size=4), GROUP, max_size=2)
    values = VALUES | st.lists(GROUP | EMBEDDING, max_size=2) | grouped
    plain = nested(data.draw(st.lists(st.tuples(keys, values), max_size=8)))
    plain = parse_text(json.dumps(plain).encode(), "x.json")
    try:
        sheet = peer.translate(plain, Origin("x.json", None))
    except ConfigError:
        return
    run, _ = check_run(sheet.run)
    report = sheet.report(peer.name, peer.title)
    json.dumps(report.to_plain())
    table(report).encode()
    spelled = {sheet._names.get(key, key) for key in sheet.values}  # as the file spells it: a GUI has names of its own
    assert {line.key for line in report.lines if not line.added} == spelled
    assert run.schedule.max_steps >= 1


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["x.json", "x.yaml", "x.toml", "x.yml", "x", ""]))
def test_any_bytes(content, name):
    try:
        import_text(content, name)
    except ConfigError:
        return


@settings(max_examples=40, deadline=None)
@given(plain=VALUES, name=st.sampled_from(["x.json", "x.yaml"]))
def test_any_values(plain, name):
    try:
        import_text(json.dumps(plain).encode(), name)
    except ConfigError:
        return


def test_the_table_folds_and_counts():
    lines = [KeyReport(f"key{i}", i, fate, "became", "why " * 40) for i, fate in enumerate(FATES)]
    text = table(
        Report("x", "title", (*lines, KeyReport("d", None, "taken", "a = 1", added=True)), ("a remark",)), width=90
    )
    assert "title: 2 taken, 1 translated, 1 not supported, 1 ignored." in text
    assert "(not in the file)" in text
    assert all(len(line) <= 90 for line in text.splitlines()), text
    assert "NOT SUPPORTED (1)" in text


def test_nothing_is_executed_and_no_other_file_is_read(tmp_path):
    mark = tmp_path / "mark"
    text = f"""
        _base_: ['/etc/passwd', '{tmp_path}/secret.json']
        exp_dir: ${{hcp.eval:"open('{mark}','w')"}}
        train: {{train_steps: '${{hcp.eval:"__import__(''os'').system(''touch {mark}'')"}}'}}
        tokenizer_pt: {{train: [{{name: a-b, lr: '${{oc.env:HOME}}'}}]}}
        model: {{}}
    """
    (tmp_path / "secret.json").write_text('{"token": "12345"}', encoding="utf-8")
    path = tmp_path / "m.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    found = import_file(path)
    assert not mark.exists()
    shown = json.dumps(found.report.to_plain())
    assert "12345" not in shown
    assert os.environ.get("HOME", "nowhere-else") not in shown
