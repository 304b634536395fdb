// Kernels on rows of the residual stream.

THREADS(ROW_THREADS, 1)
KERNEL(embed, const i8 *weights, int stride, const Scale *scales, const u8 *groups, const u32 *tokens, Scale factor, int *out, int width) {
    i64 row = block_x(), token = tokens[row];
    Scale scale = scale_product(scales[token], factor);
    int group_count = (width + 31) / 32;
    auto load = [&](u32 i) { return (int)weights[token * stride + i] * (groups ? groups[token * group_count + i / 32] : 1); };
    at_once<4>(width, load, [&](u32 i, int weight) { out[row * width + i] = rescale(weight, scale.mantissa, scale.exponent + 16); });
}

THREADS(ROW_THREADS, 1)
KERNEL(quantise, const int *x, int width, i8 *high, i8 *low, int *exponents, int stride) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    i64 row = block_x();
    auto load = [&](u32 i) { return x[row * width + i]; };
    auto numbers = held<4>(width, load);
    u64 max = 0;
    each(numbers, width, load, [&](u32, int value) { max = MaxOf::of(max, magnitude(value)); });
    int shift = activation_shift(block_reduce<MaxOf>(shared, max));
    Quantise quantised(shift);
    each(numbers, width, load, [&](u32 i, int value) { write_activation(high, low, row * stride + i, quantised(value)); });
    if (thread_index() == 0) exponents[row] = shift - 16;
}

THREADS(FLAT_THREADS, 1)
KERNEL(add, int *x, const int *y, u64 count) {
    u64 i = (u64)block_x() * threads() + thread_index();
    if (i < count) x[i] = saturate32((i64)x[i] + y[i]);
}

THREADS(FLAT_THREADS, 1)
KERNEL(add_bias, int *x, const int *bias, int width) {
    u32 i = block_y() * threads() + thread_index();
    if (i >= (u32)width) return;
    i64 at = (i64)block_x() * width + i;
    x[at] = saturate32((i64)x[at] + bias[i]);
}

THREADS(FLAT_THREADS, 1)
KERNEL(soft_cap, int *x, u64 count, i64 cap, Scale inverse, const Tables *tables) {
    u64 i = (u64)block_x() * threads() + thread_index();
    if (i < count) x[i] = soft_capped(tables, SoftCap{cap, inverse}, x[i]);
}

THREADS(ROW_THREADS, 1)
KERNEL(select_rows, const int *x, int width, const u32 *rows, int *out) {
    i64 row = block_x(), from = rows[row];
    at_once<4>(width, [&](u32 i) { return x[from * width + i]; }, [&](u32 i, int value) { out[row * width + i] = value; });
}

// Reads and writes memory: what the device's bandwidth is measured with.
THREADS(FLAT_THREADS, 1)
KERNEL(copy, const Int4 *from, Int4 *to, u64 count) {
    u64 i = (u64)block_x() * threads() + thread_index();
    if (i >= count) return;
    // In parts, so that it is one load and one store of 16 bytes: a structure is copied eight at a time.
    Int4 value{from[i].x, from[i].y, from[i].z, from[i].w};
    to[i] = value;
}

enum Activation { SILU = 0, GELU_TANH = 1, GELU_ERF = 2 };

DEVICE int gelu_tanh_share(const Tables *tables, int x_q16) {
    const int range = 8 << 16;
    i64 x = x_q16 < -range ? -range : x_q16 > range ? range : x_q16;
    i64 slope = 1713444047ll + round_shift(76616651ll * round_shift(x * x, 16), 16);
    return sigmoid(tables, (int)round_shift(x * slope, 30));
}

DEVICE i64 activated(const Tables *tables, int activation, int x) {
    int share = activation == SILU        ? sigmoid(tables, x)
                : activation == GELU_TANH ? gelu_tanh_share(tables, x)
                                          : normal_cdf(tables, x);
    return round_shift((i64)x * share, 30);
}

// The function between the two halves of an MLP, times `up` if there is one, quantised.
THREADS(ROW_THREADS, 1)
KERNEL(gate, int activation, const int *gate, const int *up, int width, i8 *high, i8 *low, int *exponents, int stride, const Tables *tables) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    i64 row = block_x();
    auto pair = [&](u32 i) { return Int2{gate[row * width + i], up ? up[row * width + i] : 1}; };
    auto value = [&](Int2 pair) { return activated(tables, activation, pair.x) * pair.y; };
    auto load = [&](u32 i) { return value(pair(i)); };
    auto pairs = held<8>(width, pair);
    Held<i64, 8> numbers;
    UNROLL
    for (int j = 0; j < 8; j++) numbers.of[j] = value(pairs.of[j]);
    u64 max = 0;
    each(numbers, width, load, [&](u32, i64 number) { max = MaxOf::of(max, magnitude(number)); });
    int shift = activation_shift(block_reduce<MaxOf>(shared, max));
    Quantise quantised(shift);
    each(numbers, width, load, [&](u32 i, i64 number) { write_activation(high, low, row * stride + i, quantised(number)); });
    if (thread_index() == 0) exponents[row] = shift - (up ? 32 : 16);
}

// Rows that wait to be quantised: their numbers, `2^base` each, and the largest magnitude of each of `parts` parts of a row.
struct Raw {
    const i64 *values;
    const u64 *maxima;
    int parts, base;
};

// Quantises a row; `write` takes each number. Returns the row's exponent.
template <class Write> DEVICE int quantise_raw(Reduction &shared, Raw raw, i64 row, int width, Write write) {
    auto load = [&](u32 i) { return raw.values[row * width + i]; };
    // They come while the maximum is found.
    auto numbers = held<4>(width, load);
    u64 max = 0;
    at_once<2>(raw.parts, [&](u32 i) { return raw.maxima[row * raw.parts + i]; }, [&](u32, u64 part) { max = MaxOf::of(max, part); });
    int shift = activation_shift(block_reduce<MaxOf>(shared, max));
    Quantise quantised(shift);
    each(numbers, width, load, [&](u32 i, i64 value) { write(i, quantised(value)); });
    return shift + raw.base;
}

THREADS(ROW_THREADS, 1)
KERNEL(finish, Raw raw, int width, i8 *high, i8 *low, int *exponents, int stride) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    i64 row = block_x();
    int exponent = quantise_raw(shared, raw, row, width, [&](u32 i, int value) { write_activation(high, low, row * stride + i, value); });
    if (thread_index() == 0) exponents[row] = exponent;
}

const u64 HALF_PI_Q62 = 7244019458077122842ull;

DEVICE u64 multiply_q62(u64 a, u64 b) { return multiply_high(a, b) << 2 | (a * b) >> 62; }

// Cosine and sine in Q30 of an angle in turns.
DEVICE Int2 cos_sin(u64 turns_q64) {
    const u64 one = 1ull << 62;
    u64 x = multiply_q62(turns_q64 & (one - 1), HALF_PI_Q62), square = multiply_q62(x, x);
    i64 cos = (i64)one, sin = (i64)x;
    u64 cos_term = one, sin_term = x;
    UNROLL
    for (u32 k = 1; k <= 12; k++) {
        cos_term = multiply_q62(cos_term, square) / ((2 * k - 1) * (2 * k));
        sin_term = multiply_q62(sin_term, square) / ((2 * k) * (2 * k + 1));
        cos += k % 2 ? -(i64)cos_term : (i64)cos_term;
        sin += k % 2 ? -(i64)sin_term : (i64)sin_term;
    }
    int c = (int)round_shift(cos, 32), s = (int)round_shift(sin, 32);
    switch (turns_q64 >> 62) {
    case 0: return Int2{c, s};
    case 1: return Int2{-s, c};
    case 2: return Int2{-c, -s};
    default: return Int2{s, -c};
    }
}

// The table `[positions, pairs]` of all rotations.
THREADS(FLAT_THREADS, 1)
KERNEL(rotations, const u64 *frequencies, u32 pairs, u64 count, Int2 *out) {
    u64 i = (u64)block_x() * threads() + thread_index();
    if (i < count) out[i] = cos_sin(frequencies[i % pairs] * (i / pairs));
}

DEVICE void rotate(int *low, int *high, i64 a, i64 b, Int2 rotation) {
    i64 cos = rotation.x, sin = rotation.y;
    *low = saturate32(round_shift(a * cos - b * sin, 30));
    *high = saturate32(round_shift(b * cos + a * sin, 30));
}

// Rotates the heads of a row: a block for each row.
THREADS(ROW_THREADS, 1)
KERNEL(rope, int *x, int width, int head_dim, const Int2 *rotations, const u32 *positions) {
    u32 pairs = head_dim / 2;
    i64 row = block_x();
    x += row * width;
    rotations += (i64)positions[row] * pairs;
    struct Pair { Int2 rotation; int low, high; };
    auto at = [&](u32 i) { return x + i / pairs * head_dim + i % pairs; };
    auto load = [&](u32 i) { return Pair{rotations[i % pairs], at(i)[0], at(i)[pairs]}; };
    at_once<4>(width / 2, load, [&](u32 i, Pair pair) { rotate(at(i), at(i) + pairs, pair.low, pair.high, pair.rotation); });
}
