"""Equal keys mean equal tokens from the start on, of the same model and format."""

from hashlib import sha1

import pytest

from ds4_agent.engine.kvstore.keys import (
    PlaceName,
    chain_keys,
    extent_name,
    place_hash,
    root_key,
    token_array,
)

ROOT = bytes(20)
IDS = token_array(range(1000, 1600))


def test_a_block_is_the_sha1_of_its_parent_and_its_ids():
    keys = chain_keys(ROOT, IDS)

    assert len(keys) == 1 + 600 // 128
    first = b"".join(i.to_bytes(4, "little") for i in range(1000, 1128))
    second = b"".join(i.to_bytes(4, "little") for i in range(1128, 1256))
    assert keys[1] == sha1(ROOT + first).digest()
    assert keys[2] == sha1(keys[1] + second).digest()


@pytest.mark.parametrize("changed", [0, 127, 128, 511])
def test_a_token_changes_every_key_from_its_block_on(changed):
    other = IDS.copy()
    other[changed] += 1
    a, b = chain_keys(ROOT, IDS), chain_keys(ROOT, other)
    block = changed // 128

    assert a[: block + 1] == b[: block + 1]
    assert all(x != y for x, y in zip(a[block + 1 :], b[block + 1 :], strict=True))


def test_no_two_places_of_two_sequences_share_a_hash():
    other = IDS.copy()
    other[130] += 1
    hashes = set()
    for ids in (IDS, other):
        keys = chain_keys(ROOT, ids)
        hashes |= {(min(n, 131), place_hash(keys, ids, n), n) for n in range(601)}

    assert len({hashed for _, hashed, _ in hashes}) == 131 + 2 * (601 - 131)


def test_the_root_changes_with_everything_that_changes_a_state():
    roots = {
        root_key("a", "float32", kv_simulation=False),
        root_key("b", "float32", kv_simulation=False),
        root_key("a", "bfloat16", kv_simulation=False),
        root_key("a", "float32", kv_simulation=True),
    }

    assert len(roots) == 4


def test_the_name_of_an_extent_says_what_is_in_it():
    keys = chain_keys(ROOT, IDS)
    names = {
        extent_name(keys[2], 2, [memoryview(b"rows")]),
        extent_name(keys[2], 1, [memoryview(b"rows")]),
        extent_name(keys[2], 2, [memoryview(b"row2")]),
        extent_name(keys[3], 2, [memoryview(b"rows")]),
    }

    assert len(names) == 4
    assert extent_name(keys[2], 2, [memoryview(b"ro"), memoryview(b"ws")]) in names


def test_a_place_name_is_read_back():
    name = PlaceName(4096, "s", "ab" * 20)

    assert PlaceName.parse(str(name)) == name
    assert str(name) == "000004096-s-" + "ab" * 20


@pytest.mark.parametrize("wrong", [
    "", "lock", "4096-s-" + "ab" * 20, "000004096-x-" + "ab" * 20, "000004096-s-" + "AB" * 20,
    "000004096-s-" + "ab" * 20 + "\n", "00000409६-s-" + "ab" * 20,
])  # fmt: skip
def test_another_file_is_no_place(wrong):
    assert PlaceName.parse(wrong) is None


def test_a_place_is_not_saved_again_under_a_weaker_kind():
    def kinds(kind):
        return {name.kind for name in PlaceName(1, kind, "0" * 40).as_strong()}

    assert kinds("t") == {"t", "p", "a", "s"}
    assert kinds("p") == kinds("a") == {"p", "a", "s"}
    assert kinds("s") == {"s"}
