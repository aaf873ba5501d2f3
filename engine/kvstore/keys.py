"""Names of what is stored. In: token ids. Out: SHA1 keys: one for each block of 128 tokens, chained
from a root, and one for each place. Equal keys mean equal tokens from the start on, the same
weights, numerics and file format; no payload need be read to find a prefix.

    root      sha1(fingerprint, row dtype, whether rows are rounded, STORE_FORMAT)
    block     sha1(key of the block before, or the root ‖ its 128 ids as u32 LE)
    place     sha1(key of its last whole block ‖ the fewer than 128 ids behind it as u32 LE)
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from ds4_agent.engine.model.config import BLOCK_TOKENS
from ds4_agent.engine.tokenlog import TokenLog

__all__ = [
    "EXTENT_BLOCKS",
    "Kind",
    "PlaceName",
    "chain_keys",
    "extent_name",
    "place_hash",
    "root_key",
    "token_array",
]

STORE_FORMAT = 1  # raised when a payload is written differently
# What one file of rows holds at most, 4096 tokens: 28 MB of V4 Flash in bf16, which are in memory
# beside the state while it is saved or restored.
EXTENT_BLOCKS = 32

Kind = Literal["s", "p", "a", "t"]
"""Of a place: end of a system prompt, of a prompt, of an answer; t: within a long prefill."""

_PLACE = re.compile(r"([0-9]{9})-([spat])-([0-9a-f]{40})", re.ASCII)
_STRENGTH = {"t": 0, "p": 1, "a": 1, "s": 2}  # the stronger, the longer it is kept


def root_key(fingerprint: str, dtype: str, *, kv_simulation: bool) -> bytes:
    """The key before the first block: 20 bytes. `fingerprint`: `weights.checkpoint.fingerprint`,
    of weights, tokenizer, config and the version of our numerics."""
    words = (fingerprint, dtype, str(int(kv_simulation)), str(STORE_FORMAT))
    return sha1("\n".join(words).encode()).digest()


def token_array(ids: Sequence[int], stop: int | None = None) -> NDArray[np.uint32]:
    """The first `stop` ids, or all, as they are hashed and stored, little-endian everywhere."""
    if isinstance(ids, TokenLog):  # tens of thousands: not one by one
        packed = ids.packed(len(ids) if stop is None else stop)
        return np.frombuffer(packed, dtype=np.uint32).astype("<u4", copy=False)
    return np.asarray(ids[:stop], dtype="<u4")


def chain_keys(root: bytes, ids: NDArray[np.uint32]) -> list[bytes]:
    """The root, then the key of each whole block of `ids`: entry i stands behind i blocks."""
    data, step, key = ids.tobytes(), 4 * BLOCK_TOKENS, root
    keys = [root]
    for start in range(0, len(data) // step * step, step):
        key = sha1(key + data[start : start + step]).digest()
        keys.append(key)
    return keys


def place_hash(keys: Sequence[bytes], ids: NDArray[np.uint32], position: int) -> str:
    """The key of the place behind `position` tokens; `keys` are the `chain_keys` of `ids`."""
    blocks = position // BLOCK_TOKENS
    tail = ids[blocks * BLOCK_TOKENS : position]
    return sha1(b"place" + keys[blocks] + tail.tobytes()).hexdigest()


def extent_name(key: bytes, blocks: int, parts: Iterable[memoryview]) -> str:
    """The file of the rows of the last `blocks` blocks up to the one of `key`.

    With their number, because another session may have cut the same rows elsewhere, and with a
    digest of the contents, because rows of the same tokens that were computed in chunks of other
    sizes differ in their last bits, and a state is restored with its own.
    """
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return f"{key.hex()}-{blocks}-{digest.hexdigest()}"


@dataclass(frozen=True)
class PlaceName:
    """The file name of a place, which says all that a search for a prefix needs."""

    position: int
    kind: Kind
    hash: str

    def __str__(self) -> str:
        return f"{self.position:09d}-{self.kind}-{self.hash}"

    @staticmethod
    def parse(name: str) -> "PlaceName | None":
        """None for a file that is no place."""
        found = _PLACE.fullmatch(name)
        if found is None:
            return None
        return PlaceName(int(found[1]), found[2], found[3])  # type: ignore[arg-type]  # by pattern

    def as_strong(self) -> "list[PlaceName]":
        """The names under which the same place may stand, to be kept as long or longer."""
        least = _STRENGTH[self.kind]
        kinds = [kind for kind, strength in _STRENGTH.items() if strength >= least]
        return [PlaceName(self.position, kind, self.hash) for kind in kinds]  # type: ignore[arg-type]
