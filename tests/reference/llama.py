"""The Llama graph of docs/numerics.md, section 6, fed one token at a time."""

from kernels import add, attention, cache_key, cache_value, embed, linear, rmsnorm, rope, silu_gate


def split(row, size):
    """A row cut into heads."""
    return [row[i : i + size] for i in range(0, len(row), size)]


class Sequence:
    """One sequence over a bundle: the key-value cache and the next position."""

    def __init__(self, bundle):
        self.bundle = bundle
        self.position = 0
        self.keys = [[[] for _ in range(bundle.kv_heads)] for _ in bundle.layers]
        self.values = [[[] for _ in range(bundle.kv_heads)] for _ in bundle.layers]

    def feed(self, token):
        """Appends a token; the logits (Q16) of what follows it."""
        b = self.bundle
        if not 0 <= token < b.vocabulary:
            raise ValueError("token %d outside the vocabulary" % token)
        if self.position >= b.context:
            raise ValueError("the context of %d positions is full" % b.context)

        x = embed(b.embedding.rows[token], b.embedding.scales[token])

        for layer, keys, values in zip(b.layers, self.keys, self.values):
            a, exponent = rmsnorm(x, layer.attention_norm, b.epsilon)
            q, k, v = (
                split(linear(a, exponent, m.rows, m.scales), b.head_dim)
                for m in (layer.query, layer.key, layer.value)
            )
            q = [rope(head, self.position, b.frequencies) for head in q]
            k = [rope(head, self.position, b.frequencies) for head in k]
            for g in range(b.kv_heads):
                keys[g].append(cache_key(k[g]))
                values[g].append(cache_value(v[g]))
            a, exponent = attention(q, keys, values)
            x = add(x, linear(a, exponent, layer.output.rows, layer.output.scales))

            a, exponent = rmsnorm(x, layer.mlp_norm, b.epsilon)
            gate = linear(a, exponent, layer.gate.rows, layer.gate.scales)
            up = linear(a, exponent, layer.up.rows, layer.up.scales)
            a, exponent = silu_gate(gate, up)
            x = add(x, linear(a, exponent, layer.down.rows, layer.down.scales))

        self.position += 1
        a, exponent = rmsnorm(x, b.final_norm, b.epsilon)
        return linear(a, exponent, b.head.rows, b.head.scales)
