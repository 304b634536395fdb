// The arithmetic of docs/numerics.md: the same formulas as metis-kernels' `rounding`, `quantise`, `tables` and `softmax`.
#pragma once

typedef unsigned u32;
typedef long long i64;
typedef unsigned long long u64;
typedef signed char i8;
typedef unsigned char u8;

struct alignas(16) Int4 { int x, y, z, w; };
struct alignas(8) Int2 { int x, y; };

// A factor `mantissa * 2^exponent`.
struct alignas(8) Scale {
    u32 mantissa;
    int exponent;
};

// `exp2`: 257 entries; `sigmoid` and `normal`: 2,049 entries.
struct Tables {
    u32 exp2[257];
    int sigmoid[2049];
    int normal[2049];
};

DEVICE u64 magnitude(i64 x) { return x < 0 ? 0 - (u64)x : (u64)x; }
DEVICE u32 bit_length(u64 x) { return x == 0 ? 0 : 64 - leading_zeros(x); }

DEVICE i64 round_shift(i64 x, u32 shift) {
    if (shift == 0) return x;
    if (shift > 62) return 0;
    return (x + (1ll << (shift - 1))) >> shift;
}

DEVICE i64 shift_by(i64 x, int shift) { return shift >= 0 ? round_shift(x, shift) : (i64)((u64)x << -shift); }

// The quotient to nearest, ties toward plus infinity; `|n| < 2^61`, `0 < d < 2^61`.
DEVICE i64 round_div(i64 n, i64 d) {
    i64 dividend = 2 * n + d, quotient = dividend / (2 * d);
    return quotient - (dividend < quotient * 2 * d ? 1 : 0);
}

DEVICE int saturate32(i64 x) {
    const i64 limit = 0x7fffffff;
    return x > limit ? (int)limit : x < -limit ? -(int)limit : (int)x;
}

// `rescale` by an exponent below zero. Half a step is added to what one bit more is left of.
DEVICE int rescale_down(i64 sum, u32 mantissa, int exponent) {
    u32 down = ~(u32)exponent;
    return saturate32(((sum * (i64)mantissa >> (down < 63 ? down : 63)) + 1) >> 1);
}

// `|sum| <= 2^39`.
DEVICE int rescale(i64 sum, u32 mantissa, int exponent) {
    if (exponent < 0) return rescale_down(sum, mantissa, exponent);
    i64 product = sum * (i64)mantissa;
    // The largest number that the shift keeps within the limit.
    i64 most = exponent >= 31 ? 0 : 0x7fffffffll >> exponent;
    return product > most ? 0x7fffffff : product < -most ? -0x7fffffff : (int)((u64)product << (exponent & 31));
}

// The same for `|sum| <= 2^48`: a product of 71 bits, in two words.
DEVICE int rescale_wide(i64 sum, u32 mantissa, int exponent) {
    bool negative = sum < 0;
    u64 low_part = (magnitude(sum) & 0xffffffffu) * mantissa, high_part = (magnitude(sum) >> 32) * mantissa;
    u64 low = low_part + (high_part << 32);
    u64 high = (high_part >> 32) + (low < low_part ? 1 : 0);
    if (exponent >= 0) {
        u64 most = exponent >= 31 ? 0 : 0x7fffffffull >> exponent;
        if (high != 0 || low > most) return negative ? -0x7fffffff : 0x7fffffff;
        int value = (int)(low << (exponent & 31));
        return negative ? -value : value;
    }
    int shift = -exponent;
    if (shift > 71) return 0;
    // Ties toward plus infinity: half a step is added to a positive magnitude, less than half a step to a negative one.
    u64 half_low = shift > 64 ? 0 : 1ull << (shift - 1), half_high = shift > 64 ? 1ull << (shift - 65) : 0;
    if (negative) {
        half_high -= half_low == 0 ? 1 : 0;
        half_low -= 1;
    }
    u64 sum_low = low + half_low;
    u64 sum_high = high + half_high + (sum_low < low ? 1 : 0);
    u64 value = shift >= 64 ? sum_high >> (shift - 64) : (sum_low >> shift) | (sum_high << 1 << (63 - shift));
    if (shift < 64 && (sum_high >> shift) != 0) value = ~0ull;
    if (value > 0x7fffffff) value = 0x7fffffff;
    return negative ? -(int)value : (int)value;
}

// A mantissa in `2^22 ..= 2^23` brought below `2^23`.
DEVICE Scale normalised(u64 mantissa, int exponent) {
    if (mantissa >> 23) return Scale{(u32)(mantissa >> 1), exponent + 1};
    return Scale{(u32)mantissa, exponent};
}

// `1 / d` for `0 < d < 2^40`.
DEVICE Scale reciprocal(u64 d) {
    u32 bits = bit_length(d);
    u64 top = 1ull << (bits + 22);
    return normalised((2 * top + d) / (2 * d), -(int)(bits + 22));
}

// The factor that ends an attention head: `1 / (127 * sum)`.
DEVICE Scale normaliser(u64 sum) {
    Scale r = reciprocal((u64)round_shift((i64)(127 * sum), 14));
    return Scale{r.mantissa, r.exponent - 14};
}

DEVICE Scale scale_product(Scale a, Scale b) {
    u64 exact = (u64)a.mantissa * b.mantissa;
    u32 down = bit_length(exact) - 23;
    return normalised((exact + (1ull << (down - 1))) >> down, a.exponent + b.exponent + (int)down);
}

DEVICE int activation_shift(u64 max) {
    if (max == 0) return 0;
    int shift = (int)bit_length(max) - 15;
    return shift_by((i64)max, shift) > 32512 ? shift + 1 : shift;
}

// `shift_by` of numbers whose results fit 16 bits, without a branch: half a step is one after a shift that leaves a bit more.
struct Quantise {
    u32 right, left;

    DEVICE Quantise(int shift) : right(shift > 0 ? shift - 1 : 0), left(shift > 0 ? 0 : 1 - shift) {}
    DEVICE int operator()(i64 x) const { return (((int)(x >> right) << left) + 1) >> 1; }
    DEVICE int operator()(int x) const { return (((x >> right) << left) + 1) >> 1; }
};

DEVICE u32 exp2_neg(const Tables *tables, u64 delta_q16) {
    if (delta_q16 >= 32ull << 16) return 0;
    u32 delta = (u32)delta_q16, octaves = delta >> 16, index = delta >> 8 & 0xff, rest = delta & 0xff;
    u32 high = tables->exp2[index], low = tables->exp2[index + 1];
    u32 value = high - (((high - low) * rest + 128) >> 8);
    return (value + ((1u << octaves) >> 1)) >> octaves;
}

// A table of a step over `-range .. range` with 2,048 steps, whose entries go from 0 to one.
template <int range, int step_bits> DEVICE int smooth_step(const int *table, int x_q16) {
    const i64 span = (2ll * range) << 16;
    i64 offset = (i64)x_q16 + span / 2;
    if (offset < 0) return 0;
    if (offset >= span) return 1 << 30;
    u32 inside = (u32)offset, index = inside >> step_bits, rest = inside & ((1u << step_bits) - 1);
    int low = table[index], high = table[index + 1];
    return low + (int)(((u32)(high - low) * rest + (1u << (step_bits - 1))) >> step_bits);
}

DEVICE int sigmoid(const Tables *tables, int x_q16) { return smooth_step<16, 10>(tables->sigmoid, x_q16); }
DEVICE int normal_cdf(const Tables *tables, int x_q16) { return smooth_step<8, 9>(tables->normal, x_q16); }

// A bound `cap * tanh(x / cap)`; none where the cap is zero.
struct SoftCap {
    i64 cap;
    Scale inverse;
};

DEVICE int soft_capped(const Tables *tables, SoftCap soft, int x) {
    int twice = rescale(x, soft.inverse.mantissa, soft.inverse.exponent + 17);
    i64 tanh = 2 * (i64)sigmoid(tables, twice) - (1ll << 30);
    return (int)round_shift(soft.cap * tanh, 30);
}

// What linear layers read: the high and low bytes of int16 rows in two planes of `stride` bytes a row, and an exponent for each row.
struct Activations {
    i8 *high, *low;
    int *exponents;
    int stride;
};

DEVICE void write_activation(i8 *high, i8 *low, i64 at, int value) {
    i8 low_byte = (i8)value;
    low[at] = low_byte;
    high[at] = (i8)((value - low_byte) >> 8);
}

// The most threads of a block that does a row, and of one in which a thread does one number.
const int ROW_THREADS = 1024, FLAT_THREADS = 256;

// A thread's first numbers of a row: all loads are on their way before the first number is used.
template <class T, int kept> struct Held { T of[kept]; };

template <int kept, class Load> DEVICE auto held(u32 width, Load load) {
    Held<decltype(load(0u)), kept> numbers;
    UNROLL
    for (int j = 0; j < kept; j++) {
        u32 i = thread_index() + j * threads();
        numbers.of[j] = i < width ? load(i) : decltype(load(0u)){};
    }
    return numbers;
}

// Uses a thread's numbers of a row: those that are held, and those past them, which are read.
template <class T, int kept, class Load, class Use> DEVICE void each(const Held<T, kept> &numbers, u32 width, Load load, Use use) {
    UNROLL
    for (int j = 0; j < kept; j++) {
        u32 i = thread_index() + j * threads();
        if (i < width) use(i, numbers.of[j]);
    }
    for (u32 i = thread_index() + kept * threads(); i < width; i += threads()) use(i, load(i));
}

// Uses a thread's numbers of a row, so many at a time.
template <int most, class Load, class Use> DEVICE void at_once(u32 width, Load load, Use use) {
    for (u32 first = thread_index(); first < width; first += most * threads()) {
        decltype(load(0u)) got[most];
        UNROLL
        for (int j = 0; j < most; j++) {
            u32 i = first + j * threads();
            got[j] = i < width ? load(i) : decltype(load(0u)){};
        }
        UNROLL
        for (int j = 0; j < most; j++) {
            u32 i = first + j * threads();
            if (i < width) use(i, got[j]);
        }
    }
}

// Over the lanes of a warp, by sums and maxima of 32 bits: in three parts whose sums fit, and first of the high bits.
struct SumOf {
    DEVICE static u64 of(u64 a, u64 b) { return a + b; }
    DEVICE static u64 over_warp(u64 value) {
        const u32 part = (1 << 22) - 1;
        u32 low = warp_sum((u32)value & part), middle = warp_sum((u32)(value >> 22) & part), high = warp_sum((u32)(value >> 44));
        return low + ((u64)middle << 22) + ((u64)high << 44);
    }
};
struct MaxOf {
    DEVICE static u64 of(u64 a, u64 b) { return a > b ? a : b; }
    DEVICE static u64 over_warp(u64 value) {
        u32 high = warp_max((u32)(value >> 32));
        u32 low = warp_max(value >> 32 == high ? (u32)value : 0);
        return (u64)high << 32 | low;
    }
};

// Weights that the launches after this one read: up to four pieces, of whole lines of 128 bytes. Memory would have nothing to do from the end
// of a launch to where the next one begins to read.
struct Ahead {
    const i8 *from[4];
    i64 lines[4];

    // A block's share of them.
    DEVICE void fetch(u32 block, u32 blocks) const {
        UNROLL
        for (int i = 0; i < 4; i++)
            for (i64 line = block * threads() + thread_index(); line < lines[i]; line += (i64)blocks * threads()) prefetch(from[i] + 128 * line);
    }
};

// Memory for reductions: one of two rows for each, in turns, so that a slow thread finds what it has not read yet.
struct Parts { u64 of[2][2][32]; };

struct Reduction {
    Parts &parts;
    u32 turn = 0;
};

// A sum or maximum of one number and that of another one over the block, for every thread. Whole warps; zero is neutral.
template <class First, class Second> DEVICE void block_reduce(Reduction &reduction, u64 &first, u64 &second) {
    u32 lane = thread_index() % 32, warp = thread_index() / 32;
    u64(&parts)[2][32] = reduction.parts.of[reduction.turn];
    reduction.turn ^= 1;
    first = First::over_warp(first);
    second = Second::over_warp(second);
    if (lane == 0) {
        parts[0][warp] = first;
        parts[1][warp] = second;
    }
    block_barrier();
    bool there = lane < threads() / 32;
    first = First::over_warp(there ? parts[0][lane] : 0);
    second = Second::over_warp(there ? parts[1][lane] : 0);
}

template <class Op> DEVICE u64 block_reduce(Reduction &reduction, u64 value) {
    u32 lane = thread_index() % 32, warp = thread_index() / 32;
    u64(&parts)[32] = reduction.parts.of[reduction.turn][0];
    reduction.turn ^= 1;
    value = Op::over_warp(value);
    if (lane == 0) parts[warp] = value;
    block_barrier();
    return Op::over_warp(lane < threads() / 32 ? parts[lane] : 0);
}
