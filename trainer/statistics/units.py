"""What one CPU thread does with its share of a layer's output: statistics of each of its units."""

# mypy: ignore-errors
# numba infers the types; the same source is compiled for several.

import math

import numpy as np
from numba import carray, njit

from trainer.record import INFINITIES, MAX_ABS, MOMENTS, NANS, NORM, SIGNALS
from trainer.statistics.addresses import address_as, address_of, fetch_add, words_at
from trainer.statistics.bits import (
    count_nonzero,
    magnitude,
    value,
    zero,
)
from trainer.statistics.kernel import REORDER, careful_moments

# A job is an array of int64. The output is seen as (samples, units, positions); a thread takes so
# many units at a time. The results are float64: RMS, fraction of zeros, signal fraction and dead
# fraction of the whole, then three rows with one entry for each unit: mean square, fraction of
# zeros, std / RMS.
NEXT_UNIT, UNITS_DONE, SAMPLES, UNITS, POSITIONS, RESULTS, OUTPUT, STEP = range(8)
WORDS = 8
AT_ONCE = 512  # columns, positions of units, that are summed together in the first-level cache
APART = AT_ONCE + 32  # from one row of sums to the next: at 4 KiB stores would be taken for loads
# Sums that are not to be reordered: a difference is small where its terms are not.
EXACT = {"contract", "nsz"}


def measure_units(job):
    """Fill in the results of the units that are left; who does the last adds those of the whole."""
    words = carray(words_at(job), (WORDS,))
    units, step = words[UNITS], words[STEP]
    whole = carray(address_of(words[RESULTS], np.float64), (SIGNALS,))
    results = carray(address_of(words[RESULTS] + SIGNALS * 8, np.float64), (3, units))
    first = fetch_add(words.ctypes.data + 8 * NEXT_UNIT, step)
    while first < units:
        last = min(first + step, units)
        measure_between(job, words[OUTPUT], words[SAMPLES], words[POSITIONS], results, first, last)
        if fetch_add(words.ctypes.data + 8 * UNITS_DONE, last - first) + last - first == units:
            summary(results, whole)
            overflow(job, words[OUTPUT], words[SAMPLES] * units * words[POSITIONS], whole)
        first = fetch_add(words.ctypes.data + 8 * NEXT_UNIT, step)


def measure_outputs(job):
    """Fill in the results of the outputs that are left; each is one thread's.

    Of this job the header has a counter, the number of outputs, the address of the results of the
    whole, (outputs, SIGNALS), and that of room for those of all units; rows with an entry for each
    output follow: addresses, samples, units, positions, how many units the outputs before have.
    """
    outputs = carray(words_at(job), (2,))[1]
    words = carray(words_at(job), (4 + 5 * outputs,))
    wholes = carray(address_of(words[2], np.float64), (outputs, SIGNALS))
    rows = words[4:].reshape(5, outputs)
    at = fetch_add(words.ctypes.data, 1)
    while at < outputs:
        output, samples, units, positions, before = rows[:, at]
        results = carray(address_of(words[3] + 3 * 8 * before, np.float64), (3, units))
        first = np.int64(0)  # a plain 0 would have it compiled once more
        measure_between(job, output, samples, positions, results, first, units)
        summary(results, wholes[at])
        overflow(job, output, samples * units * positions, wholes[at])
        at = fetch_add(words.ctypes.data, 1)


@njit(nogil=True)
def measure_between(job, address, samples, positions, results, first, last):
    """Fill in the results of the units first to last of the output at the address."""
    units = results.shape[1]
    squares, zeros, fraction = results[0], results[1], results[2]
    rows = carray(address_as(job, address), (samples, units * positions))
    if samples == 1 and positions > 1:  # the positions are the samples
        for unit in range(first, last):
            row = rows[0, unit * positions : (unit + 1) * positions]
            squares[unit], fraction[unit], zeros[unit] = alone(row)
        samples, positions = positions, 1
    else:
        sums, nonzero = np.empty(3 * APART), np.full(AT_ONCE, zero(rows))
        together = max(1, AT_ONCE // positions)
        for begin in range(first, last, together):
            end = min(begin + together, last)
            squares[begin:end] = fraction[begin:end] = zeros[begin:end] = 0.0
            for start in range(begin * positions, end * positions, AT_ONCE):
                stop = min(start + AT_ONCE, end * positions)
                columns(rows, start, stop, sums, nonzero)
                for unit in range(begin, end):
                    lower = max(unit * positions, start) - start
                    upper = min((unit + 1) * positions, stop) - start
                    means, spread, some = total(sums, nonzero, lower, upper)
                    squares[unit] += means
                    fraction[unit] += spread
                    zeros[unit] += samples * (upper - lower) - some
    for unit in range(first, last):  # so far sums of the squared means and the variances
        squares[unit] = (squares[unit] + fraction[unit]) / positions
        zeros[unit] /= samples * positions
        defined = squares[unit] != 0 and samples * positions > 1
        spread = fraction[unit] / positions
        fraction[unit] = math.sqrt(spread / squares[unit]) if defined else np.nan


@njit(nogil=True)
def summary(results, whole):
    """RMS, fraction of zeros, lower median of std / RMS over the units where it is defined, and
    fraction of the units that are always zero."""
    # A loop and a selection of our own: numba takes ten seconds to compile those of numpy. A plain
    # 0 would be a type of its own, for which `smallest` is compiled once more.
    units, squares, zeros, dead, defined = results.shape[1], 0.0, 0.0, 0, np.int64(0)
    fractions = np.empty(units)
    for unit in range(units):
        squares += results[0, unit]
        zeros += results[1, unit]
        dead += results[1, unit] == 1.0
        if not math.isnan(results[2, unit]):
            fractions[defined] = results[2, unit]
            defined += 1
    whole[0] = math.sqrt(squares / units)
    whole[1] = zeros / units
    whole[2] = smallest(fractions, defined, (defined - 1) // 2) if defined else np.nan
    whole[3] = dead / units


@njit(nogil=True)
def smallest(values, size, k):
    """The k-th smallest, from 0, of the first `size` values, which it reorders (Hoare's FIND)."""
    left, right = 0, size - 1
    while left < right:
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < k < i:
            break
        left, right = (left, j) if k <= j else (i, right)
    return values[k]


@njit(nogil=True)
def overflow(job, address, size, whole):
    """Put the RMS right where only squares of finite values left float64."""
    if np.isfinite(whole[0]):
        return
    values, row = carray(address_as(job, address), (size,)), np.empty(MOMENTS)
    careful_moments(values, row)
    if row[NANS] == row[INFINITIES] == 0:
        whole[0] = min(
            row[NORM] / math.sqrt(size), row[MAX_ABS]
        )  # the norm may be beyond float64, too


@njit(nogil=True, fastmath=EXACT)
def columns(rows, start, stop, sums, nonzero):
    """The means and, APART further on in `sums`, the variances of these columns over all rows;
    how many of their values are not zero.

    The first value of a column is taken from the others before they are squared. Nothing is lost
    thereby, though the values are read only once: it is no further from the mean than sqrt(n)
    standard deviations, so that rounding is at worst n times that of two passes (Chan, Golub and
    LeVeque, Algorithms for computing the sample variance, 1983, on shifted data).
    """
    samples, size = rows.shape[0], stop - start
    a = rows[0, start:stop]
    for at in range(size):  # in one array, or the compiler would take the sums for each other
        sums[at] = sums[APART + at] = 0.0
        sums[2 * APART + at] = value(a[at])
        nonzero[at] = zero(rows)
    fours = samples - samples % 4  # four rows at once: one load and store of each sum
    for row in range(0, fours, 4):
        a, b = rows[row, start:stop], rows[row + 1, start:stop]
        c, d = rows[row + 2, start:stop], rows[row + 3, start:stop]
        for at in range(size):
            shift = sums[2 * APART + at]
            p, q = value(a[at]) - shift, value(b[at]) - shift
            r, s = value(c[at]) - shift, value(d[at]) - shift
            sums[at] += (p + q) + (r + s)
            sums[APART + at] += (square(p) + square(q)) + (square(r) + square(s))
        for at in range(size):
            some = count_nonzero(nonzero[at], magnitude(a[at]))
            some = count_nonzero(some, magnitude(b[at]))
            some = count_nonzero(some, magnitude(c[at]))
            nonzero[at] = count_nonzero(some, magnitude(d[at]))
    for row in range(fours, samples):
        a = rows[row, start:stop]
        for at in range(size):
            p = value(a[at]) - sums[2 * APART + at]
            sums[at] += p
            sums[APART + at] += square(p)
        for at in range(size):
            nonzero[at] = count_nonzero(nonzero[at], magnitude(a[at]))
    share = 1.0 / samples
    for at in range(size):
        mean = sums[at] * share
        spread = sums[APART + at] * share - square(mean)
        sums[APART + at] = 0.0 if spread < 0.0 else spread  # NaN stays
        sums[at] = mean + sums[2 * APART + at]


@njit(nogil=True, fastmath=REORDER)
def total(sums, nonzero, lower, upper):
    """The sums of squared means, of variances and of values that are not zero, of some columns."""
    means, spread, some = 0.0, 0.0, 0
    for at in range(lower, upper):
        means += square(sums[at])
        spread += sums[APART + at]
        some += nonzero[at]
    return means, spread, some


@njit(nogil=True, fastmath=REORDER)
def alone(row):
    """The mean's square, the sum of squares about the mean and the number of zeros of a row."""
    mean, spread, nonzero = 0.0, 0.0, zero(row)
    for at in range(row.size):
        mean += value(row[at])
        nonzero = count_nonzero(nonzero, magnitude(row[at]))
    mean /= row.size
    for at in range(row.size):
        spread += square(value(row[at]) - mean)
    return square(mean), spread / row.size, np.float64(row.size) - np.float64(nonzero)


@njit(nogil=True, inline="always")
def square(x):
    """x times itself."""
    return x * x
