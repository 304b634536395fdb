"""Reads weights.safetensors by hand: integers, norms and matrices (docs/bundle.md, section 6)."""

import json
import struct

FLIP = bytes(b ^ 0x80 for b in range(256))  # a stored weight byte is w ^ 0x80
FORMATS = {"I32": "<%di", "U64": "<%dQ"}
SIZES = {"U8": 1, "I32": 4, "U64": 8}


class BundleError(Exception):
    """The bundle is not one that the text describes."""


def _no_floats(text):
    raise BundleError("the number %s in JSON is not an integer" % text)


def read_json(data):
    """JSON whose numbers are all integers."""
    return json.loads(data.decode("utf-8"), parse_float=_no_floats, parse_constant=_no_floats)


class Safetensors:
    """A safetensors file: u64 length of the header, JSON header, data."""

    def __init__(self, path, has_groups=False):
        self.has_groups = has_groups  # whether every matrix has multipliers
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

    def bounded(self, name, count, limit):
        """A row of I32 with magnitudes below `limit`."""
        values = self.integers(name, "I32", [count])
        if not all(abs(v) < limit for v in values):
            raise BundleError("%s is out of range" % name)
        return values


class Norm:
    """Gains (Q20) and, of a layernorm, biases (Q20)."""

    def __init__(self, tensors, name, channels, biased=False):
        self.gains = tensors.bounded(name + ".gain", channels, 2**30)
        self.biases = tensors.bounded(name + ".bias", channels, 2**30) if biased else None


class Matrix:
    """Weight rows (one for each output channel or token) with one scale (mantissa, exponent) each, perhaps a bias (Q16).

    If weights have groups, `multipliers` has a row of them for each weight row.
    """

    def __init__(self, tensors, name, outputs, inputs, biased=False):
        data, _ = tensors.bytes(name + ".weight", "U8", [outputs, inputs])
        signed = memoryview(bytes(data).translate(FLIP)).cast("b")
        self.rows = [signed[i * inputs : (i + 1) * inputs] for i in range(outputs)]
        flat = tensors.integers(name + ".scale", "I32", [outputs, 2])
        self.scales = list(zip(flat[0::2], flat[1::2]))
        if -128 in signed:
            raise BundleError("%s.weight holds -128" % name)
        if not all(2**22 <= m < 2**23 and -1024 <= e <= 1024 for m, e in self.scales):
            raise BundleError("%s.scale is out of range" % name)
        self.multipliers = None
        if tensors.has_groups:
            count = (inputs + 31) // 32
            groups, _ = tensors.bytes(name + ".multiplier", "U8", [outputs, count])
            self.multipliers = [groups[i * count : (i + 1) * count] for i in range(outputs)]
            if 0 in groups:
                raise BundleError("%s.multiplier holds 0" % name)
        self.bias = tensors.bounded(name + ".bias", outputs, 2**31) if biased else None
