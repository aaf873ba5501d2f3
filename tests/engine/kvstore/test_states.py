"""A restored state is the saved one, bit for bit, and whatever is not is a miss."""

import os
from pathlib import Path

import pytest

from ds4_agent.engine.kvstore.store import Saved

WAIT = 30


def saved(case, store, tokens, kind="p", state=None, logits=None, before=None):
    """Compute `tokens`, save the place; (logits, state, what the store says of it)."""
    if state is None:
        logits, state = case.prefill(tokens)
    kept = store.save(kind, tokens, state, logits, before)
    assert store.wait(WAIT)
    assert store.failure == ""
    return logits, state, kept


def files(directory, folder=""):
    """Stored files by path below the store's model directory."""
    return sorted(p for p in Path(directory).rglob("*") if p.is_file() and f"/{folder}" in str(p)
                  and p.parent.name in ("rows", "places"))  # fmt: skip


@pytest.mark.parametrize("position", [1, 3, 127, 128, 129, 300, 640])
def test_a_restored_state_is_the_saved_one_bit_for_bit(
    case, tmp_path, opened, small_extents, small_blocks, position
):
    tokens = case.tokens(position)
    logits, state, _ = saved(case, opened(case.store(tmp_path)), tokens)

    restored = opened(case.store(tmp_path)).longest(tokens, 0)

    assert case.leaves(restored.state) == case.leaves(state)
    assert restored.logits.tobytes() == logits.tobytes()


@pytest.mark.parametrize("position", [120, 128, 255, 384])
def test_greedy_goes_on_alike_across_blocks(case, tmp_path, opened, position):
    tokens = case.tokens(position)
    logits, state, _ = saved(case, opened(case.store(tmp_path)), tokens)

    restored = opened(case.store(tmp_path)).longest(tokens, 0)

    assert case.greedy(restored.logits, restored.state, 16) == case.greedy(logits, state, 16)


def test_rows_that_were_rounded_are_stored_packed(load_case, tmp_path, opened):
    """The same model, rounded and not: a row of 64 + 32 fp32 channels is 64 + 1 + 128 bytes."""
    case = load_case("simulated")
    tokens = case.tokens(1280)
    saved(case, opened(case.store(tmp_path)), tokens)

    size = sum(path.stat().st_size for path in files(tmp_path, "rows"))
    packed, index, raw = 64 + 1 + 128, 16 + 1, 4 * (96 + 32)
    rows = 1280 // 4 * 2 * (packed + index) + 10 * packed + 4 * 1280
    assert rows <= size <= rows + 400
    assert size < 1280 // 4 * 2 * raw


def test_the_longest_prefix_is_found_and_nothing_of_other_tokens(mixed, tmp_path, opened):
    store = opened(mixed.store(tmp_path))
    tokens = mixed.tokens(700)
    for length in (100, 256, 400):
        saved(mixed, store, tokens[:length])
    other = tokens[:300] + mixed.tokens(100, seed=9)
    saved(mixed, store, other)

    def found(tokens, least=1):
        restored = store.longest(tokens, least)
        return None if restored is None else restored.state.position

    assert found(tokens) == 400
    assert found(tokens[:399]) == 256
    assert found(tokens[:99]) is None
    assert found(tokens, least=401) is None
    assert found(tokens[:150] + other[150:]) == 400
    assert found([96 - tokens[0], *tokens[1:]]) is None


def test_a_longer_prefix_writes_only_what_is_new(mixed, tmp_path, opened, small_extents):
    store = opened(mixed.store(tmp_path))
    tokens = mixed.tokens(1000)
    logits, state, kept = saved(mixed, store, tokens[:500])
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path, "rows")}

    logits, longer = mixed.prefill(tokens[500:], state)
    saved(mixed, store, tokens, state=longer, logits=logits, before=kept)

    after = files(tmp_path, "rows")
    assert {path: path.stat().st_mtime_ns for path in after if path in before} == before
    assert sum(int(path.name.split("-")[1]) for path in after) == 1000 // 128


def test_two_sessions_share_the_rows_of_their_common_prefix(mixed, tmp_path, opened):
    common, tails = mixed.tokens(640), [mixed.tokens(256, seed) for seed in (1, 2)]
    saved(mixed, opened(mixed.store(tmp_path)), common, "s")
    alone = sum(path.stat().st_size for path in files(tmp_path, "rows"))
    for tail in tails:  # each in a new process, as it were
        store = opened(mixed.store(tmp_path))
        restored = store.longest(common + tail, 0)
        assert restored.state.position == 640
        logits, state = mixed.prefill(tail, restored.state)
        before = Saved(extents=restored.extents)
        saved(mixed, store, common + tail, state=state, logits=logits, before=before)

    assert sum(path.stat().st_size for path in files(tmp_path, "rows")) < alone * 2


def test_rows_computed_in_other_chunks_are_kept_beside_the_first(mixed, tmp_path, opened):
    """They differ in their last bits, and each state is to come back with its own."""
    store = opened(mixed.store(tmp_path))
    tokens = mixed.tokens(900)
    _, early = mixed.prefill(tokens[:400])
    saved(mixed, store, tokens)
    branch = tokens[:400] + mixed.tokens(300, seed=8)
    logits, state = mixed.prefill(branch[400:], early)
    saved(mixed, store, branch, state=state, logits=logits)

    restored = opened(mixed.store(tmp_path)).longest(branch, 0)

    assert mixed.leaves(restored.state) == mixed.leaves(state)


def test_states_of_another_model_are_a_miss(mixed, load_case, tmp_path, opened):
    tokens = mixed.tokens(300)
    saved(mixed, opened(mixed.store(tmp_path)), tokens)

    assert opened(mixed.store(tmp_path, fingerprint="0" * 64)).longest(tokens, 0) is None
    assert opened(load_case("mixed-bf16").store(tmp_path)).longest(tokens, 0) is None
    assert opened(load_case("simulated").store(tmp_path)).longest(tokens, 0) is None


def test_files_of_another_model_in_our_folder_are_a_miss(mixed, load_case, tmp_path, opened):
    """Somebody copied them there: the shapes, or the tokens, are not ours."""
    other, tokens = load_case("yarn"), mixed.tokens(300)
    saved(other, opened(other.store(tmp_path)), tokens)
    folder = files(tmp_path)[0].parents[1]
    ours = opened(mixed.store(tmp_path))
    os.rename(folder, folder.parent / ours._places.split("/")[0])

    assert ours.longest(tokens, 0) is None


@pytest.mark.parametrize("folder", ["rows", "places"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "zero", "empty", "remove", "swap"])
def test_damage_is_a_miss_with_the_right_answer_afterwards(
    mixed, tmp_path, opened, small_extents, folder, damage
):
    tokens = mixed.tokens(900)
    logits, state = mixed.prefill(tokens)
    first = opened(mixed.store(tmp_path))
    _, shorter = mixed.prefill(tokens[:200])
    saved(mixed, first, tokens[:200], state=shorter, logits=logits)
    saved(mixed, first, tokens, state=state, logits=logits)
    # The last of a folder's files that only the longer place needs.
    damaged = max(files(tmp_path, folder), key=lambda path: path.stat().st_mtime_ns)
    spoil(damaged, damage, files(tmp_path, folder))

    found = opened(mixed.store(tmp_path)).longest(tokens, 0)

    if found is not None and found.state.position == len(tokens):
        raise AssertionError("a damaged file was taken for a whole one")
    if found is not None:
        assert mixed.leaves(found.state) == mixed.leaves(shorter)


@pytest.mark.parametrize("folder", ["rows", "places"])
def test_no_bit_of_a_first_line_can_change(mixed, tmp_path, opened, folder):
    """It says how much memory is filled before it is verified."""
    tokens = mixed.tokens(300)
    saved(mixed, opened(mixed.store(tmp_path)), tokens)
    (path,) = files(tmp_path, folder)
    whole = path.read_bytes()
    store = opened(mixed.store(tmp_path))
    for at in range(16, whole.index(b"\n", 16) + 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert store.longest(tokens, 0) is None, f"byte {at}"
        assert not path.exists(), f"byte {at}"
    path.write_bytes(whole)
    assert store.longest(tokens, 0) is not None


def spoil(path, how, others):
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 4
    elif how == "truncate":
        del data[len(data) // 2 :]
    elif how == "zero":
        data[len(data) // 3 : len(data) // 3 + 512] = bytes(512)
    elif how == "empty":
        data.clear()
    if how == "remove":
        path.unlink()
    elif how == "swap":
        path.write_bytes(next(p for p in others if p != path).read_bytes())
    else:
        path.write_bytes(data)


def test_a_deleted_store_is_written_anew(mixed, tmp_path, opened, small_extents):
    store = opened(mixed.store(tmp_path))
    tokens = mixed.tokens(1000)
    logits, state, kept = saved(mixed, store, tokens[:500])
    for path in files(tmp_path):
        path.unlink()

    logits, longer = mixed.prefill(tokens[500:], state)
    saved(mixed, store, tokens, state=longer, logits=logits, before=kept)

    restored = opened(mixed.store(tmp_path)).longest(tokens, 0)
    assert mixed.leaves(restored.state) == mixed.leaves(longer)


def test_a_session_writes_what_it_finally_occupies(mixed, tmp_path, opened):
    store, tokens = opened(mixed.store(tmp_path)), mixed.tokens(3000)
    written, put = [], store._disk.put
    store._disk.put = lambda *arguments: written.append(put(*arguments)) or written[-1]
    state = logits = kept = None
    for end in range(100, 3001, 58):
        logits, state = mixed.prefill(tokens[(0 if state is None else end - 58) : end], state)
        kept = saved(mixed, store, tokens[:end], "ap"[end % 2], state, logits, kept)[2]

    occupied = sum(path.stat().st_size for path in files(tmp_path))
    assert len(written) > 60
    assert sum(written) <= 1.2 * occupied


def test_where_a_prompt_parts_from_the_stored_system_prompt(mixed, tmp_path, opened):
    store, tokens = opened(mixed.store(tmp_path)), mixed.tokens(300)
    assert store.divergence(tokens) is None
    first = opened(mixed.store(tmp_path))
    saved(mixed, first, mixed.tokens(200, seed=5), "s")
    saved(mixed, first, tokens, "s")
    other = list(tokens)
    other[217] = 96 - other[217]

    found = store.divergence([*other, 1, 2])

    assert (found.position, found.own, found.stored) == (217, other[217], tokens[217])
    assert store.divergence([*tokens, 1, 2]) is None
    assert store.divergence(tokens[:250]).own is None
    assert first.divergence([*other, 1, 2]) is None
