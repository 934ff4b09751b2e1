"""Warnings of one kind as one: nothing is lost, the worst come first, and a fix of all does what each would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.lint_warnings import TITLES, Fix, LintWarning, grouped, worst_first

ONE = Fix("set", "Keep one", {"path": "data.duplicates", "value": "skip_near"})


def _doubles(count: int) -> list[LintWarning]:
    return [
        LintWarning("near_double", "warning", f"pair {n}", (f"{n}a.png", f"{n}b.png"), (), (ONE,)) for n in range(count)
    ]


def _take_out(kind: str, *names: str) -> list[LintWarning]:
    return [
        LintWarning(kind, "warning", name, (), (name,), (Fix("remove_word", f"Take {name} out", {"embedding": name}),))
        for name in names
    ]


def test_fourteen_pairs_are_one_line_with_their_number_and_one_remedy() -> None:
    (group,) = grouped(_doubles(14))
    assert group.text == "14 groups of pictures look the same (28 pictures)."
    assert len(group.keys) == 28 and group.fixes == (ONE,)
    assert [number for number, _ in group.warnings] == list(range(1, 15))


def test_a_single_one_stands_as_it_is() -> None:
    warning = LintWarning("tokens", "info", "long", ("a.png",), (), (ONE,))
    (group,) = grouped([warning])
    assert (group.text, group.keys, group.fixes) == ("long", ("a.png",), (ONE,))


def test_remedies_of_one_sort_are_made_together_others_one_by_one() -> None:
    (never,) = grouped(_take_out("word_never", "aoi", "hana"))
    (fix,) = never.fixes
    assert fix.label == "Fix all 2"
    assert [one["arguments"]["embedding"] for one in fix.arguments["fixes"]] == ["aoi", "hana"]
    (apart,) = grouped(_take_out("word_explained", "aoi", "hana"))
    assert apart.fixes == (), "one word that goes may mend the other finding"
    mixed = [*_take_out("word_never", "aoi"), LintWarning("word_never", "warning", "hana")]
    assert grouped(mixed)[0].fixes == (), "one of them has none"


def test_a_kind_of_two_severities_is_two_groups_with_names_of_their_own() -> None:
    found = [LintWarning("few_draws", "info", "few"), LintWarning("few_draws", "warning", "fewer")]
    groups = grouped([*found, LintWarning("odd_kind", "info", "one"), LintWarning("odd_kind", "info", "two")])
    assert [(group.name, group.severity) for group in groups] == [
        ("few_draws", "warning"),
        ("few_draws-info", "info"),
        ("odd_kind", "info"),
    ]
    assert groups[2].text == "2 warnings of the kind `odd kind`."


@given(st.lists(st.tuples(st.sampled_from(sorted(TITLES)), st.sampled_from(["error", "warning", "info"])), max_size=30))
def test_every_finding_is_in_one_group_under_its_own_number(made: list[tuple[str, str]]) -> None:
    warnings = [LintWarning(kind, level, str(n)) for n, (kind, level) in enumerate(made)]  # type: ignore[arg-type]
    groups = grouped(warnings)
    inside = {number: warning for group in groups for number, warning in group.warnings}
    assert [inside[number] for number in range(1, len(warnings) + 1)] == list(worst_first(warnings))
    assert len(inside) == len(warnings) and len({group.name for group in groups}) == len(groups)
    severities = [["error", "warning", "info"].index(group.severity) for group in groups]
    assert severities == sorted(severities)
    assert [number for group in groups for number in group.as_dict()["warnings"]] == [
        number for group in groups for number, _ in group.warnings
    ]
