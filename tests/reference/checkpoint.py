"""From a checkpoint to integers: docs/numerics.md, section 11.

An inference engine needs none of this: a bundle ships the results.
"""

from fractions import Fraction
from math import ceil, isqrt

from numerics import (
    TURN_Q62,
    bits,
    exp2_neg_q62,
    log2_by_squaring,
    normal,
    round_div,
    scale_from,
    shift_by,
)


def decode_single(pattern):
    """IEEE single bits as (signed significand n, exponent b): n * 2^b exactly."""
    exponent = (pattern >> 23) & 255
    fraction = pattern & (2**23 - 1)
    if exponent == 255:
        raise ValueError("NaN or infinity in a checkpoint")
    n, b = (fraction | 2**23, exponent - 150) if exponent else (fraction, -149)
    return (-n if pattern >> 31 else n), b


def single_from_bf16(pattern):
    """bf16 bits as the bits of the equal IEEE single."""
    return pattern << 16


def single_from_f16(pattern):
    """f16 bits as the bits of the equal IEEE single."""
    sign = (pattern >> 15) << 31
    exponent = (pattern >> 10) & 31
    fraction = pattern & 1023
    if exponent == 31:
        return sign | (255 << 23) | (fraction << 13)
    if exponent:
        return sign | ((exponent + 112) << 23) | (fraction << 13)
    if fraction == 0:
        return sign
    up = 11 - bits(fraction)  # a subnormal half is a normal single
    return sign | ((113 - up) << 23) | (((fraction << up) & 1023) << 13)


def weight_row(patterns):
    """One row of IEEE single bits as (weights, (mantissa, exponent))."""
    row = [decode_single(p) for p in patterns]
    low = min(b for _, b in row)
    exact = [n << (b - low) for n, b in row]  # all over the common denominator 2^-low
    maximum = max(map(abs, exact))
    if maximum == 0:
        return [0] * len(row), (2**22, -22)
    weights = [round_div(127 * x, maximum) for x in exact]
    n, b = row[list(map(abs, exact)).index(maximum)]
    return weights, scale_from((abs(n) << 64) // 127, b - 64)


def grouped_weight_row(patterns):
    """One row of IEEE single bits in groups of 32 as (weights, multipliers, (mantissa, exponent))."""
    row = [Fraction(n) * Fraction(2) ** b for n, b in map(decode_single, patterns)]
    groups = [row[i : i + 32] for i in range(0, len(row), 32)]
    maximum = max(map(abs, row))
    if maximum == 0:
        return [0] * len(row), [1] * len(groups), (2**22, -22)
    n, b = decode_single(patterns[list(map(abs, row)).index(maximum)])
    m, e = scale_from((abs(n) << 64) // (127 * 255), b - 64)
    weights, multipliers = [], []
    for group in groups:
        c = max(1, ceil(255 * max(map(abs, group)) / maximum))
        step = c * m * Fraction(2) ** e
        quotients = [x / step for x in group]
        weights += [round_div(q.numerator, q.denominator) for q in quotients]
        multipliers.append(c)
    return weights, multipliers, (m, e)


def _fixed(pattern, fraction_bits, limit, less_one=False):
    """IEEE single bits rounded to a fixed-point number of a magnitude below `limit`; one is added after rounding."""
    n, b = decode_single(pattern)
    value = shift_by(n, -(b + fraction_bits)) + (less_one << fraction_bits)
    if abs(value) >= limit:
        raise ValueError("gain or bias out of range")
    return value


def gain(pattern, less_one=False):
    """IEEE single bits as a gain or bias of a norm, Q20. Gemma stores gains less one."""
    return _fixed(pattern, 20, 2**30, less_one)


def linear_bias(pattern):
    """IEEE single bits as a bias of a linear layer, Q16."""
    return _fixed(pattern, 16, 2**31)


def nearest_single(x):
    """The bits of the IEEE single nearest to a rational (ties to even; zero is positive)."""
    sign = 2**31 if x < 0 else 0
    x = abs(x)
    if x == 0:
        return 0
    b = max(bits(x.numerator) - bits(x.denominator) - 24, -149)
    if x / Fraction(2) ** b >= 2**24:
        b += 1
    n = round(x / Fraction(2) ** b)
    # The leading bit of a normal significand carries into the exponent, and so does rounding up to 2^24.
    return sign | (((b + 149) << 23) + n)


def add_singles(a, b):
    """The sum of two IEEE singles, bits to bits."""
    return nearest_single(sum(n * Fraction(2) ** e for n, e in map(decode_single, (a, b))))


def position_row(position, segment):
    """A row of an encoder's positions: the position's with the segment's added, as a weight row."""
    return weight_row([add_singles(p, s) for p, s in zip(position, segment)])


def soft_cap(text):
    """A soft cap of the configuration, Q16."""
    return decimal_fixed(text, 16)


def embedding_factor(hidden):
    """sqrt(hidden) as a scale."""
    k = (64 - bits(hidden)) // 2
    r = isqrt(hidden << (2 * k))
    return normal((r + 2**8) >> 9, 9 - k)


def nearest_double(x):
    """The IEEE double nearest to a positive rational (ties to even), in its normal range, exactly."""
    e = bits(x.numerator) - bits(x.denominator) - 53
    if x / Fraction(2) ** e >= 2**53:
        e += 1
    return round(x / Fraction(2) ** e) * Fraction(2) ** e


def decimal_fixed(text, fraction_bits):
    """A positive decimal of the configuration, read as a double, as a fixed-point number."""
    exact = nearest_double(Fraction(text))
    return round_div(exact.numerator << fraction_bits, exact.denominator)


def epsilon_q32(text):
    """The epsilon of the norms, Q32, at least 1."""
    return max(1, decimal_fixed(text, 32))


def rope_frequencies(theta, head_dim):
    """Turns per token (Q64) of each pair of a head."""
    log = log2_by_squaring(theta, 57)
    result = []
    for i in range(head_dim // 2):
        x = log * 2 * i // head_dim
        power = exp2_neg_q62((x % 2**57) << 5)
        result.append((power * TURN_Q62 >> 60) >> (x >> 57))
    return result


def _lower(f, factor):
    """A frequency divided by the factor (Q32)."""
    return ((f << 32) + factor // 2) // factor


def scaled_linear(frequencies, factor):
    """Frequencies scaled by `linear`; the factor is decimal text."""
    factor = decimal_fixed(factor, 32)
    return [_lower(f, factor) for f in frequencies]


def scaled_llama3(frequencies, factor, low, high, original):
    """Frequencies scaled by `llama3`; factors are decimal texts, the original context is an integer."""
    factor, low, high = (decimal_fixed(text, 32) for text in (factor, low, high))
    result = []
    for f in frequencies:
        turns = f * original >> 32  # over the original context, Q32
        lower = _lower(f, factor)
        if turns < low:
            result.append(lower)
        elif turns > high:
            result.append(f)
        else:
            s = ((turns - low) << 32) // (high - low)
            result.append(((2**32 - s) * lower + s * f) >> 32)
    return result
