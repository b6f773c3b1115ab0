"""Holds kernels/channel_stats.h against numpy in double.

usage: compare_channel_stats.py PATH_TO_channel_stats_dump

Minimum, maximum and counts must be equal. Mean and variance err by rounding: numpy and the kernel each
sum n terms of at most `absmax` (of at most 4 absmax^2 for squares) with at most n + 8 roundings of
2^-53, so mean may differ by 2 (n + 8) 2^-53 absmax and variance by 4 absmax times that, twice over,
since the mean's error enters it. Teeth: with one value moved by a thousandth of itself every check of
its channel's mean, and of the counts where the bin changes, must fail. Exit status 1 when any fails.
"""
import struct
import subprocess
import sys

import numpy as np

BINS = 131
EDGES = np.concatenate([[0.0, 5e-324], [2.0**e * (1 + s / 4) for e in range(-16, 16) for s in range(4)],
                        [2.0**16, np.inf]])


def dump(path, parts, heads, head_dim):
    """(mean, squares, min, max, counts) of each part, and (rows, mean, squares) of all together."""
    data = b"".join(struct.pack("<iii", heads, head_dim, len(p)) + p.astype("<f4").tobytes()
                    for p in parts)
    out = subprocess.run([path], input=data, capture_output=True, check=True).stdout
    channels, at, answers = heads * head_dim, 0, []

    def take(dtype, count):
        nonlocal at
        values = np.frombuffer(out, dtype, count, at)
        at += values.nbytes
        return values

    for _ in parts:
        answers.append((take("<f8", channels), take("<f8", channels), take("<f4", channels),
                        take("<f4", channels), take("<u4", heads * BINS).reshape(heads, BINS)))
        at = (at + 7) // 8 * 8
    merged = take("<f8", 3 * channels).reshape(channels, 3).T
    assert at == len(out), (at, len(out))
    return answers, merged


def problems(rows, mean, squares):
    """Channels whose mean or variance is not numpy's."""
    rows = rows.astype(float)
    absmax = np.abs(rows).max(axis=0)
    bound = 2 * (len(rows) + 8) * 2.0**-53 * absmax
    means = np.abs(mean - rows.mean(axis=0)) > bound
    variances = np.abs(squares / len(rows) - rows.var(axis=0)) > 8 * absmax * bound
    return np.flatnonzero(means), np.flatnonzero(variances)


def counted(rows, heads):
    magnitudes = np.abs(rows.astype(float)).reshape(len(rows), heads, -1)
    return np.stack([np.histogram(magnitudes[:, h], EDGES)[0] for h in range(heads)])


def cases(random):
    """Ordinary rows, means far from zero, a first row of outliers, magnitudes of every size, zeros."""
    for heads, head_dim, lengths in ((1, 64, (1, 2, 31, 32, 33)), (3, 64, (100, 7, 517)),
                                     (8, 128, (65, 640)), (2, 80, (2048, 1))):
        parts = []
        for n in lengths:
            rows = random.standard_normal((n, heads * head_dim))
            rows[:, ::3] += 500
            rows[0, ::5] *= 1e4
            rows[:, 1::7] *= 10.0 ** random.integers(-8, 8, (n, rows[:, 1::7].shape[1]))
            rows[:, 2::11] = 0
            parts.append(rows.astype(np.float32))
        yield heads, head_dim, parts


def main():
    path = sys.argv[1]
    compared = 0
    for heads, head_dim, parts in cases(np.random.default_rng(5)):
        answers, merged = dump(path, parts, heads, head_dim)
        for rows, (mean, squares, low, high, counts) in zip(parts, answers):
            assert np.array_equal(low, rows.min(axis=0)) and np.array_equal(high, rows.max(axis=0))
            assert np.array_equal(counts, counted(rows, heads)), "counts"
            means, variances = problems(rows, mean, squares)
            assert not len(means) and not len(variances), (means, variances)
            moved = rows.copy()
            moved[-1, 3] *= 1.001
            assert problems(moved, mean, squares)[0].tolist() == [3], "the mean's check has no teeth"
            moved[-1, 3] *= 4
            assert not np.array_equal(counts, counted(moved, heads)), "the counts' has no teeth"
            compared += 4 * rows.shape[1] + counts.size
        whole = np.concatenate(parts)
        assert np.all(merged[0] == len(whole))
        means, variances = problems(whole, merged[1], merged[2])
        assert not len(means) and not len(variances), ("merged", means, variances)
        if len(whole) > len(parts[0]):
            assert len(problems(whole[:-1], merged[1], merged[2])[0]), "a missing row is not seen"
    print(f"channel statistics: {compared} numbers equal numpy's within their bounds")


if __name__ == "__main__":
    main()
