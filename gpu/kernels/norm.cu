// RMSNorm and LayerNorm, with and without quantisation. A block for each run of `width` numbers.

struct Norm {
    const int *gains, *biases;
    i64 epsilon;
    int width;
};

struct Factor {
    i64 root, mean;
    u32 shift;
};

DEVICE int centred(int x, i64 mean) { return saturate32((i64)x - mean); }

// `1 / sqrt(mean(x^2) + epsilon)`, after the mean is taken away if there are biases.
DEVICE Factor norm_factor(Reduction &shared, const int *x, Norm norm) {
    u32 width = norm.width;
    i64 mean = 0;
    if (norm.biases) {
        i64 sum = 0;
        for (u32 i = thread_index(); i < width; i += threads()) sum += x[i];
        mean = round_div((i64)block_reduce<SumOf>(shared, (u64)sum), width);
    }
    u64 max = 0;
    for (u32 i = thread_index(); i < width; i += threads()) max = MaxOf::of(max, magnitude(centred(x[i], mean)));
    max = block_reduce<MaxOf>(shared, max);
    u32 bits = bit_length(max), pre = bits > 23 ? bits - 23 : 0;
    u64 squares = 0;
    for (u32 i = thread_index(); i < width; i += threads()) {
        i64 value = round_shift(centred(x[i], mean), pre);
        squares += (u64)(value * value);
    }
    squares = block_reduce<SumOf>(shared, squares);
    u64 sum = squares + (u64)round_shift((i64)width * norm.epsilon, 2 * pre);
    if (sum == 0) sum = 1;
    u32 half = (60 + bit_length(sum) - bit_length(width)) / 2;
    // The largest root with `root^2 * sum <= width * 2^(2 half)`, which is what a quotient and a square root give: below 2^31.
    u64 limit_high = 2 * half >= 64 ? (u64)width << (2 * half - 64) : (u64)width >> (64 - 2 * half);
    u64 limit_low = 2 * half >= 64 ? 0 : (u64)width << (2 * half);
    // Five of its bits at a time: each lane of a warp tries another value of them, and those that are not too large come first.
    u64 root = 0;
    for (int shift = 26; shift > -5; shift -= 5) {
        u64 tried = shift >= 0 ? root + ((u64)(thread_index() % 32) << shift) : root + thread_index() % 2;
        u64 square = tried * tried;
        u64 high = multiply_high(square, sum), low = square * sum;
        u32 fit = ballot(high < limit_high || (high == limit_high && low <= limit_low));
        if (shift < 0) root += fit >> 1 & 1;
        else root += (u64)(bit_length(fit) - 1) << shift;
    }
    return Factor{(i64)root, mean, pre + half - 20};
}

DEVICE i64 normed(const int *x, Norm norm, Factor factor, u32 i) {
    i64 value = round_shift(centred(x[i], factor.mean) * factor.root, factor.shift) * (i64)norm.gains[i];
    return norm.biases ? value + ((i64)norm.biases[i] << 20) : value;
}

// Normalises and quantises a row; `write` takes each number. Returns the row's exponent.
template <class Write> DEVICE int norm_row(Reduction &shared, const int *x, Norm norm, Write write) {
    Factor factor = norm_factor(shared, x, norm);
    u64 max = 0;
    for (u32 i = thread_index(); i < (u32)norm.width; i += threads()) max = MaxOf::of(max, magnitude(normed(x, norm, factor, i)));
    int shift = activation_shift(block_reduce<MaxOf>(shared, max));
    for (u32 i = thread_index(); i < (u32)norm.width; i += threads()) write(i, shift_by(normed(x, norm, factor, i), shift));
    return shift - 40;
}

THREADS(ROW_THREADS, 1)
KERNEL(norm, const int *x, const int *gains, const int *biases, i64 epsilon, int width, i8 *high, i8 *low, int *exponents, int stride) {
    SHARED(Reduction, shared);
    i64 row = block_x();
    int exponent = norm_row(shared, x + row * width, Norm{gains, biases, epsilon, width},
                            [&](u32 i, i64 value) { write_activation(high, low, row * stride + i, value); });
    if (thread_index() == 0) exponents[row] = exponent;
}

// Each number is read and replaced by one thread.
DEVICE int normalised_number(const int *x, Norm norm, Factor factor, u32 i) {
    return saturate32(round_shift(normed(x, norm, factor, i), 24));
}

THREADS(ROW_THREADS, 1)
KERNEL(normalise, int *x, const int *gains, const int *biases, i64 epsilon, int width) {
    SHARED(Reduction, shared);
    Norm norm{gains, biases, epsilon, width};
    x += (i64)block_x() * width;
    Factor factor = norm_factor(shared, x, norm);
    for (u32 i = thread_index(); i < (u32)width; i += threads()) x[i] = normalised_number(x, norm, factor, i);
}
