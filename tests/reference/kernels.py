"""The kernels of docs/numerics.md, section 5. A row is a list of integers, one token at a time."""

from math import isqrt
from operator import mul

from numerics import (
    LOG2E_Q62,
    bits,
    cap,
    cos_sin,
    exp2_neg,
    log2_cap,
    normal_cdf,
    product,
    quantise,
    reciprocal,
    rescale,
    round_div,
    round_shift,
    saturate,
    scale_from,
    sigmoid,
)

ONE = (2**22, -22)  # a scale
GROUP = 32  # inputs that share a multiplier


def dot(a, b):
    """Exact sum of products of two rows of equal length."""
    return sum(map(mul, a, b))


def grouped(weights, multipliers):
    """A weight row times the multipliers of its groups."""
    return [w * multipliers[i // GROUP] for i, w in enumerate(weights)]


def embed(weights, scale, factor=ONE, multipliers=None):
    """Residual stream (Q16) of a token from its embedding row."""
    m, e = product(scale, factor)
    if multipliers is not None:
        weights = grouped(weights, multipliers)
    return [rescale(w, m, e + 16) for w in weights]


def root_mean_square(x, epsilon):
    """x / sqrt(mean x^2 + epsilon), Q20."""
    count = len(x)
    p = max(0, bits(max(map(abs, x))) - 23)
    squares = sum(round_shift(v, p) ** 2 for v in x)
    d = max(1, squares + round_shift(count * epsilon, 2 * p))
    h = (60 + bits(d) - bits(count)) // 2
    root = isqrt((count << (2 * h)) // d)
    return [round_shift(v * root, p + h - 20) for v in x]


def norm(x, gains, biases, epsilon):
    """What rmsnorm (`biases` is None) and layernorm quantise, Q40."""
    if biases is None:
        return list(map(mul, root_mean_square(x, epsilon), gains))
    mean = round_div(sum(x), len(x))
    y = root_mean_square([saturate(v - mean) for v in x], epsilon)
    return [v * g + b * 2**20 for v, g, b in zip(y, gains, biases)]


def rmsnorm(x, gains, epsilon):
    """Normalised and quantised row: (activations, exponent)."""
    return quantise(norm(x, gains, None, epsilon), 40)


def layernorm(x, gains, biases, epsilon):
    """Normalised and quantised row: (activations, exponent)."""
    return quantise(norm(x, gains, biases, epsilon), 40)


def normalise(x, gains, biases, epsilon):
    """A normalised row, or head, that stays in Q16; `biases` is None for an rmsnorm."""
    return [saturate(round_shift(v, 24)) for v in norm(x, gains, biases, epsilon)]


def linear(activations, exponent, weights, scales, multipliers=None):
    """Each output channel in Q16; `multipliers` has a row of them for each, if the weights have groups."""
    if multipliers is not None:
        weights = map(grouped, weights, multipliers)
    return [
        rescale(sum(map(mul, row, activations)), m, exponent + e + 16)
        for row, (m, e) in zip(weights, scales)
    ]


def bias(x, biases):
    """What a linear layer adds to its outputs."""
    return add(x, biases)


def rope(head, position, frequencies):
    """One head (Q16) turned by its position: channel i pairs with channel i + d/2."""
    half = len(head) // 2
    first, second = [], []
    for u, v, frequency in zip(head[:half], head[half:], frequencies):
        cos, sin = cos_sin(position * frequency % 2**64)
        first.append(saturate(round_shift(u * cos - v * sin, 30)))
        second.append(saturate(round_shift(v * cos + u * sin, 30)))
    return first + second


def cache_key(head):
    """A key head as the cache keeps it: (integers, exponent)."""
    return quantise(head, 16)


def cache_value(head):
    """A value head as the cache keeps it: (integers of 8 bits, maximum in Q16)."""
    maximum = max(map(abs, head))
    if maximum == 0:
        return [0] * len(head), 0
    return [round_div(127 * v, maximum) for v in head], maximum


def attention_scale(divisor):
    """log2(e) / sqrt(divisor) as a scale."""
    return scale_from(isqrt(LOG2E_Q62**2 // divisor), -62)


def attend(query, keys, values, divisor, soft_cap=None):
    """One query head (Q16) over the positions that it sees of its key-value head; result Q16.

    `keys` is a list of (integers, exponent), `values` a list of (integers, maximum).
    """
    q, q_exponent = quantise(query, 16)
    mc, ec = attention_scale(divisor)
    score = [rescale(dot(q, k), mc, q_exponent + k_exponent + ec + 16) for k, k_exponent in keys]
    if soft_cap is not None:
        score = [cap(s, log2_cap(soft_cap)) for s in score]
    top = max(score)
    w = [exp2_neg(top - s) for s in score]
    z = sum(w)
    u, u_exponent = quantise([a * maximum for a, (_, maximum) in zip(w, values)], 0)
    mz, ez = reciprocal(round_shift(127 * z, 14))
    columns = zip(*(v for v, _ in values))
    return [rescale(dot(u, column), mz, u_exponent + ez - 14) for column in columns]


def attention(queries, keys, values, window=None, soft_cap=None, divisor=None):
    """All query heads (Q16, after rope) of one token, concatenated and quantised together.

    `queries[h]` is a head; `keys[g]` and `values[g]` are the caches of key-value head g, up to the last position that
    the token may see. A window keeps the last positions of them.
    """
    group = len(queries) // len(keys)
    first = max(0, len(keys[0]) - window) if window else 0
    out = []
    for h, query in enumerate(queries):
        g = h // group
        out += attend(query, keys[g][first:], values[g][first:], divisor or len(query), soft_cap)
    return quantise(out, 16)


def gelu_tanh(x):
    """The share of x (Q16) that the approximation of GELU by a hyperbolic tangent lets through, Q30."""
    c = min(max(x, -(2**19)), 2**19)
    slope = 1713444047 + round_shift(76616651 * round_shift(c * c, 16), 16)
    return sigmoid(round_shift(c * slope, 30))


SHARES = {"silu": sigmoid, "gelu_erf": normal_cdf, "gelu_tanh": gelu_tanh}


def gate(activation, x, up=None):
    """x * share(x) * up, quantised; without `up` in an MLP without a gate."""
    share = SHARES[activation]
    s = [round_shift(v * share(v), 30) for v in x]
    if up is None:
        return quantise(s, 16)
    return quantise(list(map(mul, s, up)), 32)


def add(x, y):
    """Residual addition."""
    return [saturate(a + b) for a, b in zip(x, y)]
