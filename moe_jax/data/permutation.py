"""A keyed permutation of range(n), computed only where it is asked for: shuffling 1e12 windows costs no memory.

A Feistel network permutes range(2^bits) ⊇ range(n). Fewer than half of these places lie outside range(n); a place that
is sent outside is permuted again until it falls inside (cycle walking: Black and Rogaway, Ciphers with Arbitrary Finite
Domains, 2002), so the whole is a bijection of range(n).
"""

import numpy as np

_ROUNDS = 8
_WORD = 2**64 - 1


def permute(places: np.ndarray, n: int, seed: int, epoch: int) -> np.ndarray:
    """The images of `places` under the permutation (seed, epoch) of range(n): integers in [0, n), any shape -> int64.

    Raises ValueError if a place is outside range(n)."""
    places = np.asarray(places, np.int64)
    if places.size and (places.min() < 0 or places.max() >= n):
        raise ValueError(f"places {places.min()}..{places.max()} are not in range({n})")
    bits = (n - 1).bit_length()
    keys = _keys(seed, epoch, n)
    x = places.astype(np.uint64).ravel()
    walking = np.arange(x.size)
    while walking.size:
        x[walking] = _feistel(x[walking], bits, keys)
        walking = walking[x[walking] >= n]
    return x.astype(np.int64).reshape(places.shape)


def _feistel(x: np.ndarray, bits: int, keys: list[int]) -> np.ndarray:
    """Each round changes one half of the bits by a function of the other half, in turn; a round is its own inverse."""
    low_bits = np.uint64(bits - bits // 2)
    low_mask, high_mask = np.uint64(2 ** int(low_bits) - 1), np.uint64(2 ** (bits // 2) - 1)
    low, high = x & low_mask, x >> low_bits
    for i, key in enumerate(keys):
        if i % 2:
            high = high ^ (_mix(low, key) & high_mask)
        else:
            low = low ^ (_mix(high, key) & low_mask)
    return high << low_bits | low


def _keys(seed: int, epoch: int, n: int) -> list[int]:
    key = 0
    for part in (seed, epoch, n):
        key = int(_mix(np.array([key ^ (part & _WORD)], np.uint64), 0x9E3779B97F4A7C15)[0])
    counter = np.arange(1, _ROUNDS + 1, dtype=np.uint64)
    return _mix(counter, key).tolist()


def _mix(x: np.ndarray, key: int) -> np.ndarray:
    """The finaliser of splitmix64 applied to x + key; uint64 arithmetic wraps around."""
    x = x + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
