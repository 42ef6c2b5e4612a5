"""What the stored bits of a number say, for numba: magnitude, value, bin.

The type of the bits names the format: uint32 is float32, uint64 float64, uint16 bfloat16 and int16
float16 (numba has neither of the last two). Bits tell zeros, denormals, infinities and every NaN
apart exactly, also in a thread that treats denormals as zero.
"""

# mypy: ignore-errors
# numba infers the types; the same source is compiled for several.

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

from trainer.record import MAGNITUDES, SIGN

U32, U64, I64 = np.uint32, np.uint64, np.int64
# Where infinity would be: what has no bin is counted here, and then dropped.
NO_BIN = U32(MAGNITUDES)
INFINITY_32, INFINITY_64 = U32(0x7F800000), U64(0x7FF << 52)


@intrinsic
def reinterpret(context, x, kind):
    """The same bits as a number of the type `kind`."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(kind.dtype))

    return kind.dtype(x, kind), generate


def float32_bits(x):
    """The bits of the value as float32, exact: float16 and bfloat16 are subsets of it."""
    raise NotImplementedError  # for numba only, like the others below


def magnitude(x):
    """The bits of |value| as float32, or as float64 for a float64."""
    raise NotImplementedError


def value(x):
    """The value as float64."""
    raise NotImplementedError


def log_bin(x):
    """The value's bin, or NO_BIN for zeros and non-finite values."""
    raise NotImplementedError


def zero(x):
    """The magnitude of zero for the values of an array."""
    raise NotImplementedError


def infinity(x):
    """The magnitude of infinity for the values of an array; NaNs are above it."""
    raise NotImplementedError


def count_nonzero(count, m):
    """count + (m != 0), in the type of m: as narrow as the values, so that vectors stay full."""
    raise NotImplementedError


def difference(x, y):
    """The bits in which the two differ, in the type of a magnitude."""
    raise NotImplementedError


def is_plain(m):
    """Whether plain float64 sums of a block whose largest magnitude is m are exact enough: m is
    finite, no square leaves float64, and denormals, which the thread may treat as zero, would not
    count beside it (2^16 of them are less than 2^-22 of m)."""
    raise NotImplementedError


def binary_scale(m):
    """The shift k that brings the block's largest finite magnitude m near 1 as |value| * 2^k."""
    raise NotImplementedError


def scaled(m, shift):
    """|value| * 2^shift as float64, from the bits alone: it never reads a denormal number."""
    raise NotImplementedError


def as_float64(m):
    """The number whose magnitude bits are m."""
    raise NotImplementedError


def _float16_to_32(x):
    magnitude = U32(x) & U32(0x7FFF)
    # The exponent is rebiased by 112, by 224 for infinity and NaN; a denormal is integer * 2^-24.
    rebias = U32(0x70000000) if magnitude >= U32(0x7C00) else U32(0x38000000)
    denormal = np.float32(np.float32(np.int32(magnitude)) * np.float32(2.0**-24))
    bits = U32(U32(magnitude << U32(13)) + rebias)
    bits = reinterpret(denormal, U32) if magnitude < U32(0x0400) else bits
    return U32(bits | U32((U32(x) & U32(0x8000)) << U32(16)))


@overload(float32_bits)
def _float32_bits(x):
    if x == types.int16:
        return _float16_to_32
    if x == types.uint16:
        return lambda x: U32(U32(x) << U32(16))
    return lambda x: x


@overload(magnitude)
def _magnitude(x):
    if x == types.uint64:
        return lambda x: x & U64(0x7FFFFFFFFFFFFFFF)
    return lambda x: U32(float32_bits(x) & U32(0x7FFFFFFF))


@overload(value)
def _value(x):
    if x == types.uint64:
        return lambda x: reinterpret(x, np.float64)
    return lambda x: np.float64(reinterpret(float32_bits(x), np.float32))


@overload(infinity)
def _infinity(x):
    return (lambda x: INFINITY_64) if x.dtype == types.uint64 else (lambda x: INFINITY_32)


@overload(zero)
def _zero(x):
    return (lambda x: U64(0)) if x.dtype == types.uint64 else (lambda x: U32(0))


@overload(log_bin)
def _log_bin(x):
    def from_float64(x):
        m = magnitude(x)
        k = I64(m >> U64(51)) - I64(2 * (1023 - 127))
        k = min(max(k, I64(k >= 0)), I64(509))  # [2^-127, 2^-126) is one bin, float32's denormals
        return NO_BIN if m == 0 or m >= INFINITY_64 else U32(k + I64(x >> U64(63)) * SIGN)

    def from_float32(x):
        bits = float32_bits(x)
        m = bits & U32(0x7FFFFFFF)
        return NO_BIN if m == U32(0) or m >= INFINITY_32 else U32(bits >> U32(22))

    return from_float64 if x == types.uint64 else from_float32


@overload(count_nonzero)
def _count_nonzero(count, m):
    if m == types.uint64:
        return lambda count, m: U64(count + min(m, U64(1)))
    return lambda count, m: U32(count + min(m, U32(1)))


@overload(difference)
def _difference(x, y):
    if x == types.uint64:
        return lambda x, y: x ^ y
    return lambda x, y: U32(U32(x) ^ U32(y))


@overload(is_plain)
def _is_plain(m):
    if m == types.uint64:
        return lambda m: U64((1023 - 400) << 52) <= m < U64((1023 + 400) << 52)
    return lambda m: U32((127 - 88) << 23) <= m < INFINITY_32


@overload(binary_scale)
def _binary_scale(m):
    if m == types.uint64:
        return lambda m: min(I64(1023) - I64(m >> U64(52)), I64(1022))
    return lambda m: I64(0)  # float64 holds the squares of every float32


@overload(scaled)
def _scaled(m, shift):
    def from_float64(m, shift):
        exponent = I64(m >> U64(52))
        if exponent == 0:  # integer * 2^-1074; too small to count unless the shift is large
            return np.float64(I64(m)) * power_of_two(shift - 1074) if shift > 100 else 0.0
        exponent += shift
        if exponent <= 0:
            return 0.0
        return reinterpret((U64(exponent) << U64(52)) | (m & U64((1 << 52) - 1)), np.float64)

    def from_float32(m, shift):
        if m < U32(1 << 23):
            return np.float64(I64(m)) * 2.0**-149
        return np.float64(reinterpret(m, np.float32))

    return from_float64 if m == types.uint64 else from_float32


@overload(as_float64)
def _as_float64(m):
    if m == types.uint64:
        return lambda m: reinterpret(m, np.float64)
    return lambda m: scaled(m, I64(0))


@njit(nogil=True)
def power_of_two(exponent):
    """2^exponent for exponents of normal float64."""
    return reinterpret(U64(exponent + 1023) << U64(52), np.float64)
