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
                store<grouped>(matrix, row, output, target_of(matrix, row, output), sum, x.exponents[row]);
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
