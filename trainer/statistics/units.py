"""What one CPU thread does with its share of a layer's output: statistics of each of its units."""

# mypy: ignore-errors
# numba infers the types; the same source is compiled for several.

import math

import numpy as np
from numba import carray, njit

from trainer.record import SIGNALS
from trainer.statistics.addresses import address_as, address_of, fetch_add, words_at
from trainer.statistics.bits import (
    count_nonzero,
    magnitude,
    value,
    zero,
)
from trainer.statistics.kernel import COLUMNS, REORDER, careful_moments

# A job is an array of int64. The output is seen as (samples, units, positions). The results are
# float64: RMS, fraction of zeros, signal fraction and dead fraction of the whole, then three rows
# with one entry for each unit: mean square, fraction of zeros, std / RMS.
NEXT_UNIT, UNITS_DONE, SAMPLES, UNITS, POSITIONS, RESULTS, OUTPUT = range(7)
WORDS = 7
AT_ONCE = 64  # units that a thread takes where they are neighbours in memory


def measure_units(job):
    """Fill in the results of the units that are left; who does the last adds those of the whole."""
    words = carray(words_at(job), (WORDS,))
    units = words[UNITS]
    whole = carray(address_of(words[RESULTS], np.float64), (SIGNALS,))
    results = carray(address_of(words[RESULTS] + SIGNALS * 8, np.float64), (3, units))
    step = AT_ONCE if words[POSITIONS] == 1 else 1
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
        for first in range(0, units, AT_ONCE):
            last = min(first + AT_ONCE, units)
            measure_between(job, output, samples, positions, results, first, last)
        summary(results, wholes[at])
        overflow(job, output, samples * units * positions, wholes[at])
        at = fetch_add(words.ctypes.data, 1)


@njit(nogil=True)
def measure_between(job, address, samples, positions, results, first, last):
    """Fill in the results of the units first to last of the output at the address."""
    units = results.shape[1]
    squares, zeros, fraction = results[0], results[1], results[2]
    if positions == 1:
        rows = carray(address_as(job, address), (samples, units))
        features(rows, first, squares[first:last], fraction[first:last], zeros[first:last])
        for unit in range(first, last):
            squares[unit] = square(squares[unit])
    else:
        output = carray(address_as(job, address), (samples, units, positions))
        for unit in range(first, last):
            squares[unit], fraction[unit], zeros[unit] = channel(output, unit)
    for unit in range(first, last):  # so far the mean's square and the mean square about it
        spread = fraction[unit]
        squares[unit] += spread
        defined = squares[unit] != 0 and samples * positions > 1
        fraction[unit] = math.sqrt(spread / squares[unit]) if defined else np.nan


@njit(nogil=True)
def summary(results, whole):
    """RMS, fraction of zeros, lower median of std / RMS over the units where it is defined, and
    fraction of the units that are always zero."""
    fractions = results[2][~np.isnan(results[2])]
    middle = (fractions.size - 1) // 2
    whole[0] = math.sqrt(results[0].mean())
    whole[1] = results[1].mean()
    whole[2] = np.partition(fractions, middle)[middle] if fractions.size else np.nan
    whole[3] = (results[1] == 1.0).mean()


@njit(nogil=True)
def overflow(job, address, size, whole):
    """Put the RMS right where only squares of finite values left float64."""
    if np.isfinite(whole[0]):
        return
    values, row = carray(address_as(job, address), (size,)), np.empty(COLUMNS)
    careful_moments(values, row)
    if row[5] == row[6] == 0:
        whole[0] = min(row[1] / math.sqrt(size), row[3])  # the norm may be beyond float64, too


@njit(nogil=True, fastmath=REORDER)
def features(rows, first, mean, variance, zeros):
    """Mean, mean square about it and fraction of zeros of neighbours in (samples, units)."""
    samples, last = rows.shape[0], first + mean.size
    mean[:] = 0.0
    variance[:] = 0.0
    zeros[:] = 0.0
    fours = samples - samples % 4  # four rows at once: one load and store of each sum for them
    for sample in range(0, fours, 4):
        a, b = rows[sample, first:last], rows[sample + 1, first:last]
        c, d = rows[sample + 2, first:last], rows[sample + 3, first:last]
        for unit in range(mean.size):
            mean[unit] += (value(a[unit]) + value(b[unit])) + (value(c[unit]) + value(d[unit]))
        for unit in range(mean.size):
            pair = is_zero(a[unit]) + is_zero(b[unit])
            zeros[unit] += pair + is_zero(c[unit]) + is_zero(d[unit])
    for sample in range(fours, samples):
        a = rows[sample, first:last]
        for unit in range(mean.size):
            mean[unit] += value(a[unit])
            zeros[unit] += is_zero(a[unit])
    for unit in range(mean.size):
        mean[unit] /= samples
        zeros[unit] /= samples
    for sample in range(0, fours, 4):
        a, b = rows[sample, first:last], rows[sample + 1, first:last]
        c, d = rows[sample + 2, first:last], rows[sample + 3, first:last]
        for unit in range(mean.size):
            centre = mean[unit]
            pair = square(value(a[unit]) - centre) + square(value(b[unit]) - centre)
            variance[unit] += (
                pair + square(value(c[unit]) - centre) + square(value(d[unit]) - centre)
            )
    for sample in range(fours, samples):
        a = rows[sample, first:last]
        for unit in range(mean.size):
            variance[unit] += square(value(a[unit]) - mean[unit])
    for unit in range(mean.size):
        variance[unit] /= samples


@njit(nogil=True, inline="always")
def is_zero(bits):
    """1 for either zero, else 0."""
    return np.int32(magnitude(bits) == 0)


@njit(nogil=True, inline="always")
def square(x):
    """x times itself."""
    return x * x


@njit(nogil=True, fastmath=REORDER)
def channel(output, unit):
    """Mean over the positions of the mean's square, mean square about the means, and fraction of
    zeros of a unit of (samples, units, positions); of a single sample its positions have one mean.
    """
    samples, _, positions = output.shape
    means, nonzero, squares, spread = np.zeros(positions), 0, 0.0, 0.0
    for sample in range(samples):
        row = output[sample, unit]
        some = zero(row)
        for position in range(row.size):
            some = count_nonzero(some, magnitude(row[position]))
        nonzero += some
        for position in range(row.size):
            means[position] += value(row[position])
    if samples == 1:
        means[:] = means.mean()
    for position in range(positions):
        means[position] /= samples
        squares += square(means[position])
    for sample in range(samples):
        row = output[sample, unit]
        for position in range(row.size):
            spread += square(value(row[position]) - means[position])
    size = samples * positions
    return squares / positions, spread / size, 1.0 - nonzero / size
