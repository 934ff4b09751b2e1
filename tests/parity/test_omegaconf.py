"""HCP's files against OmegaConf, with which HCP reads them (hcpdiff/utils/utils.py, `load_config`, 404f0e8)."""

import pytest
import yaml

from lib_pivotal.importing.hcp_yaml import arithmetic, resolve

omegaconf = pytest.importorskip("omegaconf")

BASE = """
seed: 7
train: {steps: 100, kinds: [1, 2], scheduler: {name: cosine, warmup: 5}, scheduler_pt: "${.scheduler}"}
model: {name: "${repo}/sd15", size: '${hcp.eval:"512*512"}', skip: ---}
repo: some
"""
LATER = "train: {steps: 50, workers: 2}\nlist: [a, ---, b]\ndata: {one: {root: x}}\n"
MAIN = """
_base_: [base.yaml, later.yaml]
hero: surtr
train: {scheduler: {warmup: '${times:3,4}'}, kinds: [3]}
model: {out: "${hero}-${.name}-${train.steps}"}
data:
  one: {names: {pt1: "${hero}", other: null}, text: {steps: [{names: "${....names}"}, {p: 0.5}]}}
  two: ---
  three: "${data.one.names}"
tokenizer_pt: {train: [{name: "${hero}", lr: 1e-3}, {name: "x-${hero}", lr: "${train.steps}"}]}
"""


def load_config(path):
    """As HCP does it."""
    config = omegaconf.OmegaConf.load(path)
    if "_base_" in config:
        for base in config["_base_"]:
            config = omegaconf.OmegaConf.merge(load_config(path.parent / base), config)
        del config["_base_"]
    return config


def without_removed(item):
    if isinstance(item, dict):
        return {key: without_removed(value) for key, value in item.items() if value != "---"}
    return [without_removed(value) for value in item if value != "---"] if isinstance(item, list) else item


@pytest.fixture
def resolvers():
    """HCP's own, and the process's as they were afterwards."""
    omegaconf.OmegaConf.register_new_resolver("hcp.eval", arithmetic)
    omegaconf.OmegaConf.register_new_resolver("times", lambda first, second: first * second)
    yield
    omegaconf.OmegaConf.clear_resolver("hcp.eval")
    omegaconf.OmegaConf.clear_resolver("times")


def test_bases_and_references_are_those_of_omegaconf(tmp_path, resolvers):
    for name, text in (("main.yaml", MAIN), ("base.yaml", BASE), ("later.yaml", LATER)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    theirs = omegaconf.OmegaConf.to_container(load_config(tmp_path / "main.yaml"), resolve=True)
    ours = resolve(yaml.safe_load(MAIN), tmp_path, {})
    # YAML reads 1e-3 as text and OmegaConf as a number; what reads settings takes both
    ours.plain["tokenizer_pt"]["train"][0]["lr"] = float(ours.plain["tokenizer_pt"]["train"][0]["lr"])
    assert ours.plain == without_removed(theirs)
    assert ours.missing == []
    assert {"hero", "repo", "train.scheduler", "data.one.names", "train.steps"} <= ours.used
