"""The kernels of docs/numerics.md, section 5. A row is a list of integers, one token at a time."""

from math import isqrt
from operator import mul

from numerics import (
    attention_scale,
    bits,
    cos_sin,
    exp2_neg,
    quantise,
    reciprocal,
    rescale,
    round_div,
    round_shift,
    saturate,
    sigmoid,
)


def dot(a, b):
    """Exact sum of products of two rows of equal length."""
    return sum(map(mul, a, b))


def embed(weights, scale):
    """Residual stream (Q16) of a token from its embedding row."""
    m, e = scale
    return [rescale(w, m, e + 16) for w in weights]


def rmsnorm(x, gains, epsilon):
    """Normalised and quantised row: (activations, exponent)."""
    count = len(x)
    p = max(0, bits(max(map(abs, x))) - 23)
    squares = sum(round_shift(v, p) ** 2 for v in x)
    d = max(1, squares + round_shift(count * epsilon, 2 * p))
    h = (60 + bits(d) - bits(count)) // 2
    root = isqrt((count << (2 * h)) // d)
    y = [round_shift(v * root, p + h - 20) for v in x]
    return quantise(list(map(mul, y, gains)), 40)


def linear(activations, exponent, weights, scales):
    """Each output channel in Q16."""
    return [
        rescale(sum(map(mul, row, activations)), m, exponent + e + 16)
        for row, (m, e) in zip(weights, scales)
    ]


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


def attend(query, keys, values):
    """One query head (Q16) over the cached positions of its key-value head; result Q16.

    `keys` is a list of (integers, exponent), `values` a list of (integers, maximum).
    """
    q, q_exponent = quantise(query, 16)
    mc, ec = attention_scale(len(query))
    score = [rescale(dot(q, k), mc, q_exponent + k_exponent + ec + 16) for k, k_exponent in keys]
    top = max(score)
    w = [exp2_neg(top - s) for s in score]
    z = sum(w)
    u, u_exponent = quantise([a * maximum for a, (_, maximum) in zip(w, values)], 0)
    mz, ez = reciprocal(round_shift(127 * z, 14))
    columns = zip(*(v for v, _ in values))
    return [rescale(dot(u, column), mz, u_exponent + ez - 14) for column in columns]


def attention(queries, keys, values):
    """All query heads (Q16, after rope) of one token, concatenated and quantised together.

    `queries[h]` is a head; `keys[g]` and `values[g]` are the caches of key-value head g.
    """
    group = len(queries) // len(keys)
    out = []
    for h, query in enumerate(queries):
        out += attend(query, keys[h // group], values[h // group])
    return quantise(out, 16)


def silu_gate(gate, up):
    """gate * sigmoid(gate) * up, quantised."""
    return quantise([round_shift(g * sigmoid(g), 30) * u for g, u in zip(gate, up)], 32)


def add(x, y):
    """Residual addition."""
    return [saturate(a + b) for a, b in zip(x, y)]
