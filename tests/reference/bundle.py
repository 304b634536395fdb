"""Reads a bundle directory (docs/bundle.md): manifest.json and weights.safetensors, both by hand.

It checks what the arithmetic relies on (formats, shapes, ranges), not the identity: the hashes, the rules of
canonical JSON and the tokenizer are no part of this reference.
"""

import json
import os
import struct

FLIP = bytes(b ^ 0x80 for b in range(256))  # a stored weight byte is w ^ 0x80
FORMATS = {"I32": "<%di", "U64": "<%dQ"}
SIZES = {"U8": 1, "I32": 4, "U64": 8}
NUMBERS = {
    "activations": "int16-power-of-two",
    "keys": "int16-power-of-two",
    "values": "int8-per-head",
    "weights": "int8-per-channel",
}


class BundleError(Exception):
    """The bundle is not one that the text describes."""


def _no_floats(text):
    raise BundleError("the number %s in JSON is not an integer" % text)


def read_json(data):
    """JSON whose numbers are all integers."""
    return json.loads(data.decode("utf-8"), parse_float=_no_floats, parse_constant=_no_floats)


class Safetensors:
    """A safetensors file: u64 length of the header, JSON header, data."""

    def __init__(self, path):
        with open(path, "rb") as file:
            content = file.read()
        (length,) = struct.unpack_from("<Q", content)
        self.header = read_json(content[8 : 8 + length])
        self.data = memoryview(content)[8 + length :]
        self.unread = set(self.header)

    def bytes(self, name, dtype, shape):
        """The raw bytes of a tensor, once its type, shape and size are what was asked for."""
        if name not in self.header:
            raise BundleError("no tensor %s" % name)
        entry = self.header[name]
        if entry["dtype"] != dtype or entry["shape"] != shape:
            raise BundleError("%s is %s %s, expected %s %s" % (name, entry["dtype"], entry["shape"], dtype, shape))
        count = 1
        for size in shape:
            count *= size
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(self.data) or end - begin != count * SIZES[dtype]:
            raise BundleError("%s has wrong offsets" % name)
        self.unread.discard(name)
        return self.data[begin:end], count

    def integers(self, name, dtype, shape):
        """A tensor of I32 or U64 as one tuple."""
        data, count = self.bytes(name, dtype, shape)
        return struct.unpack(FORMATS[dtype] % count, data)

    def gains(self, name, channels):
        """The gains (Q20) of a norm."""
        values = self.integers(name + ".gain", "I32", [channels])
        if not all(abs(g) < 2**30 for g in values):
            raise BundleError("%s.gain is out of range" % name)
        return values


class Matrix:
    """Weight rows (one for each output channel or token) with one scale (mantissa, exponent) each."""

    def __init__(self, tensors, name, outputs, inputs):
        data, _ = tensors.bytes(name + ".weight", "U8", [outputs, inputs])
        signed = memoryview(bytes(data).translate(FLIP)).cast("b")
        self.rows = [signed[i * inputs : (i + 1) * inputs] for i in range(outputs)]
        flat = tensors.integers(name + ".scale", "I32", [outputs, 2])
        self.scales = list(zip(flat[0::2], flat[1::2]))
        if -128 in signed:
            raise BundleError("%s.weight holds -128" % name)
        if not all(2**22 <= m < 2**23 and -1024 <= e <= 1024 for m, e in self.scales):
            raise BundleError("%s.scale is out of range" % name)


class Layer:
    """One transformer block."""

    def __init__(self, bundle, tensors, index):
        prefix = "layers.%d." % index
        hidden, intermediate = bundle.hidden, bundle.intermediate
        query_width = bundle.heads * bundle.head_dim
        key_width = bundle.kv_heads * bundle.head_dim
        self.attention_norm = tensors.gains(prefix + "attention_norm", hidden)
        self.query = Matrix(tensors, prefix + "query", query_width, hidden)
        self.key = Matrix(tensors, prefix + "key", key_width, hidden)
        self.value = Matrix(tensors, prefix + "value", key_width, hidden)
        self.output = Matrix(tensors, prefix + "output", hidden, query_width)
        self.mlp_norm = tensors.gains(prefix + "mlp_norm", hidden)
        self.gate = Matrix(tensors, prefix + "gate", intermediate, hidden)
        self.up = Matrix(tensors, prefix + "up", intermediate, hidden)
        self.down = Matrix(tensors, prefix + "down", hidden, intermediate)


class Bundle:
    """A model: the shape from the manifest and every tensor of the graph."""

    def __init__(self, directory):
        with open(os.path.join(directory, "manifest.json"), "rb") as file:
            self.manifest = manifest = read_json(file.read())
        if (manifest["format_version"], manifest["architecture"], manifest["formats"]) != (1, "llama", NUMBERS):
            raise BundleError("another format than the one of the text")
        self.vocabulary = manifest["vocabulary"]
        self.context = manifest["context"]
        self.hidden = manifest["hidden"]
        self.intermediate = manifest["intermediate"]
        self.heads = manifest["heads"]
        self.kv_heads = manifest["kv_heads"]
        self.head_dim = manifest["head_dim"]
        self.epsilon = manifest["norm_epsilon_q32"]

        tensors = Safetensors(os.path.join(directory, "weights.safetensors"))
        self.embedding = Matrix(tensors, "embedding", self.vocabulary, self.hidden)
        self.layers = [Layer(self, tensors, index) for index in range(manifest["layers"])]
        self.final_norm = tensors.gains("final_norm", self.hidden)
        self.frequencies = tensors.integers("rope.frequencies", "U64", [self.head_dim // 2])
        if manifest["tied_embeddings"]:
            self.head = self.embedding
        else:
            self.head = Matrix(tensors, "head", self.vocabulary, self.hidden)
        if tensors.unread:
            raise BundleError("unknown tensors: %s" % ", ".join(sorted(tensors.unread)))
