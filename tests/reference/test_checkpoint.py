"""Self-checks of the import formulas (docs/numerics.md, section 11)."""

import math
import struct
import unittest
from fractions import Fraction

import checkpoint
import numerics as n
from streams import stream


class Checkpoint(unittest.TestCase):
    def test_weight_row(self):
        one, minus_half = 127 << 23, (1 << 31) | (126 << 23)
        row, (m, e) = checkpoint.weight_row([one, minus_half, 0])
        self.assertEqual(row, [127, -63, 0])  # -63.5 rounds up
        self.assertEqual((m, e), n.scale_from(2**64 // 127, -64))
        self.assertEqual(checkpoint.weight_row([0, 1 << 31]), ([0, 0], (2**22, -22)))
        self.assertEqual(checkpoint.weight_row([1])[0], [127])  # the smallest subnormal
        with self.assertRaises(ValueError):
            checkpoint.weight_row([255 << 23])

    def test_grouped_weight_row(self):
        single = lambda x: struct.unpack("<I", struct.pack("<f", x))[0]
        # The scale is 1 / 127 / 255 of the largest, so here it is one.
        row = [32385, 0.5, -127.4] + [0] * 29 + [127, 63.5, -0.5] + [0] * 29 + [127.5] + [0] * 31 + [-2.0]
        weights, multipliers, (m, e) = checkpoint.grouped_weight_row([single(x) for x in row])
        self.assertEqual(Fraction(m) * Fraction(2) ** e, 1)
        self.assertEqual(multipliers, [255, 1, 2, 1])
        self.assertEqual(weights[:3], [127, 0, 0])
        self.assertEqual(weights[32:35], [127, 64, 0])  # ties go up
        self.assertEqual((weights[64], weights[96]), (64, -2))
        self.assertEqual(checkpoint.grouped_weight_row([0] * 33), ([0] * 33, [1, 1], (2**22, -22)))

    def test_grouped_weights_are_within_half_a_step(self):
        numbers = stream(9)
        for length in (1, 31, 32, 33, 100):
            row = [next(numbers) % (110 << 23) + (20 << 23) + ((next(numbers) % 2) << 31) for _ in range(length)]
            weights, multipliers, (m, e) = checkpoint.grouped_weight_row(row)
            for i, (pattern, w) in enumerate(zip(row, weights)):
                significand, b = checkpoint.decode_single(pattern)
                step = multipliers[i // 32] * m * Fraction(2) ** e
                self.assertLessEqual(abs(significand * Fraction(2) ** b - w * step), step / 2)
                self.assertLessEqual(abs(w), 127)

    def test_gain(self):
        self.assertEqual(checkpoint.gain(127 << 23), 2**20)
        self.assertEqual(checkpoint.gain((1 << 31) | (106 << 23)), 0)  # -2^-21 is a tie: toward plus infinity
        self.assertEqual(checkpoint.gain(106 << 23), 1)
        with self.assertRaises(ValueError):
            checkpoint.gain(137 << 23)

    def test_halves(self):
        for pattern in range(2**16):
            exponent, fraction = (pattern >> 10) & 31, pattern & 1023
            if exponent == 31:
                continue
            exact = (fraction | 1024) << exponent >> 1 if exponent else fraction  # in units of 2^-24
            significand, b = checkpoint.decode_single(checkpoint.single_from_f16(pattern))
            self.assertEqual(abs(significand) << (b + 149), exact << 125)
            self.assertEqual(checkpoint.single_from_f16(pattern) >> 31, pattern >> 15)
        self.assertEqual(checkpoint.single_from_bf16(0x3F80), 127 << 23)

    def test_epsilon(self):
        self.assertEqual(checkpoint.epsilon_q32("1e-05"), 42950)
        self.assertEqual(checkpoint.epsilon_q32("1"), 2**32)
        self.assertEqual(checkpoint.epsilon_q32("1e-12"), 1)
        for k in (-20, 0, 20, 60):  # the double nearest to 1 + (tie +- something) * 2^-52, times 2^k
            for numerator, expected in ((1, 0), (3, 2)):
                for nudge, up in ((-1, numerator // 2), (0, expected), (1, numerator // 2 + 1)):
                    x = Fraction(2) ** k * (1 + Fraction(numerator * 2**100 + nudge, 2**153))
                    self.assertEqual(checkpoint.nearest_double(x), Fraction(2) ** k * (1 + Fraction(up, 2**52)))

    def test_frequencies(self):
        first, *_, last = checkpoint.rope_frequencies(10000, 8)
        self.assertEqual(first, n.TURN_Q62 << 2)
        self.assertLess(abs(last - (n.TURN_Q62 << 2) // 1000), 2**10)

    def test_gain_stored_less_one(self):
        self.assertEqual(checkpoint.gain(0, less_one=True), 2**20)
        self.assertEqual(checkpoint.gain((1 << 31) | (127 << 23), less_one=True), 0)
        self.assertEqual(checkpoint.gain((1 << 31) | (106 << 23), less_one=True), 2**20)  # rounded first

    def test_linear_bias(self):
        self.assertEqual(checkpoint.linear_bias(127 << 23), 2**16)
        self.assertEqual(checkpoint.linear_bias((1 << 31) | (110 << 23)), 0)  # -2^-17 is a tie: toward plus infinity
        self.assertEqual(checkpoint.linear_bias(141 << 23), 2**30)
        for pattern in (142 << 23, (1 << 31) | (142 << 23)):
            with self.assertRaises(ValueError):
                checkpoint.linear_bias(pattern)

    def test_sums_of_singles(self):
        def single(value):
            return struct.unpack("<I", struct.pack("<f", value))[0]

        numbers = stream(6)
        for a, b, _ in zip(numbers, numbers, range(2000)):
            a, b = ((v % 2**32) & ~(1 << 30) for v in (a, b))  # below 2, so that no sum overflows
            if a % 3 == 0:
                b = a + next(numbers) % 9 - 4 ^ 2**31  # about -a
            x, y = (struct.unpack("<f", struct.pack("<I", v % 2**32))[0] for v in (a, b))
            exact = x + y  # a double: rounding it again could only err on a tie that the sum itself is not
            if math.isfinite(exact) and Fraction(x) + Fraction(y) == Fraction(exact):
                self.assertEqual(checkpoint.add_singles(a, b % 2**32), single(exact) if exact else 0)
        one, half_ulp = 127 << 23, 103 << 23
        self.assertEqual(checkpoint.add_singles(one, half_ulp), one)  # ties to even
        self.assertEqual(checkpoint.add_singles(one + 1, half_ulp), one + 2)
        self.assertEqual(checkpoint.position_row([one, 0], [one, one]), checkpoint.weight_row([128 << 23, one]))

    def test_soft_cap(self):
        self.assertEqual([checkpoint.soft_cap(text) for text in ("50.0", "30.0", "0.1")], [50 << 16, 30 << 16, 6554])

    def test_embedding_factor(self):
        self.assertEqual(checkpoint.embedding_factor(1), (2**22, -22))
        self.assertEqual(checkpoint.embedding_factor(2304), (48 << 17, -17))
        for hidden in (2, 3, 64, 640, 3072, 131071):
            m, e = checkpoint.embedding_factor(hidden)
            self.assertTrue(2**22 <= m < 2**23)
            self.assertLessEqual(abs(m - math.sqrt(hidden) * 2.0**-e), 0.51)

    def test_scaled_linear(self):
        frequencies = checkpoint.rope_frequencies(10000, 8)
        self.assertEqual(checkpoint.scaled_linear(frequencies, "1.0"), frequencies)
        for f, scaled in zip(frequencies, checkpoint.scaled_linear(frequencies, "2.5")):
            self.assertLessEqual(abs(scaled * 5 - f * 2), 5)

    def test_scaled_llama3(self):
        frequencies = checkpoint.rope_frequencies(500000, 128)
        scaled = checkpoint.scaled_llama3(frequencies, "8.0", "1.0", "4.0", 8192)
        kinds = set()
        for f, s in zip(frequencies, scaled):
            wavelength = 2.0**64 / f
            if wavelength < 8192 / 4:
                kind, expected = "kept", f
            elif wavelength > 8192 / 1:
                kind, expected = "lowered", f / 8
            else:
                smooth = (8192 / wavelength - 1) / (4 - 1)
                kind, expected = "between", (1 - smooth) * f / 8 + smooth * f
            kinds.add(kind)
            self.assertLess(abs(s / expected - 1), 1e-8)
        self.assertEqual(kinds, {"kept", "lowered", "between"})


if __name__ == "__main__":
    unittest.main()
