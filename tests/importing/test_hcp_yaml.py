"""HCP's YAML: bases, references, sums; nothing is run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_pivotal.errors import ConfigError
from lib_pivotal.importing.hcp_yaml import arithmetic, merge, resolve


def filled(plain):
    return resolve(plain, None, {}).plain


def test_a_file_wins_over_its_bases_and_an_early_base_over_a_late_one(tmp_path):
    (tmp_path / "a.yaml").write_text("x: {one: 1, two: 1}\nlist: [1, 2]\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("x: {one: 2, three: 2}\ny: 2\n", encoding="utf-8")
    merged = resolve({"_base_": ["a.yaml", "b.yaml"], "x": {"two": 0}, "list": [3]}, tmp_path, {})
    assert merged.plain == {"x": {"one": 1, "two": 0, "three": 2}, "list": [3], "y": 2}


def test_bases_are_found_in_folders_above(tmp_path):
    (tmp_path / "cfgs").mkdir()
    (tmp_path / "cfgs" / "base.yaml").write_text("a: 1\n", encoding="utf-8")
    place = tmp_path / "cfgs" / "deep"
    place.mkdir()
    assert resolve({"_base_": ["cfgs/base.yaml"]}, place, {}).plain == {"a": 1}
    assert resolve({"d": "cfgs", "_base_": ["${d}/base.yaml"]}, place, {}).plain == {"d": "cfgs", "a": 1}


def test_bases_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("_base_: [b.yaml]\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("_base_: [a.yaml]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="circle"):
        resolve({"_base_": ["a.yaml"]}, tmp_path, {})


def test_only_yaml_files_are_bases(tmp_path):
    (tmp_path / "secret.txt").write_text("a: 1\n", encoding="utf-8")
    merged = resolve({"_base_": ["secret.txt"]}, tmp_path, {})
    assert (merged.plain, merged.missing) == ({}, ["secret.txt"])


def test_references():
    plain = {"a": {"b": 3, "c": "${.b}", "d": ["${..b}"]}, "e": "${a}", "f": "x-${a.b}-${a.c}", "g": "${nowhere}"}
    assert filled(plain)["a"] == {"b": 3, "c": 3, "d": [3]}
    assert filled(plain)["e"] == filled(plain)["a"]
    assert filled(plain)["f"] == "x-3-3"
    assert filled(plain)["g"] == "${nowhere}"


def test_relative_references_count_dots_as_omegaconf_does():
    names = {"word_names": {"pt1": "cat"}, "text": {"transforms": [{"word_names": "${....word_names}"}]}}
    assert filled({"src": names})["src"]["text"]["transforms"][0]["word_names"] == {"pt1": "cat"}


def test_removed_items_are_gone():
    assert filled({"a": "---", "b": {"c": "---", "d": 1}, "e": [1, "---"]}) == {"b": {"d": 1}, "e": [1]}


def test_sums_of_numbers_and_nothing_else():
    assert filled({"n": '${hcp.eval:"512*512"}', "m": "${times:3,4}"}) == {"n": 262144, "m": 12}
    assert filled({"a": "768*768", "n": '${hcp.eval:"${a}"}'})["n"] == 589824
    for text in (
        "__import__('os').getcwd()",
        "9**9**9",
        "[1]*10**9",
        "a",
        "1/0",
        "(" * 90 + ")" * 90,
        "1e308*10",
        "'a'*9",
    ):
        assert arithmetic(text) is None


def test_the_environment_is_never_read(monkeypatch):
    monkeypatch.setenv("SECRET", "told")
    assert filled({"a": "${oc.env:SECRET}"}) == {"a": "${oc.env:SECRET}"}


@pytest.mark.parametrize("plain", [{"a": "${a}"}, {"a": "${b}", "b": "${a}"}, {"a": {"b": "${a}"}}, {"a": "x${a}"}])
def test_references_in_a_circle_end(plain):
    assert set(filled(plain)) == set(plain)


def test_growth_is_limited():
    doubling = {f"k{i}": [f"${{k{i + 1}}}"] * 40 for i in range(8)}
    with pytest.raises(ConfigError, match="more than"):
        filled({**doubling, "k8": "x"})


def test_merge_replaces_lists_and_values():
    assert merge({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": None}) == {"a": [3], "b": None}


def test_only_below(tmp_path):
    """Bases of a file that was sent: from its own folder and below, whatever their names say."""
    place = tmp_path / "sent"
    (place / "dataset").mkdir(parents=True)
    outside = tmp_path / "outside.yaml"
    outside.write_text("secret: 1\n", encoding="utf-8")
    (place / "link.yaml").symlink_to(outside)
    (place / "chain.yaml").write_text("_base_: [../outside.yaml]\na: 1\n", encoding="utf-8")
    (place / "dataset" / "base.yaml").write_text("_base_: [chain.yaml]\nb: 2\n", encoding="utf-8")
    for name in ("outside.yaml", "../outside.yaml", str(outside), "link.yaml", f"x/../../{outside.name}"):
        merged = resolve({"_base_": [name]}, place, {}, only_below=True)
        assert (merged.plain, merged.missing) == ({}, [name])
    merged = resolve({"_base_": ["chain.yaml"]}, place, {}, only_below=True)
    assert (merged.plain, merged.missing) == ({"a": 1}, ["../outside.yaml"])
    # as HCP names them, from where it is started; that of the base lies above the base, but below the whole
    merged = resolve({"_base_": ["cfgs/train/dataset/base.yaml"]}, place, {}, only_below=True)
    assert merged.plain == {"a": 1, "b": 2}
    assert resolve({"_base_": ["outside.yaml"]}, place, {}).plain == {"secret": 1}, "of a file of one's own, all are"


def test_a_base_that_cannot_be_a_path(tmp_path):
    for name in ("a\x00.yaml", "n" * 300 + ".yaml", "x/" * 3000 + "y.yaml", "\ud800.yaml"):
        assert resolve({"_base_": [name]}, tmp_path, {}).missing == [name]


def test_no_resolver_of_the_process_is_reached(monkeypatch):
    """HCP itself registers Python's `eval`, and OmegaConf brings one that reads the environment."""
    from omegaconf import OmegaConf

    monkeypatch.setenv("SECRET", "told")
    OmegaConf.register_new_resolver("hcp.eval", eval)
    OmegaConf.register_new_resolver("of_the_process", lambda *_: "reached")
    try:
        plain = {"a": '${hcp.eval:"len([1,2])"}', "b": "${of_the_process:1}", "c": "x${oc.env:SECRET}", "d": "${a}"}
        assert filled(plain) == {**plain, "d": plain["a"]}
    finally:
        OmegaConf.clear_resolver("hcp.eval")
        OmegaConf.clear_resolver("of_the_process")


def test_what_omegaconf_reads_is_read():
    plain = {"a": {"b": ["x", "y"]}, "key": "b", "c": "${a.b[1]}", "d": "${a.${key}}", "e": r"\${a}-${key}"}
    assert [filled(plain)[key] for key in "cde"] == ["y", ["x", "y"], "${a}-b"]


@pytest.mark.parametrize(
    "plain",
    [
        {**{f"k{i}": f"${{k{i + 1}}}${{k{i + 1}}}" for i in range(20)}, "k20": "x"},  # doubles, but not for ever
        {**{f"k{i}": f"${{k{i + 1}}}" for i in range(5000)}, "k5000": "x"},
        {"a": "${" * 1300 + "b" + "}" * 1300},
        {"_base_": "${" * 1300 + "b" + "}" * 1300},
        {"a": "${x:" + "[" * 3000},
        {f"k{i}": "${" * 1500 for i in range(200)},
        {"a": {"b": {"c": ["${..}", "${a}", "${a.b}"] * 50}}},
    ],
    ids=["doubling", "chain", "nested", "base", "open", "many", "itself"],
)
def test_hostile_references_end_soon(plain):
    """They are filled as far as there is room, or refused in a sentence."""
    try:
        assert set(filled(plain)) == set(plain) - {"_base_"}
    except ConfigError as error:
        assert "settings" in str(error)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("${}.:,[]'\"\\ ab1\0é"), max_size=30), key=st.sampled_from("ab1"))
def test_any_text_is_filled_or_stays(text, key):
    """The grammar's own signs in any order."""
    assert set(filled({"a": "${" + text, "b": text, "c": {key: text, "d": "${.." + text + "}"}})) == {"a", "b", "c"}


def test_without_omegaconf_only_references_are_refused(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "omegaconf.grammar_parser", None)
    assert filled({"a": 1}) == {"a": 1}
    with pytest.raises(ConfigError, match="pip install omegaconf"):
        filled({"a": 1, "b": "${a}"})
