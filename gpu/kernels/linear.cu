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

struct Products {
    Activations x;
    int rows, inputs, count, blocks;
    Source source;
    Gated gated;
    Matrix of[MATRICES];
};

template <bool grouped> DEVICE int requantised(const Matrix &matrix, i64 output, i64 sum, int exponent) {
    Scale scale = matrix.scales[output];
    exponent += scale.exponent + 16;
    return grouped ? rescale_wide(sum, scale.mantissa, exponent) : rescale(sum, scale.mantissa, exponent);
}

// Requantises a sum and puts it where it belongs.
template <bool grouped> DEVICE int store(const Matrix &matrix, i64 row, i64 output, i64 sum, int exponent) {
    int value = requantised<grouped>(matrix, output, sum, exponent);
    if (matrix.bias) value = saturate32((i64)value + matrix.bias[output]);
    i64 at = row * matrix.outputs + output;
    matrix.out[at] = value;
    if (matrix.sum) matrix.sum[at] = saturate32((i64)matrix.sum[at] + value);
    return value;
}

DEVICE int dot16(Int4 a, Int4 b, int sum) { return dot4(a.x, b.x, dot4(a.y, b.y, dot4(a.z, b.z, dot4(a.w, b.w, sum)))); }

const int FEW_THREADS = 256;
// Bytes of weights that a warp reads at a time.
const int SPAN = 4 * 512;

struct FewRows {
    Reduction reduction;
    int exponents[8];
    u64 maxima[FEW_THREADS / 32][8];
};

// The rows that the block reads, from `memory` if it makes them.
DEVICE Activations prepared(FewRows &shared, unsigned char *memory, const Products &p) {
    Activations x = p.x;
    if (p.source.kind == STORED) return x;
    Activations own{(i8 *)memory, (i8 *)memory + (i64)p.rows * x.stride, shared.exponents, x.stride};
    bool keeps = block_x() == 0;
    for (i64 row = 0; row < p.rows; row++) {
        auto write = [&](u32 i, i64 value) {
            write_activation(own.high, own.low, row * x.stride + i, value);
            if (keeps) write_activation(x.high, x.low, row * x.stride + i, value);
        };
        int exponent;
        if (p.source.kind == NORMED) {
            Norm norm{p.source.gains, p.source.biases, p.source.epsilon, p.inputs};
            exponent = norm_row(shared.reduction, p.source.x + row * p.inputs, norm, write);
        } else {
            exponent = quantise_raw(shared.reduction, p.source.raw, row, p.inputs, write);
        }
        if (thread_index() == 0) {
            own.exponents[row] = exponent;
            if (keeps) x.exponents[row] = exponent;
        }
    }
    block_barrier();
    return own;
}

// Where a warp is: in which part of the weights of which output of which matrix.
struct Cursor {
    i64 output;
    int matrix, first;
};

// Few rows: a warp for each output streams its weights once for all rows, and asks for the next ones before it multiplies. With `gated`, the
// outputs of the matrices that belong together are one after another.
template <int most_rows, bool grouped> DEVICE void few_rows(FewRows &shared, unsigned char *memory, const Products &p) {
    int lane = thread_index() % 32, warp = thread_index() / 32, warps = FEW_THREADS / 32;
    int stride = p.x.stride, rows = p.rows;
    bool gated = p.gated.values;
    // What the warp moves on by: over all outputs, or over those of each matrix.
    i64 step = (i64)p.blocks * warps;

    auto settled = [&](Cursor at) {
        while (at.matrix < p.count && at.output >= p.of[at.matrix].outputs) {
            at.output -= p.of[at.matrix].outputs;
            at.matrix = gated ? p.count : at.matrix + 1;
        }
        return at;
    };
    auto next = [&](Cursor at) {
        if (at.first + SPAN < stride) return Cursor{at.output, at.matrix, at.first + SPAN};
        if (gated && at.matrix + 1 < p.count) return Cursor{at.output, at.matrix + 1, 0};
        return settled(Cursor{at.output + step, gated ? 0 : at.matrix, 0});
    };
    Int4 coming[4];
    auto fetch = [&](Cursor at) {
        const i8 *bytes = p.of[at.matrix].bytes + at.output * stride;
        UNROLL
        for (int j = 0; j < 4; j++) {
            int k = at.first + 512 * j + 16 * lane;
            coming[j] = k < stride ? *(const Int4 *)(bytes + k) : Int4{};
        }
    };

    Cursor at = settled(Cursor{(i64)block_x() * warps + warp, 0, 0});
    // Weights come while the block makes its rows.
    if (at.matrix < p.count) fetch(at);
    Activations x = prepared(shared, memory, p);
    int high[most_rows] = {}, low[most_rows] = {};
    i64 sums[most_rows] = {};
    int first_value = 0;
    u64 most = 0;
    while (at.matrix < p.count) {
        Int4 w[4] = {coming[0], coming[1], coming[2], coming[3]};
        Cursor here = at;
        at = next(at);
        if (at.matrix < p.count) fetch(at);
        const Matrix &matrix = p.of[here.matrix];
        const u8 *groups = grouped ? matrix.groups + here.output * ((p.inputs + 31) / 32) : nullptr;
        UNROLL
        for (int j = 0; j < 4; j++) {
            int k = here.first + 512 * j + 16 * lane;
            if (k >= stride) break;
            i64 multiplier = grouped && k < p.inputs ? groups[k / 32] : 0;
            UNROLL
            for (int row = 0; row < most_rows; row++) {
                // A row too many is the last one again.
                i64 from = (i64)(row < rows ? row : rows - 1) * stride + k;
                high[row] = dot16(w[j], *(const Int4 *)(x.high + from), high[row]);
                low[row] = dot16(w[j], *(const Int4 *)(x.low + from), low[row]);
                if (grouped) {
                    sums[row] += (256 * high[row] + low[row]) * multiplier;
                    high[row] = low[row] = 0;
                }
            }
        }
        if (here.first + SPAN < stride) continue;
        // A lane for each row.
        i64 own = 0;
        UNROLL
        for (int row = 0; row < most_rows; row++) {
            i64 sum = grouped ? sums[row] : 256 * (i64)high[row] + low[row];
            sum = (i64)warp_reduce<SumOf>((u64)sum);
            if (lane == row) own = sum;
            sums[row] = high[row] = low[row] = 0;
        }
        if (lane >= rows) continue;
        int value = store<grouped>(matrix, lane, here.output, own, x.exponents[lane]);
        if (!gated) continue;
        if (here.matrix + 1 < p.count) {
            first_value = value;
            continue;
        }
        i64 product = p.count == 1 ? activated(p.gated.tables, (int)p.gated.activation, value)
                                   : activated(p.gated.tables, (int)p.gated.activation, first_value) * value;
        p.gated.values[lane * matrix.outputs + here.output] = product;
        most = MaxOf::of(most, magnitude(product));
    }
    if (!gated) return;
    if (lane < rows) shared.maxima[warp][lane] = most;
    block_barrier();
    int row = thread_index();
    if (row >= rows) return;
    most = 0;
    for (int i = 0; i < warps; i++) most = MaxOf::of(most, shared.maxima[i][row]);
    p.gated.maxima[(i64)row * p.blocks + block_x()] = most;
}

#define FEW_ROWS(name, most, grouped, blocks)                      \
    THREADS(FEW_THREADS, blocks)                                   \
    KERNEL(name, Products p) {                                     \
        SHARED_BYTES(memory);                                      \
        SHARED(FewRows, shared);                                   \
        few_rows<most, grouped>(shared, memory, p);                \
    }
FEW_ROWS(products_1, 1, false, 4)
FEW_ROWS(products_2, 2, false, 2)
FEW_ROWS(products_4, 4, false, 2)
FEW_ROWS(products_8, 8, false, 1)
FEW_ROWS(grouped_products_1, 1, true, 3)
FEW_ROWS(grouped_products_8, 8, true, 1)

// Many rows: tiles of 64 rows and 128 outputs in shared memory, eight warps with 32 rows and 32 outputs each, three stages of 64 inputs.
const int TILE_ROWS = 64, TILE_OUTPUTS = 128, TILE_INPUTS = 64, STAGES = 3;
const int STAGE_BYTES = (2 * TILE_ROWS + TILE_OUTPUTS) * TILE_INPUTS;

// Where 16 bytes of a tile lie: neighbouring rows in different banks.
DEVICE int tile_at(int row, int chunk) { return row * TILE_INPUTS + 16 * (chunk ^ (row >> 1 & 3)); }

DEVICE void load_tile(unsigned char *tile, const i8 *from, i64 stride, int first, int rows, int tile_rows, int k) {
    int chunk = thread_index() % 4;
    for (int row = thread_index() / 4; row < tile_rows; row += threads() / 4) {
        bool there = first + row < rows;
        const i8 *source = from + (there ? first + row : 0) * stride + k + 16 * chunk;
        start_copy(tile + tile_at(row, chunk), source, there ? 16 : 0);
    }
}

template <bool grouped>
DEVICE void many_rows(unsigned char *tiles, const Products &p) {
    int lane = thread_index() % 32, warp = thread_index() / 32, rows = p.rows, column = block_x(), which = 0;
    // Columns of tiles of one matrix after those of another.
    for (int of_matrix; which + 1 < p.count; which++, column -= of_matrix) {
        of_matrix = ((int)p.of[which].outputs + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
        if (column < of_matrix) break;
    }
    const Activations &x = p.x;
    const Matrix &matrix = p.of[which];
    int outputs = (int)matrix.outputs;
    int first_row = block_y() * TILE_ROWS, first_output = column * TILE_OUTPUTS;
    int warp_row = warp / 4 * 32, warp_output = warp % 4 * 32;
    int steps = x.stride / TILE_INPUTS;

    auto load = [&](int step) {
        unsigned char *stage = tiles + step % STAGES * STAGE_BYTES;
        int k = step * TILE_INPUTS;
        load_tile(stage, x.high, x.stride, first_row, rows, TILE_ROWS, k);
        load_tile(stage + TILE_ROWS * TILE_INPUTS, x.low, x.stride, first_row, rows, TILE_ROWS, k);
        load_tile(stage + 2 * TILE_ROWS * TILE_INPUTS, matrix.bytes, x.stride, first_output, outputs, TILE_OUTPUTS, k);
    };

    int high[2][4][4] = {}, low[2][4][4] = {};
    i64 sums[grouped ? 2 : 1][4][4] = {};
    UNROLL
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) load(step);
        end_copies();
    }
    for (int step = 0; step < steps; step++) {
        wait_copies<STAGES - 2>();
        // Everybody's copies of this step have come, and everybody is done with the stage that is filled next.
        block_barrier();
        if (step + STAGES - 1 < steps) load(step + STAGES - 1);
        end_copies();
        const unsigned char *stage = tiles + step % STAGES * STAGE_BYTES;
        UNROLL
        for (int half = 0; half < 2; half++) {
            unsigned a_high[2][4], a_low[2][4], b[2][4];
            UNROLL
            for (int i = 0; i < 2; i++) {
                int at = tile_at(warp_row + 16 * i + lane % 16, 2 * half + lane / 16);
                load_matrices(a_high[i], stage + at);
                load_matrices(a_low[i], stage + TILE_ROWS * TILE_INPUTS + at);
                int b_at = tile_at(warp_output + 16 * i + lane % 8 + lane / 16 * 8, 2 * half + lane / 8 % 2);
                load_matrices(b[i], stage + 2 * TILE_ROWS * TILE_INPUTS + b_at);
            }
            UNROLL
            for (int i = 0; i < 2; i++) {
                UNROLL
                for (int j = 0; j < 4; j++) {
                    unsigned b0 = b[j / 2][j % 2 * 2], b1 = b[j / 2][j % 2 * 2 + 1];
                    multiply_tiles(high[i][j], a_high[i], b0, b1);
                    multiply_tiles(low[i][j], a_low[i], b0, b1);
                }
            }
            int group = 2 * step + half, group_count = (p.inputs + 31) / 32;
            if (grouped && group < group_count) {
                UNROLL
                for (int j = 0; j < 4; j++) {
                    UNROLL
                    for (int c = 0; c < 4; c++) {
                        int output = first_output + warp_output + 8 * j + lane % 4 * 2 + c % 2;
                        i64 multiplier = output < outputs ? matrix.groups[(i64)output * group_count + group] : 0;
                        UNROLL
                        for (int i = 0; i < (grouped ? 2 : 1); i++) {
                            sums[i][j][c] += (256 * high[i][j][c] + low[i][j][c]) * multiplier;
                            high[i][j][c] = low[i][j][c] = 0;
                        }
                    }
                }
            }
        }
    }
    wait_copies<0>();
    UNROLL
    for (int i = 0; i < 2; i++) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            UNROLL
            for (int c = 0; c < 4; c++) {
                int row = first_row + warp_row + 16 * i + lane / 4 + c / 2 * 8;
                int output = first_output + warp_output + 8 * j + lane % 4 * 2 + c % 2;
                if (row >= rows || output >= outputs) continue;
                i64 sum = grouped ? sums[i % (grouped ? 2 : 1)][j][c] : 256 * (i64)high[i][j][c] + low[i][j][c];
                store<grouped>(matrix, row, output, sum, x.exponents[row]);
            }
        }
    }
}

#define MANY_ROWS(name, grouped, blocks) \
    THREADS(256, blocks)                 \
    KERNEL(name, Products p) {           \
        SHARED_BYTES(tiles);             \
        many_rows<grouped>(tiles, p);    \
    }
MANY_ROWS(product_tiles, false, 2)
MANY_ROWS(grouped_product_tiles, true, 1)
