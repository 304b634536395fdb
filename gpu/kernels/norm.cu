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

// Who has the numbers of a run together: a block or a warp.
struct OverBlock {
    Reduction &shared;
    DEVICE u64 sum(u64 value) const { return block_reduce<SumOf>(shared, value); }
    DEVICE void max_and_sum(u64 &max, u64 &sum) const { block_reduce<MaxOf, SumOf>(shared, max, sum); }
};
struct OverWarp {
    DEVICE u64 sum(u64 value) const { return SumOf::over_warp(value); }
    DEVICE void max_and_sum(u64 &max, u64 &sum) const {
        max = MaxOf::over_warp(max);
        sum = SumOf::over_warp(sum);
    }
};

// `1 / sqrt(mean(x^2) + epsilon)`, after the mean is taken away if there are biases; `each` gives a thread's numbers.
template <class Over, class Each> DEVICE Factor norm_factor(Over over, Each each, Norm norm) {
    u32 width = norm.width;
    i64 mean = 0;
    if (norm.biases) {
        i64 sum = 0;
        each([&](int value) { sum += value; });
        mean = round_div((i64)over.sum((u64)sum), width);
    }
    u64 max = 0, squares = 0;
    auto square = [](i64 value) { return (u64)(value * value); };
    each([&](int value) {
        int own = centred(value, mean);
        max = MaxOf::of(max, magnitude(own));
        squares += square(own);
    });
    over.max_and_sum(max, squares);
    u32 bits = bit_length(max), pre = 0;
    // The squares of large numbers do not fit: those of their upper bits do.
    if (bits > 23) {
        pre = bits - 23;
        squares = 0;
        each([&](int value) { squares += square(round_shift(centred(value, mean), pre)); });
        squares = over.sum(squares);
    }
    u64 sum = squares + (u64)round_shift((i64)width * norm.epsilon, 2 * pre);
    if (sum == 0) sum = 1;
    u32 half = (60 + bit_length(sum) - bit_length(width)) / 2;
    // The largest root with `root^2 * sum <= width * 2^(2 half)`, which is what a quotient and a square root give: from 2^29 on, below
    // 2^30.5.
    u64 limit_high = 2 * half >= 64 ? (u64)width << (2 * half - 64) : (u64)width >> (64 - 2 * half);
    u64 limit_low = 2 * half >= 64 ? 0 : (u64)width << (2 * half);
    // Five of its bits at a time: each lane of a warp tries another value of them, and those that are not too large come first.
    u64 root = 1 << 29;
    for (int shift = 25; shift >= 0; shift -= 5) {
        u64 tried = root + ((u64)(thread_index() % 32) << shift);
        u64 square = tried * tried;
        u64 high = multiply_high(square, sum), low = square * sum;
        u32 fit = ballot(high < limit_high || (high == limit_high && low <= limit_low));
        root += (u64)(bit_length(fit) - 1) << shift;
    }
    return Factor{(i64)root, mean, pre + half - 20};
}

DEVICE i64 normed(int x, int gain, int bias, Factor factor) {
    return round_shift(centred(x, factor.mean) * factor.root, factor.shift) * (i64)gain + ((i64)bias << 20);
}

DEVICE int bias_of(Norm norm, u32 i) { return norm.biases ? norm.biases[i] : 0; }

// How many numbers of a run each thread keeps.
const int KEPT = 4;
typedef Held<int, KEPT> Kept;

// The factor of a run and a thread's normalised numbers of it, which are made from what is loaded at once.
struct Run {
    const int *x;
    Norm norm;
    Factor factor;
    Held<i64, KEPT> numbers;

    DEVICE i64 load(u32 i) const { return normed(x[i], norm.gains[i], bias_of(norm, i), factor); }
    template <class Use> DEVICE void each_number(Use use) const {
        each(numbers, norm.width, [&](u32 i) { return load(i); }, use);
    }
};

DEVICE Run normed_run(Reduction &shared, const int *x, Norm norm) {
    u32 width = norm.width;
    Kept kept = held<KEPT>(width, [&](u32 i) { return x[i]; });
    Kept gains = held<KEPT>(width, [&](u32 i) { return norm.gains[i]; });
    Kept biases = held<KEPT>(width, [&](u32 i) { return bias_of(norm, i); });
    auto load = [&](u32 i) { return x[i]; };
    auto each_number = [&](auto use) { each(kept, width, load, [&](u32, int value) { use(value); }); };
    Run run{x, norm, norm_factor(OverBlock{shared}, each_number, norm), {}};
    UNROLL
    for (int j = 0; j < KEPT; j++) run.numbers.of[j] = normed(kept.of[j], gains.of[j], biases.of[j], run.factor);
    return run;
}

// Normalises and quantises a row; `write` takes each number. Returns the row's exponent.
template <class Write> DEVICE int norm_row(Reduction &shared, const int *x, Norm norm, Write write) {
    Run run = normed_run(shared, x, norm);
    u64 max = 0;
    run.each_number([&](u32, i64 value) { max = MaxOf::of(max, magnitude(value)); });
    int shift = activation_shift(block_reduce<MaxOf>(shared, max));
    Quantise quantised(shift);
    run.each_number([&](u32 i, i64 value) { write(i, quantised(value)); });
    return shift - 40;
}

// Normalises a run where it is: each number is read and replaced by one thread.
DEVICE void normalise_run(Reduction &shared, int *x, Norm norm) {
    normed_run(shared, x, norm).each_number([&](u32 i, i64 value) { x[i] = saturate32(round_shift(value, 24)); });
}

THREADS(ROW_THREADS, 1)
KERNEL(norm, const int *x, const int *gains, const int *biases, i64 epsilon, int width, i8 *high, i8 *low, int *exponents, int stride) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    i64 row = block_x();
    int exponent = norm_row(shared, x + row * width, Norm{gains, biases, epsilon, width},
                            [&](u32 i, int value) { write_activation(high, low, row * stride + i, value); });
    if (thread_index() == 0) exponents[row] = exponent;
}

THREADS(ROW_THREADS, 1)
KERNEL(normalise, int *x, const int *gains, const int *biases, i64 epsilon, int width) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    normalise_run(shared, x + (i64)block_x() * width, Norm{gains, biases, epsilon, width});
}
