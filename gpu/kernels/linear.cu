// Matrix products of int8 weights and int16 activations, whose bytes are in two planes: two sums of byte products in i32, put together
// in i64 and requantised.

struct Weights {
    // `[outputs, stride]`, zero past `inputs`; the stride is that of the activations.
    const i8 *bytes;
    const Scale *scales;
    // `[outputs, (inputs + 31) / 32]`, or none.
    const u8 *groups;
    int inputs, outputs;
};

template <bool grouped> DEVICE int requantised(const Weights &weights, int output, i64 sum, int exponent) {
    Scale scale = weights.scales[output];
    exponent += scale.exponent + 16;
    return grouped ? rescale_wide(sum, scale.mantissa, exponent) : rescale(sum, scale.mantissa, exponent);
}

DEVICE int dot16(Int4 a, Int4 b, int sum) { return dot4(a.x, b.x, dot4(a.y, b.y, dot4(a.z, b.z, dot4(a.w, b.w, sum)))); }

// Few rows: a warp for each output streams its weights once for all rows.
template <int most_rows, bool grouped>
DEVICE void few_rows(const Activations &x, int rows, const Weights &weights, int *out) {
    int lane = thread_index() % 32;
    int output = block_x() * (threads() / 32) + thread_index() / 32;
    if (output >= weights.outputs) return;
    const i8 *bytes = weights.bytes + (i64)output * x.stride;
    const u8 *groups = weights.groups + (i64)output * ((weights.inputs + 31) / 32);
    int high[most_rows] = {}, low[most_rows] = {};
    i64 sums[most_rows] = {};
    for (int first = 16 * lane; first < x.stride; first += 4 * 512) {
        // Loads first: they are what a matrix costs, and wait side by side.
        Int4 w[4];
        UNROLL
        for (int j = 0; j < 4; j++) {
            int k = first + 512 * j;
            w[j] = k < x.stride ? *(const Int4 *)(bytes + k) : Int4{};
        }
        UNROLL
        for (int j = 0; j < 4; j++) {
            int k = first + 512 * j;
            if (k >= x.stride) break;
            i64 multiplier = grouped && k < weights.inputs ? groups[k / 32] : 0;
            UNROLL
            for (int row = 0; row < most_rows; row++) {
                // A row too many is the last one again.
                i64 at = (i64)(row < rows ? row : rows - 1) * x.stride + k;
                high[row] = dot16(w[j], *(const Int4 *)(x.high + at), high[row]);
                low[row] = dot16(w[j], *(const Int4 *)(x.low + at), low[row]);
                if (grouped) {
                    sums[row] += (256 * high[row] + low[row]) * multiplier;
                    high[row] = low[row] = 0;
                }
            }
        }
    }
    UNROLL
    for (int row = 0; row < most_rows; row++) {
        i64 sum = grouped ? sums[row] : 256 * (i64)high[row] + low[row];
        sum = (i64)warp_reduce<SumOf>((u64)sum);
        if (lane == row && row < rows)
            out[(i64)row * weights.outputs + output] = requantised<grouped>(weights, output, sum, x.exponents[row]);
    }
}

#define FEW_ROWS(name, most, grouped)                                                                                          \
    KERNEL(name, i8 *high, i8 *low, int *exponents, int stride, int rows, const i8 *bytes, const Scale *scales,                \
           const u8 *groups, int inputs, int outputs, int *out) {                                                              \
        few_rows<most, grouped>(Activations{high, low, exponents, stride}, rows,                                               \
                                Weights{bytes, scales, groups, inputs, outputs}, out);                                         \
    }
FEW_ROWS(linear_1, 1, false)
FEW_ROWS(linear_2, 2, false)
FEW_ROWS(linear_4, 4, false)
FEW_ROWS(linear_8, 8, false)
FEW_ROWS(grouped_linear_1, 1, true)
FEW_ROWS(grouped_linear_8, 8, true)

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
DEVICE void many_rows(unsigned char *tiles, const Activations &x, int rows, const Weights &weights, int *out) {
    int lane = thread_index() % 32, warp = thread_index() / 32;
    int first_row = block_y() * TILE_ROWS, first_output = block_x() * TILE_OUTPUTS;
    int warp_row = warp / 4 * 32, warp_output = warp % 4 * 32;
    int steps = x.stride / TILE_INPUTS;

    auto load = [&](int step) {
        unsigned char *stage = tiles + step % STAGES * STAGE_BYTES;
        int k = step * TILE_INPUTS;
        load_tile(stage, x.high, x.stride, first_row, rows, TILE_ROWS, k);
        load_tile(stage + TILE_ROWS * TILE_INPUTS, x.low, x.stride, first_row, rows, TILE_ROWS, k);
        load_tile(stage + 2 * TILE_ROWS * TILE_INPUTS, weights.bytes, x.stride, first_output, weights.outputs, TILE_OUTPUTS, k);
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
            int group = 2 * step + half, group_count = (weights.inputs + 31) / 32;
            if (grouped && group < group_count) {
                UNROLL
                for (int j = 0; j < 4; j++) {
                    UNROLL
                    for (int c = 0; c < 4; c++) {
                        int output = first_output + warp_output + 8 * j + lane % 4 * 2 + c % 2;
                        i64 multiplier = output < weights.outputs ? weights.groups[(i64)output * group_count + group] : 0;
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
                if (row >= rows || output >= weights.outputs) continue;
                i64 sum = grouped ? sums[i % (grouped ? 2 : 1)][j][c] : 256 * (i64)high[i][j][c] + low[i][j][c];
                out[(i64)row * weights.outputs + output] = requantised<grouped>(weights, output, sum, x.exponents[row]);
            }
        }
    }
}

#define MANY_ROWS(name, grouped, blocks)                                                                                       \
    THREADS(256, blocks)                                                                                                       \
    KERNEL(name, i8 *high, i8 *low, int *exponents, int stride, int rows, const i8 *bytes, const Scale *scales,                \
           const u8 *groups, int inputs, int outputs, int *out) {                                                              \
        SHARED_BYTES(tiles);                                                                                                   \
        many_rows<grouped>(tiles, Activations{high, low, exponents, stride}, rows,                                             \
                           Weights{bytes, scales, groups, inputs, outputs}, out);                                              \
    }
MANY_ROWS(linear_tiles, false, 2)
MANY_ROWS(grouped_linear_tiles, true, 1)
