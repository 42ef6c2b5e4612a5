"""How one CPU thread counts the bins of a block of values: numba loops."""

# mypy: ignore-errors
# numba infers the types; the same source is compiled for several.

import numpy as np
from numba import carray, njit

from trainer.record import BINS, SIGN
from trainer.statistics.addresses import address_of, fetch_add
from trainer.statistics.bits import (
    NO_BIN,
    U32,
    float32_bits,
    infinity,
    log_bin,
    magnitude,
)

# One increment counts two values: the code of a value is its sign and the distance of its bin from
# the block's largest (7 bits), and the table is indexed by the codes of both. Increments are what a
# histogram costs; two tables in turn keep equal neighbours from waiting for each other's store.
WINDOW = 63  # bins below the largest with a code of their own: 31 octaves
CODES = 128
PAIRS = 1024  # coded at a time
TABLE = CODES * CODES
PAIRS_PAY_FROM = 8192  # values; below, adding up the tables costs more than pairs save
SCRATCH_BYTES = 4 * BINS + 2 * CODES + 2 * PAIRS + 2 * 2 * TABLE

U16 = np.uint16


@njit(nogil=True)
def count_directly(x, table):
    """Add the bins of the values to the table, one by one; NO_BIN for those that have none."""
    for i in range(x.size):
        table[log_bin(x[i])] += U32(1)


@njit(nogil=True)
def code_pairs(x, y, low, codes):
    """codes[i] = the codes of x[i] and y[i]; bins up to `low` share code 0."""
    for i in range(codes.size):
        a, b = float32_bits(x[i]), float32_bits(y[i])
        p = U32(max((a >> U32(22)) & U32(511), low) - low) | ((a >> U32(25)) & U32(64))
        q = U32(max((b >> U32(22)) & U32(511), low) - low) | ((b >> U32(25)) & U32(64))
        codes[i] = U16((p << U32(7)) | q)


@njit(nogil=True)
def count_pairs(x, low, even, odd, codes):
    """Add pairs of values to the two tables; how many values at the end are left over."""
    at = 0
    while at + 2 * PAIRS <= x.size:
        code_pairs(x[at : at + PAIRS], x[at + PAIRS : at + 2 * PAIRS], low, codes)
        for i in range(codes.size // 2):
            even[codes[2 * i]] += U16(1)
            odd[codes[2 * i + 1]] += U16(1)
        at += 2 * PAIRS
    return x.size - at


@njit(nogil=True)
def unpair(low, even, odd, sums, table):
    """Move what was counted in pairs to the bins of `table`; the number of values with code 0."""
    sums[:] = U16(0)  # of the second ones: half of a block, so that 16 bits are enough
    lowest = U32(0)
    for p in range(CODES):
        row, other = even[p * CODES : (p + 1) * CODES], odd[p * CODES : (p + 1) * CODES]
        some = U16(0)
        for q in range(CODES):
            both = U16(row[q] + other[q])
            sums[q] = U16(sums[q] + both)
            some = U16(some + both)
        if some:
            row[:] = U16(0)
            other[:] = U16(0)
            lowest += add_code(p, low, some, table)
    for q in range(CODES):
        lowest += add_code(q, low, sums[q], table)
    return lowest


@njit(nogil=True, inline="always")
def add_code(code, low, count, table):
    """Add the values of a code to their bin; how many there are if it is code 0, of many bins."""
    if code & WINDOW == 0:
        return U32(count)
    table[low + (code & WINDOW) + (code >> 6) * SIGN] += U32(count)
    return U32(0)


@njit(nogil=True)
def block_histogram(x, largest, zeros, tables):
    """Add the block's bins to the table; entry NO_BIN and its neighbours are left with anything."""
    even, odd, codes, sums, table = tables
    if x.itemsize == 8 or x.size < PAIRS_PAY_FROM or largest >= infinity(x):
        count_directly(x, table)
    elif largest:
        low = U32(max(np.int64(largest >> U32(22)) - WINDOW, 0))
        rest = x.size - count_pairs(x, low, even, odd, codes)
        count_directly(x[rest:], table)
        if unpair(low, even, odd, sums, table) + table[NO_BIN] > zeros:
            for i in range(rest):  # values far below the block's largest: there are few, if any
                if magnitude(x[i]) >> U32(22) <= low:
                    table[log_bin(x[i])] += U32(1)


@njit(nogil=True)
def empty_table(table, address, alone):
    """Move the table to the int64 counts at the address: added atomically, or if alone stored."""
    table[NO_BIN:SIGN] = U32(0)
    table[SIGN + NO_BIN :] = U32(0)
    if alone:
        counts = carray(address_of(address, np.int64), (BINS,))
        for k in range(BINS):
            counts[k] = np.int64(table[k])
    else:
        for k in range(BINS):
            if table[k]:
                fetch_add(address + 8 * k, np.int64(table[k]))
    table[:] = U32(0)
