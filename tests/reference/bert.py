"""The graph of BERT (docs/numerics.md, section 6): a text at once, its vector and its class logits."""

from math import isqrt

from graph import Cache, check, lookup, normed_q16, project, split
from kernels import add, attention, gate
from numerics import cap, quantise, round_div, saturate


def encode(bundle, tokens):
    """The residual stream (Q16) of each token of a text, after the last layer."""
    b = bundle
    xs = []
    for position, token in enumerate(tokens):
        check(b, token, position)
        x = add(lookup(b.embedding, token), lookup(b.positions, position))
        xs.append(normed_q16(x, b.embedding_norm, b.epsilon))

    for layer in b.layers:
        # Every token sees the whole text: all keys and values come first.
        cache = Cache(b.kv_heads)
        queries = []
        for x in xs:
            a = quantise(x, 16)
            q, k, v = (split(project(a, m), b.head_dim) for m in (layer.query, layer.key, layer.value))
            queries.append(q)
            cache.append(k, v)
        xs = [encode_token(b, layer, cache, q, x) for q, x in zip(queries, xs)]
    return xs


def encode_token(b, layer, cache, q, x):
    """What follows the keys and values in a layer, for one token."""
    a = attention(q, cache.keys, cache.values)
    x = normed_q16(add(x, project(a, layer.output)), layer.attention_norm, b.epsilon)

    a = gate(b.variant.activation, project(quantise(x, 16), layer.up))
    return normed_q16(add(x, project(a, layer.down)), layer.mlp_norm, b.epsilon)


def vector(bundle, xs):
    """The vector of a text, of length one (Q16), from its residual streams."""
    sums = [sum(column) for column in zip(*xs)] if bundle.variant.pooling == "mean" else xs[0]
    length = isqrt(sum(s * s for s in sums))
    if length == 0:
        return [0] * len(sums)
    return [saturate(round_div(s * 2**16, length)) for s in sums]


def class_logits(bundle, xs):
    """The logits (Q16) of a classifier's classes."""
    pooled = [cap(v, 2**16) for v in project(quantise(xs[0], 16), bundle.pooler)]
    return project(quantise(pooled, 16), bundle.classifier)
