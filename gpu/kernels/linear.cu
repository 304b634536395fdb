// Matrix products of int8 weights and int16 activations, whose bytes are in two planes: two sums of byte products in i32, put together
// in i64 and requantised. A launch does up to four matrices that read the same rows, and what comes before and after them.

const int MATRICES = 4;

struct Matrix {
    // `[outputs, stride]`, zero past the inputs; the stride is that of the activations.
    const i8 *bytes;
    const Scale *scales;
    // `[outputs, (inputs + 31) / 32]`, or none.
    const u8 *groups;
    // Added to each row, or none.
    const int *bias;
    int *out;
    // `[rows, outputs]` to which the outputs are added, or none.
    int *sum;
    i64 outputs;
};

// Where the activations come from: they are there, or each block makes them, one keeps them for others.
enum SourceKind { STORED, NORMED, WAITING };

struct Source {
    i64 kind;
    // What is normalised, `[rows, inputs]`.
    const int *x, *gains, *biases;
    i64 epsilon;
    Raw raw;
};

// What becomes of the outputs of the only matrix, or of a gate's and its twin's: rows that wait to be quantised, with a part for each block.
struct Gated {
    const Tables *tables;
    i64 *values;
    u64 *maxima;
    i64 activation;
};

// Where blocks that share the inputs of a tile leave their sums, and count how many are done: none between launches.
struct Shared {
    i64 *sums;
    u32 *done;
};

struct Products {
    Activations x;
    // Blocks of few rows; blocks that share a tile of many.
    int rows, inputs, count, blocks;
    Source source;
    Gated gated;
    Shared shared;
    Ahead ahead;
    Matrix of[MATRICES];
};

template <bool grouped> DEVICE int requantised(Scale scale, i64 sum, int exponent) {
    exponent += scale.exponent + 16;
    return grouped ? rescale_wide(sum, scale.mantissa, exponent) : rescale(sum, scale.mantissa, exponent);
}

// What comes to an output: loaded long before it is known, as memory is far away.
struct Target {
    Scale scale;
    int bias, sum;
};

DEVICE Target target_of_output(const Matrix &matrix, int output) {
    // In parts: a structure is copied by bytes that may have been changed meanwhile.
    Scale scale{matrix.scales[output].mantissa, matrix.scales[output].exponent};
    return Target{scale, matrix.bias ? matrix.bias[output] : 0, 0};
}

DEVICE Target target_of(const Matrix &matrix, i64 row, int output) {
    Target target = target_of_output(matrix, output);
    if (matrix.sum) target.sum = matrix.sum[row * matrix.outputs + output];
    return target;
}

// Requantises a sum and puts it where it belongs, among all rows' outputs.
template <bool grouped> DEVICE int store(const Matrix &matrix, i64 at, Target target, i64 sum, int exponent) {
    int value = saturate32((i64)requantised<grouped>(target.scale, sum, exponent) + target.bias);
    matrix.out[at] = value;
    if (matrix.sum) matrix.sum[at] = saturate32((i64)target.sum + value);
    return value;
}
