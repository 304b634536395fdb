"""Self-checks: facts that docs/numerics.md states about its arithmetic and kernels, and the golden vectors.

    python3 -m unittest discover tests/reference
"""

import math
import os
import unittest
from math import isqrt

import golden
import kernels
import numerics as n
from streams import stream

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "kernels", "golden")
PRECISION = 256  # fractional bits of the constants computed below


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

    def test_product(self):
        self.assertEqual(n.product((2**22, -22), (2**23 - 1, 5)), (2**23 - 1, 5))
        self.assertEqual(n.product((3 << 21, -22), (3 << 21, -22)), (9 << 19, -21))  # 1.5 * 1.5


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
        self.assertEqual(n.INV_SQRT_TAU_Q62, isqrt((1 << (124 + PRECISION)) // (2 * pi)))
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

    def test_normal_table_is_that_of_the_error_function(self):
        self.assertEqual(len(n.NORMAL), 2049)
        self.assertEqual(list(n.NORMAL), sorted(n.NORMAL))
        for i in range(2049):
            self.assertEqual(n.NORMAL[i] + n.NORMAL[2048 - i], 2**30)
            exact = (1 + math.erf((i - 1024) / 128 / math.sqrt(2))) / 2
            self.assertLessEqual(abs(n.NORMAL[i] - exact * 2**30), 1)

    def test_normal_cdf(self):
        self.assertEqual(n.normal_cdf(0), 2**29)
        self.assertEqual([n.normal_cdf(x) for x in (-(2**19) - 1, -(2**31) + 1)], [0, 0])
        self.assertEqual([n.normal_cdf(x) for x in (2**19, 2**31 - 1)], [2**30, 2**30])
        for x in range(-(2**19), 2**19, 997):
            exact = (1 + math.erf(x / 2**16 / math.sqrt(2))) / 2
            self.assertLess(abs(n.normal_cdf(x) / 2**30 - exact), 2e-6)

    def test_soft_cap_is_the_hyperbolic_tangent(self):
        for c in (2**16, 30 << 16, 2**30):
            for k in range(-40, 41):
                x = c * k // 8
                self.assertLess(abs(n.cap(x, c) - c * math.tanh(x / c)), 1 + c * 6e-6)
            self.assertEqual(n.cap(2**31 - 1, 2**16), 2**16)
            self.assertEqual(n.cap(0, c), 0)
        self.assertEqual(n.log2_cap(2**16), round(math.log2(math.e) * 2**16))

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


class Kernels(unittest.TestCase):
    def test_rmsnorm_of_equal_channels(self):
        a, e = kernels.rmsnorm([5 << 16] * 4, [2**20] * 4, 0)
        self.assertEqual((a, e), ([2**14] * 4, -14))
        self.assertEqual(kernels.rmsnorm([0] * 4, [2**20] * 4, 0), ([0] * 4, -40))

    def test_embedding_factor(self):
        scale = (3 << 21, -22)
        self.assertEqual(kernels.embed([2, -4], scale), [3 << 16, -6 << 16])
        self.assertEqual(kernels.embed([2, -4], scale, (2**22, -19)), [24 << 16, -48 << 16])

    def test_layernorm_is_rmsnorm_around_the_mean(self):
        x, gains, biases = [9 << 16, 5 << 16, -(2 << 16)], [2**20, 3 << 19, -(2**20)], [0, 2**20, 2**19]
        centred = [5 << 16, 1 << 16, -(6 << 16)]
        self.assertEqual(kernels.norm(x, gains, [0] * 3, 7), kernels.norm(centred, gains, None, 7))
        shifted = [v + b * 2**20 for v, b in zip(kernels.norm(centred, gains, None, 7), biases)]
        self.assertEqual(kernels.layernorm(x, gains, biases, 7), n.quantise(shifted, 40))
        self.assertEqual(kernels.normalise(x, gains, biases, 7), [n.round_shift(v, 24) for v in shifted])

    def test_normalise_has_length_one_per_channel(self):
        self.assertEqual(kernels.normalise([5 << 16, -(5 << 16)], [2**20, 2**21], None, 0), [2**16, -(2**17)])
        self.assertEqual(kernels.normalise([5, 5], [2**20] * 2, [2**19, -(2**20)], 1), [2**15, -(2**16)])

    def test_rope_at_position_zero(self):
        self.assertEqual(kernels.rope([1, -2, 3, -4], 0, [2**60, 2**50]), [1, -2, 3, -4])
        self.assertEqual(kernels.rope([1, -2, 3, -4], 4, [2**60, 2**60]), [-3, 4, 1, -2])

    def test_attention_to_one_position_is_its_value(self):
        head = [127 << 10, -(64 << 10), 0, 1 << 10]
        out = kernels.attend([1 << 16] * 4, [kernels.cache_key([3 << 16] * 4)], [kernels.cache_value(head)], 4)
        self.assertTrue(all(abs(a - b) <= 1 for a, b in zip(out, head)))

    def test_zero_value_head(self):
        self.assertEqual(kernels.cache_value([0, 0]), ([0, 0], 0))

    def test_a_window_is_attention_to_what_it_holds(self):
        numbers = stream(5)
        heads = [[next(numbers) % 2**18 - 2**17 for _ in range(4)] for _ in range(10)]
        keys, values = [list(map(kernels.cache_key, heads))], [list(map(kernels.cache_value, heads))]
        whole = kernels.attention(heads[:2], keys, values)
        for window, first in ((1, 9), (4, 6), (10, 0), (11, 0)):
            inside = kernels.attention(heads[:2], [keys[0][first:]], [values[0][first:]])
            self.assertEqual(kernels.attention(heads[:2], keys, values, window), inside)
            self.assertEqual(inside == whole, first == 0)

    def test_a_divisor_other_than_the_width_of_a_head(self):
        m, e = kernels.attention_scale(16)
        self.assertEqual(kernels.attention_scale(64), (m, e - 1))

    def test_shares(self):
        constant = math.sqrt(8 / math.pi) * 2**30
        self.assertEqual(round(constant), 1713444047)
        self.assertEqual(round(constant * 0.044715), 76616651)
        for x in range(-(2**19), 2**19, 997):
            v = x / 2**16
            tanh = math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))
            self.assertLess(abs(kernels.gelu_tanh(x) / 2**30 - (1 + tanh) / 2), 6e-6)
        self.assertEqual(kernels.gelu_tanh(2**31 - 1), 2**30)

    def test_a_gate_of_ones_is_no_gate(self):
        x = [3 << 16, -(1 << 14), 12345, -777]
        for activation in kernels.SHARES:
            self.assertEqual(kernels.gate(activation, x, [2**16] * 4), kernels.gate(activation, x))


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


if __name__ == "__main__":
    unittest.main()
