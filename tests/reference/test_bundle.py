"""Self-checks of reading a bundle and of the graphs, on small bundles of random weights."""

import contextlib
import io
import json
import os
import struct
import tempfile
import unittest
from math import isqrt

import bert
import checkpoint
import logits
import numerics as n
from bundle import GROUPED_NUMBERS, NUMBERS, Bundle
from streams import stream
from tensors import FORMATS, BundleError
from variant import Variant


class Writer:
    """Tensors of random weights by name, and the file of them."""

    def __init__(self, has_groups=False):
        self.numbers = stream(4)
        self.tensors = {}
        self.has_groups = has_groups

    def integers(self, name, dtype, shape, values):
        self.tensors[name] = (dtype, shape, struct.pack(FORMATS[dtype] % len(values), *values))

    def row(self, name, count, lowest, span):
        self.integers(name, "I32", [count], [lowest + next(self.numbers) % span for _ in range(count)])

    def matrix(self, name, outputs, inputs, biased=False):
        weights = bytes(max(1, next(self.numbers) % 256) for _ in range(outputs * inputs))
        self.tensors[name + ".weight"] = ("U8", [outputs, inputs], weights)
        scales = []
        for _ in range(outputs):
            # With a multiplier of 4 it is the same model.
            scales += [2**22 + next(self.numbers) % 2**22, -32 if self.has_groups else -30]
        self.integers(name + ".scale", "I32", [outputs, 2], scales)
        if biased:
            self.row(name + ".bias", outputs, -(2**15), 2**16)
        if self.has_groups:
            count = (inputs + 31) // 32
            self.tensors[name + ".multiplier"] = ("U8", [outputs, count], b"\4" * (outputs * count))

    def norm(self, name, channels, biased=False):
        self.row(name + ".gain", channels, 2**20, 2**18)
        if biased:
            self.row(name + ".bias", channels, -(2**18), 2**19)

    def save(self, path):
        header, data = {}, b""
        for name in sorted(self.tensors):
            dtype, shape, content = self.tensors[name]
            offsets = [len(data), len(data) + len(content)]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
            data += content
        encoded = json.dumps(header).encode()
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(encoded)) + encoded + data)


# Something of everything that a relative of Llama may have.
RELATIVE = {
    "activation": "gelu_tanh",
    "attention_cap_q16": 50 << 16,
    "embedding_factor": [3 << 21, -20],
    "final_cap_q16": 1 << 16,
    "global_every": 2,
    "local_frequencies": True,
    "post_norms": True,
    "qk_norm": True,
    "qkv_bias": True,
    "score_divisor": 9,
    "window": 2,
}
CLASSIFIER = {"activation": "gelu_erf", "classes": ["no", "yes", "perhaps"]}


def write_bundle(directory, tied=False, architecture="llama", variant=None, layers=2, has_groups=False):
    """A bundle of random weights, small enough to run in a moment."""
    hidden, intermediate, vocabulary, context, heads, kv_heads, head_dim = 12, 20, 30, 16, 4, 2, 4
    variant = variant or {}
    w = Writer(has_groups)
    biased = architecture != "llama"
    qkv_biased = biased or "qkv_bias" in variant
    w.matrix("embedding", vocabulary, hidden)
    for i in range(layers):
        prefix = "layers.%d." % i
        w.norm(prefix + "attention_norm", hidden, biased)
        w.norm(prefix + "mlp_norm", hidden, biased)
        w.matrix(prefix + "query", heads * head_dim, hidden, qkv_biased)
        w.matrix(prefix + "key", kv_heads * head_dim, hidden, qkv_biased)
        w.matrix(prefix + "value", kv_heads * head_dim, hidden, qkv_biased)
        w.matrix(prefix + "output", hidden, heads * head_dim, biased)
        w.matrix(prefix + "up", intermediate, hidden, biased)
        w.matrix(prefix + "down", hidden, intermediate, biased)
        if architecture == "llama":
            w.matrix(prefix + "gate", intermediate, hidden)
        if "qk_norm" in variant:
            w.norm(prefix + "query_norm", head_dim)
            w.norm(prefix + "key_norm", head_dim)
        if "post_norms" in variant:
            w.norm(prefix + "attention_post_norm", hidden)
            w.norm(prefix + "mlp_post_norm", hidden)
    if architecture == "llama":
        for name, theta in (("frequencies", 10000), ("local_frequencies", 100)):
            if name == "frequencies" or name in variant:
                w.integers("rope." + name, "U64", [head_dim // 2], checkpoint.rope_frequencies(theta, head_dim))
    else:
        w.matrix("positions", context, hidden)
    if architecture == "bert":
        w.norm("embedding_norm", hidden, True)
    else:
        w.norm("final_norm", hidden, biased)
        if not tied:
            w.matrix("head", vocabulary, hidden)
    if "classes" in variant:
        w.matrix("pooler", hidden, hidden, True)
        w.matrix("classifier", len(variant["classes"]), hidden, True)
    w.save(os.path.join(directory, "weights.safetensors"))
    manifest = {
        "format_version": 1,
        "architecture": architecture,
        "formats": GROUPED_NUMBERS if has_groups else NUMBERS,
        "vocabulary": vocabulary,
        "context": context,
        "hidden": hidden,
        "intermediate": intermediate,
        "layers": layers,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "norm_epsilon_q32": 42950,
        "tied_embeddings": tied,
    }
    if variant:
        manifest["variant"] = variant
    with open(os.path.join(directory, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file)


class InAFolder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = temporary.name

    def bundle_of(self, **model):
        write_bundle(self.directory, **model)
        return Bundle(self.directory)

    def compare(self, bundle, records):
        """The exit status and the words of a comparison with such a file."""
        path = os.path.join(self.directory, "logits.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = logits.compare(bundle, path, None)
        return status, output.getvalue()


class SmallBundle(InAFolder):
    def setUp(self):
        super().setUp()
        write_bundle(self.directory)
        self.bundle = Bundle(self.directory)

    def test_a_prefix_decides_its_own_logits(self):
        long = list(logits.records(self.bundle, [1, 5, 29, 0], 3))
        self.assertEqual(len(long), 7)
        self.assertEqual(long[:3], list(logits.records(self.bundle, [1, 5, 29])))
        self.assertEqual(long[4]["token"], n.greedy(long[3]["logits"]))
        self.assertGreater(len(set(long[3]["logits"])), 20)

    def test_tied_embeddings(self):
        write_bundle(self.directory, tied=True)
        tied = Bundle(self.directory)
        self.assertIs(tied.head, tied.embedding)
        self.assertEqual(len(list(logits.records(tied, [3]))), 1)

    def test_compare(self):
        records = list(logits.records(self.bundle, [1, 2, 3]))
        self.assertEqual(self.compare(self.bundle, records), (0, "3 positions of 30 logits, all equal\n"))
        records[2]["logits"][7] += 1
        status, words = self.compare(self.bundle, records)
        self.assertEqual(status, 1)
        self.assertIn("position 2, index 7", words)

    def test_limits(self):
        with self.assertRaises(ValueError):
            list(logits.records(self.bundle, [30]))
        with self.assertRaises(ValueError):
            list(logits.records(self.bundle, [1] * 17))

    def test_another_format_is_refused(self):
        write_bundle(self.directory, tied=False)
        path = os.path.join(self.directory, "manifest.json")
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        for name, value in (("architecture", "other"), ("format_version", 2), ("tied_embeddings", True)):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(dict(manifest, **{name: value}), file)
            with self.assertRaises(BundleError):  # the last one leaves the head's tensors over
                Bundle(self.directory)

    def test_groups_of_weights(self):
        for variant in ({}, RELATIVE):
            plain = list(logits.records(self.bundle_of(variant=variant), [1, 5, 29]))
            grouped = self.bundle_of(variant=variant, has_groups=True)
            self.assertEqual(list(logits.records(grouped, [1, 5, 29])), plain)
            grouped.layers[1].down.multipliers[3] = [5]
            self.assertNotEqual(list(logits.records(grouped, [1, 5, 29])), plain)

    def test_a_multiplier_of_zero_is_refused(self):
        write_bundle(self.directory, has_groups=True)
        path = os.path.join(self.directory, "weights.safetensors")
        with open(path, "rb") as file:
            content = file.read()
        self.assertIn(b"\4" * 30, content)
        with open(path, "wb") as file:
            file.write(content.replace(b"\4" * 30, b"\4" * 29 + b"\0"))
        with self.assertRaises(BundleError):
            Bundle(self.directory)

    def test_wrong_shape_is_refused(self):
        path = os.path.join(self.directory, "manifest.json")
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        manifest["hidden"] += 1
        with open(path, "w", encoding="utf-8") as file:
            json.dump(manifest, file)
        with self.assertRaises(BundleError):
            Bundle(self.directory)


class Relatives(InAFolder):
    def test_every_part_of_the_variant_counts(self):
        whole = list(logits.records(self.bundle_of(variant=RELATIVE), [1, 5, 29, 0]))
        self.assertEqual(whole[:2], list(logits.records(Bundle(self.directory), [1, 5])))
        for name in RELATIVE:
            # What needs a window goes with it.
            gone = {name} | ({"global_every", "local_frequencies"} if name == "window" else set())
            other = self.bundle_of(variant={key: RELATIVE[key] for key in set(RELATIVE) - gone})
            self.assertNotEqual(list(logits.records(other, [1, 5, 29, 0])), whole, name)

    def test_layers_with_a_window(self):
        bundle = self.bundle_of(variant={"window": 2, "global_every": 3}, layers=6)
        self.assertEqual([layer.window for layer in bundle.layers], [2, 2, None] * 2)

    def test_a_window_hides_what_is_before_it(self):
        bundle = self.bundle_of(variant={"window": 3}, layers=1)
        ends = [list(logits.records(bundle, [first, 7, 8, 9]))[-2:] for first in (1, 2)]
        self.assertNotEqual(ends[0][0], ends[1][0])  # position 2 sees position 0,
        self.assertEqual(ends[0][1], ends[1][1])  # position 3 does not

    def test_logits_are_capped(self):
        for record in logits.records(self.bundle_of(variant=RELATIVE), [3, 4]):
            self.assertLessEqual(max(map(abs, record["logits"])), RELATIVE["final_cap_q16"])

    def test_gpt2(self):
        for tied in (False, True):
            bundle = self.bundle_of(architecture="gpt2", variant={"activation": "gelu_tanh"}, tied=tied)
            long = list(logits.records(bundle, [1, 5, 1, 5], 2))
            self.assertEqual(long[:2], list(logits.records(bundle, [1, 5])))
            self.assertNotEqual(long[0]["logits"], long[2]["logits"])
            self.assertEqual(self.compare(bundle, long)[0], 0)

    def test_a_variant_that_is_not_one_is_refused(self):
        for architecture, field in (
            ("llama", {"other": 1}),
            ("llama", {"pooling": "cls"}),
            ("llama", {"activation": "silu"}),  # the default is left out
            ("llama", {"activation": "relu"}),
            ("llama", {"global_every": 2}),
            ("llama", {"window": 0}),
            ("llama", {"qk_norm": False}),
            ("llama", {"score_divisor": 4}),
            ("llama", {"final_cap_q16": 2**30 + 1}),
            ("llama", {"embedding_factor": [2**22, 65]}),
            ("gpt2", {"window": 2}),
            ("bert", {"classes": ["a", "a"]}),
            ("bert", {"pooling": "mean"}),
        ):
            with self.assertRaises(BundleError, msg=str(field)):
                Variant(architecture, field, 4)


class Encoders(InAFolder):
    def test_vectors_have_length_one(self):
        for pooling in ({}, {"pooling": "cls"}):
            bundle = self.bundle_of(architecture="bert", variant=pooling)
            for tokens in ([1], [1, 2, 3]):
                vector = logits.text_record(bundle, tokens)["vector"]
                self.assertLess(abs(isqrt(sum(v * v for v in vector)) - 2**16), 4)

    def test_pooling(self):
        bundle = self.bundle_of(architecture="bert")
        xs = [[3, 4, 0], [3, -4, 0], [-3, 0, 0]]
        bundle.variant.pooling = "mean"
        self.assertEqual(bert.vector(bundle, xs), [2**16, 0, 0])
        self.assertEqual(bert.vector(bundle, [[0, 0], [0, 0]]), [0, 0])
        bundle.variant.pooling = "cls"
        self.assertEqual(bert.vector(bundle, xs), [39322, 52429, 0])

    def test_every_token_sees_the_whole_text(self):
        bundle = self.bundle_of(architecture="bert", variant={"activation": "gelu_erf", "pooling": "cls"})
        self.assertNotEqual(bert.encode(bundle, [1, 2, 3])[0], bert.encode(bundle, [1, 2, 4])[0])

    def test_compare(self):
        bundle = self.bundle_of(architecture="bert", variant=CLASSIFIER)
        records = [logits.text_record(bundle, tokens) for tokens in ([1, 2], [3])]
        self.assertEqual([len(record["classes"]) for record in records], [3, 3])
        self.assertEqual(self.compare(bundle, records), (0, "2 texts, all equal\n"))
        records[1]["classes"][2] += 1
        status, words = self.compare(bundle, records)
        self.assertEqual(status, 1)
        self.assertIn("line 2, classes, index 2", words)


if __name__ == "__main__":
    unittest.main()
