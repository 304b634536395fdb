"""Reads a bundle directory (docs/bundle.md): the manifest and every tensor of its graph.

It checks what the arithmetic relies on (formats, shapes, ranges), not the identity: the hashes, the rules of
canonical JSON and the tokenizer are no part of this reference.
"""

import os

from tensors import BundleError, Matrix, Norm, Safetensors, read_json
from variant import FIELDS, Variant

NUMBERS = {
    "activations": "int16-power-of-two",
    "keys": "int16-power-of-two",
    "values": "int8-per-head",
    "weights": "int8-per-channel",
}
GROUPED_NUMBERS = dict(NUMBERS, weights="int8-per-group-of-32")


class Layer:
    """One transformer block. What a model does not have is not there."""

    def __init__(self, bundle, tensors, index):
        prefix = "layers.%d." % index
        variant, llama = bundle.variant, bundle.architecture == "llama"
        hidden, intermediate = bundle.hidden, bundle.intermediate
        query_width = bundle.heads * bundle.head_dim
        key_width = bundle.kv_heads * bundle.head_dim
        biased = not llama
        qkv_biased = biased or variant.qkv_bias
        self.query = Matrix(tensors, prefix + "query", query_width, hidden, qkv_biased)
        self.key = Matrix(tensors, prefix + "key", key_width, hidden, qkv_biased)
        self.value = Matrix(tensors, prefix + "value", key_width, hidden, qkv_biased)
        self.output = Matrix(tensors, prefix + "output", hidden, query_width, biased)
        self.up = Matrix(tensors, prefix + "up", intermediate, hidden, biased)
        self.down = Matrix(tensors, prefix + "down", hidden, intermediate, biased)
        self.attention_norm = Norm(tensors, prefix + "attention_norm", hidden, biased)
        self.mlp_norm = Norm(tensors, prefix + "mlp_norm", hidden, biased)
        if llama:
            self.gate = Matrix(tensors, prefix + "gate", intermediate, hidden)
            self.window = variant.window_of(index)
        if variant.qk_norm:
            self.query_norm = Norm(tensors, prefix + "query_norm", bundle.head_dim)
            self.key_norm = Norm(tensors, prefix + "key_norm", bundle.head_dim)
        if variant.post_norms:
            self.attention_post_norm = Norm(tensors, prefix + "attention_post_norm", hidden)
            self.mlp_post_norm = Norm(tensors, prefix + "mlp_post_norm", hidden)


class Bundle:
    """A model: the shape from the manifest and every tensor of the graph."""

    def __init__(self, directory):
        with open(os.path.join(directory, "manifest.json"), "rb") as file:
            self.manifest = manifest = read_json(file.read())
        self.architecture = manifest["architecture"]
        formats = manifest["formats"]
        known = manifest["format_version"] == 1 and formats in (NUMBERS, GROUPED_NUMBERS)
        if not known or self.architecture not in FIELDS:
            raise BundleError("another format than the one of the text")
        self.vocabulary = manifest["vocabulary"]
        self.context = manifest["context"]
        self.hidden = manifest["hidden"]
        self.intermediate = manifest["intermediate"]
        self.heads = manifest["heads"]
        self.kv_heads = manifest["kv_heads"]
        self.head_dim = manifest["head_dim"]
        self.epsilon = manifest["norm_epsilon_q32"]
        self.variant = Variant(self.architecture, manifest.get("variant", {}), self.head_dim)

        tensors = Safetensors(os.path.join(directory, "weights.safetensors"), formats == GROUPED_NUMBERS)
        self.embedding = Matrix(tensors, "embedding", self.vocabulary, self.hidden)
        self.layers = [Layer(self, tensors, index) for index in range(manifest["layers"])]
        if self.architecture == "llama":
            self._read_frequencies(tensors)
        else:
            self.positions = Matrix(tensors, "positions", self.context, self.hidden)
        if self.architecture == "bert":
            self._read_encoder(tensors)
        else:
            self._read_head(tensors, manifest["tied_embeddings"])
        if tensors.unread:
            raise BundleError("unknown tensors: %s" % ", ".join(sorted(tensors.unread)))

    def _read_frequencies(self, tensors):
        shape = [self.head_dim // 2]
        self.frequencies = self.local_frequencies = tensors.integers("rope.frequencies", "U64", shape)
        if self.variant.local_frequencies:
            self.local_frequencies = tensors.integers("rope.local_frequencies", "U64", shape)

    def _read_head(self, tensors, tied):
        self.final_norm = Norm(tensors, "final_norm", self.hidden, self.architecture == "gpt2")
        self.head = self.embedding if tied else Matrix(tensors, "head", self.vocabulary, self.hidden)

    def _read_encoder(self, tensors):
        self.embedding_norm = Norm(tensors, "embedding_norm", self.hidden, True)
        if self.variant.classes:
            self.pooler = Matrix(tensors, "pooler", self.hidden, self.hidden, True)
            self.classifier = Matrix(tensors, "classifier", len(self.variant.classes), self.hidden, True)
