"""The byte-bounded cache: least recent use goes first, and the sum never exceeds the bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.byte_cache import ByteCache


def test_the_least_recently_used_goes_first() -> None:
    cache: ByteCache[str, int] = ByteCache(30)
    for number, key in enumerate("abc"):
        cache.put(key, number, size_bytes=10)
    assert cache.get("a") == 0
    cache.put("d", 3, size_bytes=10)
    assert [cache.get(key) for key in "abcd"] == [0, None, 2, 3]
    assert (len(cache), cache.held_bytes) == (3, 30)


def test_a_key_that_is_put_again_counts_once() -> None:
    cache: ByteCache[str, str] = ByteCache(30)
    cache.put("a", "old", size_bytes=20)
    cache.put("a", "new", size_bytes=25)
    assert (cache.get("a"), cache.held_bytes, cache.values()) == ("new", 25, ["new"])
    cache.pop("a")
    cache.pop("a")
    assert (len(cache), cache.held_bytes) == (0, 0)


def test_what_is_larger_than_all_is_not_kept_and_costs_nothing_else() -> None:
    cache: ByteCache[str, str] = ByteCache(30)
    cache.put("a", "small", size_bytes=20)
    cache.put("b", "large", size_bytes=31)
    assert (cache.get("a"), cache.get("b")) == ("small", None)
    cache.put("a", "grown", size_bytes=31)
    assert (cache.get("a"), cache.held_bytes) == (None, 0), "the old value of the key would be wrong"
    cache.put("c", "x", size_bytes=5)
    cache.clear()
    assert (len(cache), cache.held_bytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.booleans()), max_size=60))
def test_the_sum_is_right_and_within_the_bound(steps) -> None:
    cache: ByteCache[int, int] = ByteCache(64)
    for key, size, put in steps:
        if put:
            cache.put(key, size, size_bytes=size)
            assert cache.get(key) == size
        else:
            cache.pop(key)
        assert cache.held_bytes == sum(cache.values()) <= 64
