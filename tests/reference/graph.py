"""What the graphs of docs/numerics.md, section 6, share."""

from kernels import ONE, bias, cache_key, cache_value, embed, layernorm, linear, normalise, rmsnorm


def split(row, size):
    """A row cut into heads."""
    return [row[i : i + size] for i in range(0, len(row), size)]


def check(bundle, token, position):
    """A graph is defined for tokens of the vocabulary at positions of the context."""
    if not 0 <= token < bundle.vocabulary:
        raise ValueError("token %d outside the vocabulary" % token)
    if position >= bundle.context:
        raise ValueError("the context of %d positions is full" % bundle.context)


def lookup(matrix, index, factor=ONE):
    """A row of an embedding in Q16."""
    multipliers = None if matrix.multipliers is None else matrix.multipliers[index]
    return embed(matrix.rows[index], matrix.scales[index], factor, multipliers)


def project(row, matrix):
    """A linear layer with its bias, if it has one, of quantised activations."""
    activations, exponent = row
    out = linear(activations, exponent, matrix.rows, matrix.scales, matrix.multipliers)
    return out if matrix.bias is None else bias(out, matrix.bias)


def normed(x, norm, epsilon):
    """The norm of a row, quantised: a layernorm if the norm has biases."""
    if norm.biases is None:
        return rmsnorm(x, norm.gains, epsilon)
    return layernorm(x, norm.gains, norm.biases, epsilon)


def normed_q16(x, norm, epsilon):
    """The norm of a row, or head, that stays in Q16."""
    return normalise(x, norm.gains, norm.biases, epsilon)


class Cache:
    """Keys and values of one layer, by key-value head."""

    def __init__(self, kv_heads):
        self.keys = [[] for _ in range(kv_heads)]
        self.values = [[] for _ in range(kv_heads)]

    def append(self, keys, values):
        """Another token's heads."""
        for g, (key, value) in enumerate(zip(keys, values)):
            self.keys[g].append(cache_key(key))
            self.values[g].append(cache_value(value))
