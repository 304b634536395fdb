"""The graph of Llama and its relatives (docs/numerics.md, section 6), fed one token at a time."""

from graph import Cache, check, lookup, normed, normed_q16, project, split
from kernels import add, attention, gate, rope
from numerics import cap


class Sequence:
    """One sequence over a bundle: the key-value cache and the next position."""

    def __init__(self, bundle):
        self.bundle = bundle
        self.position = 0
        self.caches = [Cache(bundle.kv_heads) for _ in bundle.layers]

    def feed(self, token):
        """Appends a token; the logits (Q16) of what follows it."""
        b, variant = self.bundle, self.bundle.variant
        check(b, token, self.position)
        x = lookup(b.embedding, token, variant.embedding_factor)

        for layer, cache in zip(b.layers, self.caches):
            a = normed(x, layer.attention_norm, b.epsilon)
            q, k, v = (split(project(a, m), b.head_dim) for m in (layer.query, layer.key, layer.value))
            if variant.qk_norm:
                q = [normed_q16(head, layer.query_norm, b.epsilon) for head in q]
                k = [normed_q16(head, layer.key_norm, b.epsilon) for head in k]
            frequencies = b.local_frequencies if layer.window else b.frequencies
            q = [rope(head, self.position, frequencies) for head in q]
            k = [rope(head, self.position, frequencies) for head in k]
            cache.append(k, v)
            a = attention(
                q, cache.keys, cache.values, layer.window, variant.attention_cap_q16, variant.score_divisor
            )
            y = project(a, layer.output)
            if variant.post_norms:
                y = normed_q16(y, layer.attention_post_norm, b.epsilon)
            x = add(x, y)

            a = normed(x, layer.mlp_norm, b.epsilon)
            a = gate(variant.activation, project(a, layer.gate), project(a, layer.up))
            y = project(a, layer.down)
            if variant.post_norms:
                y = normed_q16(y, layer.mlp_post_norm, b.epsilon)
            x = add(x, y)

        self.position += 1
        logits = project(normed(x, b.final_norm, b.epsilon), b.head)
        if variant.final_cap_q16 is not None:
            logits = [cap(v, variant.final_cap_q16) for v in logits]
        return logits
