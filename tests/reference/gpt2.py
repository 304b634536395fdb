"""The graph of GPT-2 (docs/numerics.md, section 6), fed one token at a time."""

from graph import Cache, check, lookup, normed, project, split
from kernels import add, attention, gate


class Sequence:
    """One sequence over a bundle: the key-value cache and the next position."""

    def __init__(self, bundle):
        self.bundle = bundle
        self.position = 0
        self.caches = [Cache(bundle.kv_heads) for _ in bundle.layers]

    def feed(self, token):
        """Appends a token; the logits (Q16) of what follows it."""
        b = self.bundle
        check(b, token, self.position)
        x = add(lookup(b.embedding, token), lookup(b.positions, self.position))

        for layer, cache in zip(b.layers, self.caches):
            a = normed(x, layer.attention_norm, b.epsilon)
            q, k, v = (split(project(a, m), b.head_dim) for m in (layer.query, layer.key, layer.value))
            cache.append(k, v)
            a = attention(q, cache.keys, cache.values)
            x = add(x, project(a, layer.output))

            a = normed(x, layer.mlp_norm, b.epsilon)
            a = gate(b.variant.activation, project(a, layer.up))
            x = add(x, project(a, layer.down))

        self.position += 1
        return project(normed(x, b.final_norm, b.epsilon), b.head)
