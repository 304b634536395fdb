"""What a model has besides its shapes: the manifest's `variant` (docs/bundle.md, section 3)."""

from kernels import ONE, SHARES
from tensors import BundleError

COUNT = range(1, 2**20)
CAP = range(2**16, 2**30 + 1)


def _is_scale(value):
    if len(value) != 2:
        return False
    mantissa, exponent = value
    return mantissa in range(2**22, 2**23) and exponent in range(-64, 65)


def _are_classes(names):
    return len(set(names)) == len(names) in range(1, 257) and all(1 <= len(n.encode()) <= 64 for n in names)


# A field that is given differs from its default; these say what else it may be.
RULES = {
    "activation": SHARES.__contains__,
    "attention_cap_q16": CAP.__contains__,
    "final_cap_q16": CAP.__contains__,
    "classes": _are_classes,
    "embedding_factor": _is_scale,
    "window": COUNT.__contains__,
    "global_every": COUNT.__contains__,
    "local_frequencies": lambda value: value is True,
    "pooling": ("mean", "cls").__contains__,
    "post_norms": lambda value: value is True,
    "qkv_bias": lambda value: value is True,
    "qk_norm": lambda value: value is True,
    "score_divisor": COUNT.__contains__,
}
FIELDS = {
    "llama": set(RULES) - {"classes", "pooling"},
    "gpt2": {"activation"},
    "bert": {"activation", "classes", "pooling"},
}
NEED_A_WINDOW = {"global_every", "local_frequencies"}


class Variant:
    """Every field, with its default where the manifest leaves it out."""

    def __init__(self, architecture, fields, head_dim):
        self.activation = "silu"
        self.attention_cap_q16 = None
        self.final_cap_q16 = None
        self.classes = []
        self.embedding_factor = list(ONE)
        self.window = None
        self.global_every = None
        self.local_frequencies = False
        self.pooling = "mean"
        self.post_norms = False
        self.qkv_bias = False
        self.qk_norm = False
        self.score_divisor = head_dim
        for name, value in fields.items():
            if name not in FIELDS[architecture] or (name in NEED_A_WINDOW and "window" not in fields):
                raise BundleError("%s has no field %s in such a variant" % (architecture, name))
            if value == getattr(self, name) or not RULES[name](value):
                raise BundleError("%s in the variant is not one that the text knows" % name)
            setattr(self, name, value)

    def window_of(self, layer):
        """The window of a layer, if it has one."""
        is_global = self.global_every is not None and (layer + 1) % self.global_every == 0
        return None if is_global else self.window
