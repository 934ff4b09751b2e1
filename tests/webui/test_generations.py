"""Names hold for one generation, in its own thread, whichever way it ends."""

from __future__ import annotations

import threading

import pytest

from lib_pivotal.webui.generations import EmbeddingResolution
from lib_pivotal.webui.name_table import EmbeddingOrigin, NameTable, build_table


def table(name: str) -> NameTable:
    embeddings = [EmbeddingOrigin(("file",), {name: object()})]
    return build_table(embeddings, ids_of=lambda text: tuple(map(ord, text)), folder={})


def names(resolver: EmbeddingResolution) -> set[str]:
    return resolver.in_force().matcher.names_in(["one two three"])


def test_names_end_with_their_generation():
    resolver = EmbeddingResolution()
    with resolver.generating() as generation:
        generation.table = table("one")
        assert names(resolver) == {"one"}
    assert names(resolver) == set()
    assert resolver.generation is None


@pytest.mark.parametrize("end", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_they_end_when_it_is_broken_off(end):
    resolver = EmbeddingResolution()
    with pytest.raises(end), resolver.generating() as generation:
        generation.table = table("one")
        raise end
    assert names(resolver) == set()


def test_a_picture_inside_a_picture_leaves_the_outer_ones_names():
    resolver = EmbeddingResolution()
    with resolver.generating() as outer:
        outer.table, outer.data = table("one"), {"lora": ()}
        with resolver.generating() as inner:
            assert names(resolver) == set()
            inner.table = table("two")
            assert names(resolver) == {"two"}
        assert names(resolver) == {"one"}
        with resolver.generating(inherits=True) as inner:
            assert names(resolver) == {"one"} and inner.data == outer.data
            inner.table = table("two")
        assert names(resolver) == {"one"}
    with resolver.generating(inherits=True):
        assert names(resolver) == set(), "outside of a picture there is nothing to go on with"


def test_nothing_is_let_into_a_closed_one_from_around_it():
    resolver = EmbeddingResolution()
    with resolver.generating() as outer:
        outer.table = table("one")
        with resolver.generating(closed=True):
            assert names(resolver) == set()
            with resolver.generating(inherits=True) as inner:
                assert inner.closed and names(resolver) == set()
        assert not outer.closed and names(resolver) == {"one"}


def test_another_thread_has_names_of_its_own():
    resolver, seen = EmbeddingResolution(), []
    with resolver.generating() as generation:
        generation.table = table("one")
        thread = threading.Thread(target=lambda: seen.append(names(resolver)))
        thread.start()
        thread.join()
    assert seen == [set()]


def test_the_token_counters_table_goes_first():
    resolver = EmbeddingResolution()
    with resolver.generating() as generation:
        generation.table = table("one")
        resolver.local.table = table("two")
        assert names(resolver) == {"two"}
        resolver.local.table = None
        assert names(resolver) == {"one"}


def test_what_is_activated_outside_of_any_ends_with_its_deactivation_or_the_next_generation():
    resolver = EmbeddingResolution()
    resolver.activated_alone().table = table("one")
    assert names(resolver) == {"one"}
    resolver.end_alone()
    assert names(resolver) == set()
    resolver.activated_alone().table = table("one")
    with resolver.generating():
        assert names(resolver) == set()
    assert names(resolver) == set()


def test_forgotten_in_the_middle_of_a_generation():
    """ "Reload UI" while a picture is made."""
    resolver = EmbeddingResolution()
    with resolver.generating() as generation:
        generation.table = table("one")
        resolver.built = "x", generation.table
        resolver.forget()
        assert names(resolver) == set()
        assert resolver.built is None
    with resolver.generating() as generation:
        generation.table = table("two")
        assert names(resolver) == {"two"}
