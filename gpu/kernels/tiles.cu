// Products of many rows by tiles of rows and outputs: weights and the rows' high and low bytes come to the block's memory in stages of 64
// inputs, and each warp multiplies 32 rows, both bytes, by its outputs, so that weights are read once for both. If there are few tiles,
// blocks share the inputs of each, and the last one that is done adds all sums.

const int TILE_THREADS = 256, TILE_OUTPUTS = 128, TILE_INPUTS = 64;

template <int row_warps> struct Tile {
    // Rows of a block, and outputs of a warp.
    static const int rows = 32 * row_warps, outputs = TILE_OUTPUTS * row_warps / 8;
    // What a stage has: high bytes, low bytes, weights.
    static const int plane = rows * TILE_INPUTS, bytes = 2 * plane + TILE_OUTPUTS * TILE_INPUTS;
    static const int stages = 48 * 1024 / bytes;
};

// Where 16 bytes of a tile lie: neighbouring rows in different banks.
DEVICE int tile_at(int row, int chunk) { return row * TILE_INPUTS + 16 * (chunk ^ (row >> 1 & 3)); }

// What a thread copies of a stage: 16 bytes of every 64th row.
template <int count> struct Copies {
    const i8 *from[count];
    // None of a row that is not there.
    int bytes[count];

    DEVICE Copies(const i8 *rows, i64 stride, int first, int end, int input) {
        UNROLL
        for (int j = 0; j < count; j++) {
            int row = first + (int)thread_index() / 4 + 64 * j;
            bytes[j] = row < end ? 16 : 0;
            from[j] = rows + (row < end ? row : 0) * stride + input + 16 * (thread_index() % 4);
        }
    }
    DEVICE void start(unsigned char *to, i64 more) const {
        UNROLL
        for (int j = 0; j < count; j++) start_copy(to + 64 * TILE_INPUTS * j, from[j] + more, bytes[j]);
    }
    DEVICE void advance() {
        UNROLL
        for (int j = 0; j < count; j++) from[j] += TILE_INPUTS;
    }
};

// Adds the sums of all blocks that share a tile; whether this one is the last, which has them all.
template <int count> DEVICE bool shared_sums(unsigned char *memory, const Products &p, int tile, bool busy, i64 (&sums)[count]) {
    i64 *of_tile = p.shared.sums + (i64)tile * p.blocks * count * TILE_THREADS + thread_index();
    UNROLL
    for (int i = 0; i < count; i++)
        if (busy) of_tile[(block_z() * count + i) * TILE_THREADS] = sums[i];
    memory_fence();
    u32 *last = (u32 *)memory;
    block_barrier();
    if (thread_index() == 0) {
        *last = atomic_add(p.shared.done + tile, 1u) + 1 == (u32)p.blocks;
        // For the next launch.
        if (*last) p.shared.done[tile] = 0;
    }
    block_barrier();
    if (!*last) return false;
    memory_fence();
    for (int other = 0; busy && other < p.blocks; other++) {
        if (other == (int)block_z()) continue;
        const volatile i64 *from = of_tile + other * count * TILE_THREADS;
        UNROLL
        for (int i = 0; i < count; i++) sums[i] += from[i * TILE_THREADS];
    }
    return true;
}

template <int row_warps, bool grouped> DEVICE void many_rows(unsigned char *tiles, const Products &p) {
    typedef Tile<row_warps> T;
    const int columns = T::outputs / 8;
    int lane = thread_index() % 32, warp = thread_index() / 32, rows = p.rows, column = block_x(), which = 0;
    // Columns of tiles of one matrix after those of another.
    for (int of_matrix; which + 1 < p.count; which++, column -= of_matrix) {
        of_matrix = ((int)p.of[which].outputs + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
        if (column < of_matrix) break;
    }
    const Activations &x = p.x;
    const Matrix &matrix = p.of[which];
    int outputs = (int)matrix.outputs, group_count = (p.inputs + 31) / 32;
    int first_row = block_y() * T::rows, first_output = column * TILE_OUTPUTS;
    int warp_row = warp % row_warps * 32, warp_output = warp / row_warps * T::outputs;
    // The block's share of the inputs.
    int all = x.stride / TILE_INPUTS, share = (all + p.blocks - 1) / p.blocks, first = block_z() * share;
    int steps = share < all - first ? share : all - first;
    bool busy = first_row + warp_row < rows;

    Copies<T::rows / 64> of_rows(x.high, x.stride, first_row, rows, first * TILE_INPUTS);
    Copies<2> of_weights(matrix.bytes, x.stride, first_output, outputs, first * TILE_INPUTS);
    i64 to_low = x.low - x.high;
    unsigned char *copied = tiles + tile_at(thread_index() / 4, thread_index() % 4);
    auto load = [&](int stage) {
        of_rows.start(copied + stage, 0);
        of_rows.start(copied + stage + T::plane, to_low);
        of_weights.start(copied + stage + 2 * T::plane, 0);
        of_rows.advance();
        of_weights.advance();
    };
    auto after = [](int stage) { return stage + T::bytes == T::stages * T::bytes ? 0 : stage + T::bytes; };

    int high[2][columns][4] = {}, low[2][columns][4] = {};
    i64 group_sums[grouped ? 2 : 1][columns][4] = {};
    UNROLL
    for (int step = 0; step < T::stages - 1; step++) {
        if (step < steps) load(step * T::bytes);
        end_copies();
    }
    int read_at = 0, load_at = (T::stages - 1) * T::bytes;
    for (int step = 0; step < steps; step++) {
        wait_copies<T::stages - 2>();
        // Everybody's copies of this step have come, and everybody is done with the stage that is filled next.
        block_barrier();
        if (step + T::stages - 1 < steps) load(load_at);
        end_copies();
        const unsigned char *stage = tiles + read_at;
        read_at = after(read_at);
        load_at = after(load_at);
        if (!busy) continue;
        UNROLL
        for (int half = 0; half < 2; half++) {
            u32 multipliers[grouped ? columns : 1][2];
            int group = 2 * (first + step) + half;
            UNROLL
            for (int j = 0; grouped && j < 2 * columns; j++) {
                int output = first_output + warp_output + 8 * (j / 2) + lane % 4 * 2 + j % 2;
                multipliers[j / 2][j % 2] = output < outputs && group < group_count ? matrix.groups[(i64)output * group_count + group] : 0;
            }
            unsigned a_high[2][4], a_low[2][4], b[columns / 2][4];
            int a_at = tile_at(warp_row + lane % 16, 2 * half + lane / 16);
            int b_at = tile_at(warp_output + lane % 8 + lane / 16 * 8, 2 * half + lane / 8 % 2);
            UNROLL
            for (int i = 0; i < 2; i++) {
                load_matrices(a_high[i], stage + a_at + 16 * TILE_INPUTS * i);
                load_matrices(a_low[i], stage + T::plane + a_at + 16 * TILE_INPUTS * i);
            }
            UNROLL
            for (int j = 0; j < columns / 2; j++) load_matrices(b[j], stage + 2 * T::plane + b_at + 16 * TILE_INPUTS * j);
            UNROLL
            for (int j = 0; j < columns; j++) {
                UNROLL
                for (int i = 0; i < 2; i++) {
                    unsigned b0 = b[j / 2][j % 2 * 2], b1 = b[j / 2][j % 2 * 2 + 1];
                    multiply_tiles(high[i][j], a_high[i], b0, b1);
                    multiply_tiles(low[i][j], a_low[i], b0, b1);
                }
            }
            UNROLL
            for (int j = 0; grouped && j < columns; j++) {
                UNROLL
                for (int c = 0; c < 4; c++) {
                    UNROLL
                    for (int i = 0; i < (grouped ? 2 : 1); i++) {
                        group_sums[i][j][c] += (256 * high[i][j][c] + low[i][j][c]) * (i64)multipliers[grouped ? j : 0][c % 2];
                        high[i][j][c] = low[i][j][c] = 0;
                    }
                }
            }
        }
    }
    wait_copies<0>();
    i64 sums[8 * columns];
    UNROLL
    for (int i = 0; i < 8 * columns; i++) {
        int tile = i / (4 * columns), j = i / 4 % columns, c = i % 4;
        sums[i] = grouped ? group_sums[grouped ? tile : 0][j][c] : 256 * (i64)high[tile][j][c] + low[tile][j][c];
    }
    block_barrier();
    if (p.blocks > 1 && !shared_sums(tiles, p, block_y() * grid_x() + block_x(), busy, sums)) return;
    if (!busy) return;

    // All that is read comes before what is written, which might be the same for all that the compiler knows.
    Target targets[columns][2];
    UNROLL
    for (int j = 0; j < 2 * columns; j++) {
        int output = first_output + warp_output + 8 * (j / 2) + lane % 4 * 2 + j % 2;
        targets[j / 2][j % 2] = output < outputs ? target_of_output(matrix, output) : Target{};
    }
    auto row_of = [&](int i) { return first_row + warp_row + 8 * i + lane / 4; };
    UNROLL
    for (int i = 0; i < 4; i++) {
        i64 at = (i64)row_of(i) * outputs + first_output + warp_output + lane % 4 * 2;
        int exponent = row_of(i) < rows ? x.exponents[row_of(i)] : 0;
        auto there = [&](int j) { return row_of(i) < rows && first_output + warp_output + 8 * (j / 2) + lane % 4 * 2 + j % 2 < outputs; };
        UNROLL
        for (int j = 0; j < 2 * columns; j++) targets[j / 2][j % 2].sum = matrix.sum && there(j) ? matrix.sum[at + 8 * (j / 2) + j % 2] : 0;
        UNROLL
        for (int j = 0; j < 2 * columns; j++) {
            i64 sum = sums[i / 2 * 4 * columns + j / 2 * 4 + i % 2 * 2 + j % 2];
            if (there(j)) store<grouped>(matrix, at + 8 * (j / 2) + j % 2, targets[j / 2][j % 2], sum, exponent);
        }
    }
}

#define MANY_ROWS(name, row_warps, grouped, blocks)  \
    THREADS(TILE_THREADS, blocks)                    \
    KERNEL(name, Products p) {                       \
        SHARED_BYTES(tiles);                         \
        many_rows<row_warps, grouped>(tiles, p);     \
    }
MANY_ROWS(product_tiles_64, 2, false, 2)
MANY_ROWS(product_tiles_128, 4, false, 1)
MANY_ROWS(grouped_product_tiles_64, 2, true, 1)
