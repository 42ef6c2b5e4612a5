"""What one CPU thread does with its share of a job: numba loops for moments, histograms, copies."""

# mypy: ignore-errors
# numba infers the types; the same source is compiled for several.

import math

import numpy as np
from numba import carray, njit

from trainer.record import (
    BINS,
    COUNT,
    INFINITIES,
    MAX_ABS,
    MOMENTS,
    NANS,
    NORM,
    SUM_ABS,
    ZEROS,
)
from trainer.statistics.addresses import address_as, address_of, fetch_add, words_at
from trainer.statistics.bits import (
    as_float64,
    binary_scale,
    count_nonzero,
    difference,
    infinity,
    is_plain,
    magnitude,
    power_of_two,
    scaled,
    value,
    zero,
)
from trainer.statistics.histogram import (
    CODES,
    PAIRS,
    SCRATCH_BYTES,
    TABLE,
    block_histogram,
    empty_table,
)

LINE = 2048  # values that two loops read in turn, from the first-level cache
BLOCK = 65536  # values; the second pass over them finds their 256 KiB in the second-level cache
# A job is an array of int64: this header, then rows with an entry for each tensor: addresses,
# lengths, first blocks (one more entry: how many blocks there are), second addresses. The results
# of blocks go to PARTIALS and are put together in RESULTS by the thread that ends the last one.
NEXT_BLOCK, NEXT_WORKER, ENDED, WORKERS, TENSORS, PARTIALS, RESULTS, COUNTS, SCRATCH = range(9)
HEADER = 9

REORDER = {"reassoc", "contract", "nsz"}  # sums may use vectors; NaN and infinity keep their sense


@njit(nogil=True, fastmath=REORDER)
def block_moments(x, row):
    """Fill `row` with the block's moments; its largest magnitude, NaN above all."""
    none = zero(x)
    largest, squares, absolute, nonzero = none, 0.0, 0.0, 0
    for start in range(0, x.size, LINE):
        line = x[start : start + LINE]
        some = none
        for i in range(line.size):  # counts as wide as the values: no conversions in the loop
            m = magnitude(line[i])
            largest = max(largest, m)
            some = count_nonzero(some, m)
        nonzero += some
        for i in range(line.size):
            v = value(line[i])
            squares += v * v
            absolute += abs(v)
    row[COUNT] = x.size
    row[ZEROS] = x.size - nonzero
    row[NANS] = row[INFINITIES] = 0.0
    if is_plain(largest) or largest == none:
        row[NORM], row[SUM_ABS] = math.sqrt(squares), absolute
        row[MAX_ABS] = as_float64(largest)
    else:
        careful_moments(x, row)
    return largest


@njit(nogil=True, fastmath=REORDER)
def careful_moments(x, row):
    """The moments of a block with values that are not finite, very large or very small."""
    limit = infinity(x)
    largest, nans, infinities = zero(x), 0, 0
    for i in range(x.size):
        m = magnitude(x[i])
        nans += m > limit
        infinities += m == limit
        if m < limit:
            largest = max(largest, m)
    shift = binary_scale(largest)
    squares, absolute = 0.0, 0.0
    for i in range(x.size):
        m = magnitude(x[i])
        if m < limit:
            v = scaled(m, shift)
            squares += v * v
            absolute += v
    unit = power_of_two(-shift)
    row[NORM], row[SUM_ABS] = math.sqrt(squares) * unit, absolute * unit
    row[MAX_ABS], row[NANS], row[INFINITIES] = as_float64(largest), nans, infinities


@njit(nogil=True)
def read_job(job):
    """The parts of a job: header, addresses, lengths, first blocks, second addresses."""
    header = carray(words_at(job), (HEADER,))
    n = header[TENSORS]
    rows = carray(words_at(job), (HEADER + 4 * n + 1,))[HEADER:]
    return header, rows[:n], rows[n : 2 * n], rows[2 * n : 3 * n + 1], rows[3 * n + 1 :]


@njit(nogil=True)
def claim(header, field):
    """The next number of a counter in the header that all threads share."""
    return fetch_add(header.ctypes.data + 8 * field, 1)


@njit(nogil=True)
def is_last(header, first):
    """Whether the block that the thread has just ended was the last of all."""
    return claim(header, ENDED) == first[-1] - 1


@njit(nogil=True)
def fold_moments(first, rows, moments):
    """The moments of each tensor from those of its blocks."""
    fold_sums(first, rows, moments)
    for at in range(moments.shape[0]):
        norm, largest = 0.0, 0.0
        for block in range(first[at], first[at + 1]):
            norm = math.hypot(norm, rows[block, NORM])
            largest = max(largest, rows[block, MAX_ABS])
        moments[at, NORM], moments[at, MAX_ABS] = norm, largest


@njit(nogil=True)
def fold_sums(first, rows, sums):
    """The sums of each tensor from those of its blocks."""
    # Loops, since numba takes seconds to compile an operation on a slice.
    for at in range(sums.shape[0]):
        for column in range(sums.shape[1]):
            total = 0.0
            for block in range(first[at], first[at + 1]):
                total += rows[block, column]
            sums[at, column] = total


def summarize_blocks(job):
    """Moments, and counts where the header has an address for them, of the blocks that are left."""
    header, addresses, lengths, first, _ = read_job(job)
    worker = claim(header, NEXT_WORKER)
    if worker >= header[WORKERS]:
        return
    rows = carray(address_of(header[PARTIALS], np.float64), (first[-1], MOMENTS))
    moments = carray(address_of(header[RESULTS], np.float64), (header[TENSORS], MOMENTS))
    place = header[SCRATCH] + worker * SCRATCH_BYTES
    table = carray(address_of(place, np.uint32), (BINS,))
    sums = carray(address_of(place + 4 * BINS, np.uint16), (CODES,))
    place += 4 * BINS + 2 * CODES
    codes = carray(address_of(place, np.uint16), (PAIRS,))
    even = carray(address_of(place + 2 * PAIRS, np.uint16), (TABLE,))
    odd = carray(address_of(place + 2 * PAIRS + 2 * TABLE, np.uint16), (TABLE,))
    at = 0
    block = claim(header, NEXT_BLOCK)
    while block < first[-1]:
        while first[at + 1] <= block:
            at += 1
        x = block_of(job, addresses[at], lengths[at], block - first[at])
        largest = block_moments(x, rows[block])
        if header[COUNTS]:
            block_histogram(x, largest, rows[block, 4], (even, odd, codes, sums, table))
            counts = header[COUNTS] + at * BINS * 8
            empty_table(table, counts, first[at + 1] - first[at] == 1)
        if is_last(header, first):
            fold_moments(first, rows, moments)
        block = claim(header, NEXT_BLOCK)


def copy_blocks(job):
    """Copies at the second addresses, and the sum of squares of each block that is left."""
    header, addresses, lengths, first, copies = read_job(job)
    rows = carray(address_of(header[PARTIALS], np.float64), (first[-1], 1))
    squares = carray(address_of(header[RESULTS], np.float64), (header[TENSORS], 1))
    at = 0
    block = claim(header, NEXT_BLOCK)
    while block < first[-1]:
        while first[at + 1] <= block:
            at += 1
        x = block_of(job, addresses[at], lengths[at], block - first[at])
        y = block_of(job, copies[at], lengths[at], block - first[at])
        rows[block, 0] = copy_block(x, y)
        if is_last(header, first):
            fold_sums(first, rows, squares)
        block = claim(header, NEXT_BLOCK)


def compare_blocks(job):
    """The sum of squared differences to the second address, and how many values are the same, of
    each block that is left."""
    header, addresses, lengths, first, others = read_job(job)
    rows = carray(address_of(header[PARTIALS], np.float64), (first[-1], 2))
    sums = carray(address_of(header[RESULTS], np.float64), (header[TENSORS], 2))
    at = 0
    block = claim(header, NEXT_BLOCK)
    while block < first[-1]:
        while first[at + 1] <= block:
            at += 1
        x = block_of(job, addresses[at], lengths[at], block - first[at])
        y = block_of(job, others[at], lengths[at], block - first[at])
        compare_block(x, y, rows[block])
        if is_last(header, first):
            fold_sums(first, rows, sums)
        block = claim(header, NEXT_BLOCK)


@njit(nogil=True)
def block_of(job, address, length, number):
    """The values of the numbered block of the tensor at the address."""
    return carray(address_as(job, address), (length,))[number * BLOCK : (number + 1) * BLOCK]


@njit(nogil=True, fastmath=REORDER)
def copy_block(x, y):
    """y = x; the sum of squares."""
    total = 0.0
    for i in range(x.size):
        y[i] = x[i]
        v = value(x[i])
        total += v * v
    return total


@njit(nogil=True, fastmath=REORDER)
def compare_block(x, y, row):
    """Fill `row` with the sum of squared differences and the number of values that are the same."""
    total, different = 0.0, zero(x)
    for i in range(x.size):
        v = value(x[i]) - value(y[i])
        total += v * v
        different = count_nonzero(different, difference(x[i], y[i]))
    row[0], row[1] = total, x.size - different
