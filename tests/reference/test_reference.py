"""Self-checks: facts that docs/numerics.md states, the golden vectors, and a small random bundle.

    python3 -m unittest discover tests/reference
"""

import contextlib
import io
import json
import os
import struct
import tempfile
import unittest
from fractions import Fraction
from math import isqrt

import golden
import kernels
import logits
import numerics as n
from bundle import NUMBERS, Bundle, BundleError

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "kernels", "golden")
PRECISION = 256  # fractional bits of the constants computed below


def stream(seed):
    """An endless stream of reproducible 64-bit numbers."""
    position = 0
    while True:
        yield n.random(seed, position)
        position += 1


def arctan_inverse(x):
    """arctan(1/x) with PRECISION fractional bits."""
    term = total = (1 << PRECISION) // x
    k, sign = 1, 1
    while term:
        term //= x * x
        k, sign = k + 2, -sign
        total += sign * (term // k)
    return total


class Rounding(unittest.TestCase):
    def test_ties_go_up(self):
        self.assertEqual([n.round_shift(x, 1) for x in (-3, -2, -1, 0, 1, 3)], [-1, -1, 0, 0, 1, 2])
        self.assertEqual([n.round_div(x, 2) for x in (-3, -2, -1, 0, 1, 3)], [-1, -1, 0, 0, 1, 2])
        self.assertEqual([n.round_div(x, 3) for x in (-5, -4, -2, -1, 1, 2)], [-2, -1, -1, 0, 0, 1])
        self.assertEqual(n.shift_by(-5, -3), -40)
        self.assertEqual(n.round_shift(-5, 0), -5)

    def test_rescale(self):
        self.assertEqual(n.rescale(3, 2**22, -23), 2)
        self.assertEqual(n.rescale(-3, 2**22, -23), -1)
        self.assertEqual(n.rescale(1, 2**22, 20), 2**31 - 1)
        self.assertEqual(n.rescale(-1, 2**22, 20), -(2**31 - 1))
        for acc in (2**39 - 1, -(2**39) + 1):
            self.assertEqual(n.rescale(acc, 2**23 - 1, -63), 0)

    def test_scales_are_nearest(self):
        values = [1, 2, 127, 2**23 - 1, 2**23, 2**24 - 1, 2**24, 2**60 - 1]
        values += [value >> (value % 60) for value, _ in zip(stream(1), range(500))]
        for v in filter(None, values):
            m, e = n.scale_from(v, 7)
            self.assertTrue(2**22 <= m < 2**23)
            up = max(0, 7 - e) + 1  # |v * 2^7 - m * 2^e| <= 2^(e-1)
            self.assertLessEqual(abs((v << (up + 7)) - (m << (up + e))), 1 << (up + e - 1))
            m, e = n.reciprocal(v)
            self.assertTrue(2**22 <= m < 2**23)
            self.assertLessEqual(2 * abs((1 << -e) - m * v), v)


class Elementary(unittest.TestCase):
    def test_constants(self):
        term, ln2, k = 1 << PRECISION, 0, 0
        while term:
            term, k = term >> 1, k + 1
            ln2 += term // k
        pi = 16 * arctan_inverse(5) - 4 * arctan_inverse(239)
        log2e = (1 << (2 * PRECISION)) // ln2
        turn = (1 << (2 * PRECISION)) // (2 * pi)
        self.assertEqual(n.LN2_Q62, ln2 >> (PRECISION - 62))
        self.assertEqual(n.LOG2E_Q62, log2e >> (PRECISION - 62))
        self.assertEqual(n.HALF_PI_Q62, pi >> (PRECISION - 61))
        self.assertEqual(n.TURN_Q62, turn >> (PRECISION - 62))
        self.assertEqual(n.LN2_Q32, n.round_shift(ln2, PRECISION - 32))
        self.assertEqual(n.LOG2E_Q32, n.round_shift(log2e, PRECISION - 32))

    def test_exp2_table_is_correctly_rounded(self):
        self.assertEqual(len(n.EXP2), 257)
        for i, entry in enumerate(n.EXP2):  # entry - 1/2 < 2^(30 - i/256) < entry + 1/2
            exact = 2 ** (31 * 256 - i)
            self.assertLess((2 * entry - 1) ** 256, exact)
            self.assertGreater((2 * entry + 1) ** 256, exact)

    def test_exp2_neg(self):
        for k in range(32):
            self.assertEqual(n.exp2_neg(k << 16), n.round_shift(2**30, k))
        self.assertEqual(n.exp2_neg(32 << 16), 0)
        values = [n.exp2_neg(delta) for delta in range(0, 3 << 16, 7)]
        self.assertEqual(values, sorted(values, reverse=True))

    def test_sigmoid_is_symmetric(self):
        self.assertEqual(len(n.SIGMOID), 2049)
        self.assertEqual(list(n.SIGMOID), sorted(n.SIGMOID))
        for i in range(2049):
            self.assertEqual(n.SIGMOID[i] + n.SIGMOID[2048 - i], 2**30)
        self.assertEqual(n.sigmoid(0), 2**29)
        self.assertEqual([n.sigmoid(x) for x in (-(2**20) - 1, -(2**31) + 1)], [0, 0])
        self.assertEqual([n.sigmoid(x) for x in (2**20, 2**31 - 1)], [2**30, 2**30])

    def test_cos_sin(self):
        one = 2**30
        corners = [n.cos_sin(q << 62) for q in range(4)]
        self.assertEqual(corners, [(one, 0), (0, one), (-one, 0), (0, -one)])
        self.assertEqual(n.cos_sin(2**64 + 5), n.cos_sin(5))
        half = isqrt(2**59)
        self.assertTrue(all(abs(v - half) <= 1 for v in n.cos_sin(2**61)))
        for turns, _ in zip(stream(2), range(200)):
            c, s = n.cos_sin(turns)
            self.assertLess(abs(c * c + s * s - 2**60), 2**31)

    def test_log2(self):
        for k in range(64):
            self.assertEqual(n.log2_q32(2**k), k << 32)
        for x in (3, 5, 6, 7, 1000, 2**30 + 1, 2**50 - 1):
            self.assertEqual(n.log2_q32(x) >> 24, n.bits(x**256) - 1)


class Quantise(unittest.TestCase):
    def test_range(self):
        numbers = stream(3)
        for size in range(63):
            for _ in range(20):
                x = next(numbers) % 2 ** (size + 1)
                for v in (x, -x):
                    (a,), e = n.quantise([v], 0)
                    self.assertLessEqual(abs(a), 32512)
                    self.assertTrue(v == 0 or abs(a) >= 32512 // 2)
                    high = (a + 128) >> 8
                    self.assertTrue(abs(high) <= 127 and -128 <= a - 256 * high <= 127)

    def test_zero_row(self):
        self.assertEqual(n.quantise([0, 0], 16), ([0, 0], -16))

    def test_shift_grows_rather_than_exceed_the_limit(self):
        self.assertEqual(n.quantise([32512], 0), ([32512], 0))
        self.assertEqual(n.quantise([32513, -32513], 0), ([16257, -16256], 1))


class Choosing(unittest.TestCase):
    LOGITS = [5 << 16, 7 << 16, 7 << 16, -(3 << 16), 6 << 16]

    def test_philox(self):
        self.assertEqual(n.random(0, 0), 0xE169C58D6627E8D5)
        self.assertNotEqual(n.random(0, 1), n.random(1, 0))

    def test_greedy(self):
        self.assertEqual(n.greedy(self.LOGITS), 1)
        self.assertEqual(n.sample(self.LOGITS, 0, 0, 65536, 0, 9), 1)
        for position in range(50):
            self.assertEqual(n.sample(self.LOGITS, position, 2**16, 65536, 1, 9), 1)
            self.assertEqual(n.sample(self.LOGITS, position, 2**16, 1, 0, 9), 1)

    def test_frequencies(self):
        counts = [0] * 5
        for position in range(2000):
            counts[n.sample(self.LOGITS, position, 2**16, 65536, 0, 9)] += 1
        total = sum(n.exp2_neg(n.round_shift((7 << 16) * n.LOG2E_Q32 - v * n.LOG2E_Q32, 32)) for v in self.LOGITS)
        for v, count in zip(self.LOGITS, counts):
            w = n.exp2_neg(n.round_shift((7 << 16) * n.LOG2E_Q32 - v * n.LOG2E_Q32, 32))
            self.assertLess(abs(count - 2000 * w // total), 100)

    def test_nucleus(self):
        chosen = {n.sample(self.LOGITS, p, 2**16, 2**15, 0, 9) for p in range(200)}
        self.assertEqual(chosen, {1, 2})

    def test_log_probability(self):
        for k in range(8):
            uniform = [12345] * 2**k
            self.assertEqual(n.log_probability(uniform, 0), -n.round_shift((k << 32) * n.LN2_Q32, 48))
        self.assertEqual(n.log_probability([0, -(2**31) + 1], 0), 0)


class Import(unittest.TestCase):
    def test_weight_row(self):
        one, minus_half = 127 << 23, (1 << 31) | (126 << 23)
        row, (m, e) = n.weight_row([one, minus_half, 0])
        self.assertEqual(row, [127, -63, 0])  # -63.5 rounds up
        self.assertEqual((m, e), n.scale_from(2**64 // 127, -64))
        self.assertEqual(n.weight_row([0, 1 << 31]), ([0, 0], (2**22, -22)))
        self.assertEqual(n.weight_row([1])[0], [127])  # the smallest subnormal
        with self.assertRaises(ValueError):
            n.weight_row([255 << 23])

    def test_gain(self):
        self.assertEqual(n.gain(127 << 23), 2**20)
        self.assertEqual(n.gain((1 << 31) | (106 << 23)), 0)  # -2^-21 is a tie: toward plus infinity
        self.assertEqual(n.gain(106 << 23), 1)
        with self.assertRaises(ValueError):
            n.gain(137 << 23)

    def test_halves(self):
        for pattern in range(2**16):
            exponent, fraction = (pattern >> 10) & 31, pattern & 1023
            if exponent == 31:
                continue
            exact = (fraction | 1024) << exponent >> 1 if exponent else fraction  # in units of 2^-24
            significand, b = n.decode_single(n.single_from_f16(pattern))
            self.assertEqual(abs(significand) << (b + 149), exact << 125)
            self.assertEqual(n.single_from_f16(pattern) >> 31, pattern >> 15)
        self.assertEqual(n.single_from_bf16(0x3F80), 127 << 23)

    def test_epsilon(self):
        self.assertEqual(n.epsilon_q32("1e-05"), 42950)
        self.assertEqual(n.epsilon_q32("1"), 2**32)
        for k in (-20, 0, 20, 60):  # the double nearest to 1 + (tie +- something) * 2^-52, times 2^k
            for numerator, expected in ((1, 0), (3, 2)):
                for nudge, up in ((-1, numerator // 2), (0, expected), (1, numerator // 2 + 1)):
                    x = Fraction(2) ** k * (1 + Fraction(numerator * 2**100 + nudge, 2**153))
                    self.assertEqual(n.nearest_double(x), Fraction(2) ** k * (1 + Fraction(up, 2**52)))

    def test_frequencies(self):
        first, *_, last = n.rope_frequencies(10000, 8)
        self.assertEqual(first, n.TURN_Q62 << 2)
        self.assertLess(abs(last - (n.TURN_Q62 << 2) // 1000), 2**10)


class Kernels(unittest.TestCase):
    def test_rmsnorm_of_equal_channels(self):
        a, e = kernels.rmsnorm([5 << 16] * 4, [2**20] * 4, 0)
        self.assertEqual((a, e), ([2**14] * 4, -14))
        self.assertEqual(kernels.rmsnorm([0] * 4, [2**20] * 4, 0), ([0] * 4, -40))

    def test_rope_at_position_zero(self):
        self.assertEqual(kernels.rope([1, -2, 3, -4], 0, [2**60, 2**50]), [1, -2, 3, -4])
        self.assertEqual(kernels.rope([1, -2, 3, -4], 4, [2**60, 2**60]), [-3, 4, 1, -2])

    def test_attention_to_one_position_is_its_value(self):
        head = [127 << 10, -(64 << 10), 0, 1 << 10]
        out = kernels.attend([1 << 16] * 4, [kernels.cache_key([3 << 16] * 4)], [kernels.cache_value(head)])
        self.assertTrue(all(abs(a - b) <= 1 for a, b in zip(out, head)))

    def test_zero_value_head(self):
        self.assertEqual(kernels.cache_value([0, 0]), ([0, 0], 0))


class Golden(unittest.TestCase):
    def test_parser(self):
        text = "# comment\n\ncase one\na 1 -2\nout 3\n\n# more\ncase two\na\n"
        self.assertEqual(golden.parse(text), [("one", {"a": [1, -2], "out": [3]}), ("two", {"a": []})])

    def test_a_difference_is_found(self):
        inputs = {"bits": [16], "x": [5], "out_exponent": [-28], "out": [20481]}
        with self.assertRaisesRegex(golden.Difference, r"here, out\[0\]: expected 20481, got 20480"):
            golden.check_case("here", inputs, golden.quantise)

    @unittest.skipUnless(os.path.isdir(GOLDEN), "no golden vectors")
    def test_all(self):
        self.assertGreater(golden.check_directory(GOLDEN), 0)


def write_bundle(directory, tied=False):
    """A bundle of random weights, small enough to run in a moment."""
    numbers = stream(4)
    hidden, intermediate, vocabulary, heads, kv_heads, head_dim, layers = 12, 20, 30, 4, 2, 4, 2
    tensors = {}

    def matrix(name, outputs, inputs):
        weights = bytes(max(1, next(numbers) % 256) for _ in range(outputs * inputs))
        scales = []
        for _ in range(outputs):
            scales += [2**22 + next(numbers) % 2**22, -30]
        tensors[name + ".weight"] = ("U8", [outputs, inputs], weights)
        tensors[name + ".scale"] = ("I32", [outputs, 2], struct.pack("<%di" % len(scales), *scales))

    def gains(name):
        values = [2**20 + next(numbers) % 2**18 for _ in range(hidden)]
        tensors[name + ".gain"] = ("I32", [hidden], struct.pack("<%di" % hidden, *values))

    matrix("embedding", vocabulary, hidden)
    for i in range(layers):
        prefix = "layers.%d." % i
        gains(prefix + "attention_norm")
        gains(prefix + "mlp_norm")
        matrix(prefix + "query", heads * head_dim, hidden)
        matrix(prefix + "key", kv_heads * head_dim, hidden)
        matrix(prefix + "value", kv_heads * head_dim, hidden)
        matrix(prefix + "output", hidden, heads * head_dim)
        matrix(prefix + "gate", intermediate, hidden)
        matrix(prefix + "up", intermediate, hidden)
        matrix(prefix + "down", hidden, intermediate)
    gains("final_norm")
    if not tied:
        matrix("head", vocabulary, hidden)
    frequencies = n.rope_frequencies(10000, head_dim)
    tensors["rope.frequencies"] = ("U64", [len(frequencies)], struct.pack("<%dQ" % len(frequencies), *frequencies))

    header, data = {}, b""
    for name in sorted(tensors):
        dtype, shape, content = tensors[name]
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    encoded = json.dumps(header).encode()
    with open(os.path.join(directory, "weights.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded + data)
    manifest = {
        "format_version": 1,
        "architecture": "llama",
        "formats": NUMBERS,
        "vocabulary": vocabulary,
        "context": 16,
        "hidden": hidden,
        "intermediate": intermediate,
        "layers": layers,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "norm_epsilon_q32": 42950,
        "tied_embeddings": tied,
    }
    with open(os.path.join(directory, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file)


class SmallBundle(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = temporary.name
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
        path = os.path.join(self.directory, "logits.jsonl")
        records = list(logits.records(self.bundle, [1, 2, 3]))
        for change, status in ((0, 0), (1, 1)):
            records[2]["logits"][7] += change
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                self.assertEqual(logits.compare(self.bundle, path, None), status)
        self.assertIn("position 2, index 7", output.getvalue())

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

    def test_wrong_shape_is_refused(self):
        path = os.path.join(self.directory, "manifest.json")
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        manifest["hidden"] += 1
        with open(path, "w", encoding="utf-8") as file:
            json.dump(manifest, file)
        with self.assertRaises(BundleError):
            Bundle(self.directory)


if __name__ == "__main__":
    unittest.main()
