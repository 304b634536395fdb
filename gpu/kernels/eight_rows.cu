// Products of two to eight rows on tensor cores: of a tile's sixteen rows eight are the high and eight the low bytes of the rows, its
// columns are eight outputs. A block does eight outputs at a time, of which each warp does a share of the inputs.

const int EIGHT_THREADS = 256, EIGHT_WARPS = EIGHT_THREADS / 32, EIGHT_OUTPUTS = 8;
// Bytes of an output's weights that a block reads at a time, 64 of each run of a warp.
const int EIGHT_SPAN = WORDS * EIGHT_WARPS * 64;

struct EightRows {
    // Of the outputs that are summed up and of those that come next.
    i64 sums[2][EIGHT_WARPS][2][32];
    u64 maxima[8][EIGHT_OUTPUTS];
};

// A lane's sixteen bytes of a run of 64: any, if only weights and rows agree, and the half with the multiplier of its step if there are such.
template <bool grouped> DEVICE Int4 run_of(const i8 *bytes) {
    int chunk = thread_index() % 4;
    if (!grouped) return *(const Int4 *)(bytes + 16 * chunk);
    Int2 first = *(const Int2 *)(bytes + 8 * chunk), second = *(const Int2 *)(bytes + 32 + 8 * chunk);
    return Int4{first.x, first.y, second.x, second.y};
}

template <bool grouped> DEVICE void eight_rows(EightRows &shared, const Products &p) {
    int lane = thread_index() % 32, warp = thread_index() / 32, stride = p.x.stride, rows = p.rows;
    int group_count = (p.inputs + 31) / 32;
    const Way way{p, EIGHT_OUTPUTS, (stride + EIGHT_SPAN - 1) / EIGHT_SPAN, p.blocks};
    // Whose sum the thread ends: a thread for each row and output, and some for nothing.
    int own_row = thread_index() / EIGHT_OUTPUTS, own_output = thread_index() % EIGHT_OUTPUTS;
    // Past the rows' end they are what they were: they meet zeros.
    Int4 coming[WORDS] = {};
    // Of the lane's two outputs, for both halves of a run.
    u32 multipliers[grouped ? WORDS : 1][2][2] = {};
    Target target{}, target_comes{};
    // Where a lane's weights of a span are, and the first input of them, which is past the last one for a span past the last one.
    const i8 *bytes;
    const u8 *groups[2];
    int input;
    auto find = [&](Cursor at) {
        const Matrix &matrix = p.of[way.ends(at) ? 0 : at.matrix];
        int first = at.unit * EIGHT_OUTPUTS, last = (int)matrix.outputs - 1, start = EIGHT_SPAN * at.span + 64 * warp;
        // An output too many is the last one again.
        auto output = [&](int i) { return (i64)(first + i < last ? first + i : last); };
        bytes = matrix.bytes + output(lane / 4) * stride + start;
        UNROLL
        for (int i = 0; grouped && i < 2; i++) groups[i] = matrix.groups + output(lane % 4 * 2 + i) * group_count + start / 32;
        input = way.ends(at) ? stride : start;
    };
    auto fetch = [&](int j) {
        int k = input + 64 * EIGHT_WARPS * j;
        if (k < stride) coming[j] = run_of<grouped>(bytes + 64 * EIGHT_WARPS * j);
        UNROLL
        for (int i = 0; grouped && i < 4; i++) {
            int of = 2 * EIGHT_WARPS * j + i % 2;
            if (k / 32 + i % 2 < group_count) multipliers[j][i / 2][i % 2] = groups[i / 2][of];
        }
    };
    auto find_target = [&](Cursor at) {
        const Matrix &matrix = p.of[way.ends(at) ? 0 : at.matrix];
        int output = at.unit * EIGHT_OUTPUTS + own_output;
        if (!way.ends(at) && own_row < rows && output < (int)matrix.outputs) target_comes = target_of(matrix, own_row, output);
    };

    Cursor at = way.settled(Cursor{(int)block_x(), 0, 0});
    find(at);
    UNROLL
    for (int j = 0; j < WORDS; j++) fetch(j);
    find_target(at);
    // A row too many is the last one again.
    i64 x_at = (i64)(lane / 4 < rows ? lane / 4 : rows - 1) * stride;
    const i8 *x_high = p.x.high + x_at, *x_low = p.x.low + x_at;
    int exponent = own_row < rows ? p.x.exponents[own_row] : 0, products[4] = {}, turn = 0, first_value = 0;
    i64 sums[2] = {};
    u64 most = 0;
    while (!way.ends(at)) {
        Cursor here = at;
        int k = input;
        at = way.next(at);
        find(at);
        if (here.span == 0) target = target_comes;
        if (at.span == 0) find_target(at);
        UNROLL
        for (int j = 0; j < WORDS; j++, k += 64 * EIGHT_WARPS) {
            Int4 h{}, l{}, w = coming[j];
            if (k < stride) h = run_of<grouped>(x_high + k), l = run_of<grouped>(x_low + k);
            auto end_group = [&](int half) {
                UNROLL
                for (int i = 0; grouped && i < 2; i++) {
                    sums[i] += (256 * products[i] + products[2 + i]) * (i64)multipliers[grouped ? j : 0][i][half];
                    products[i] = products[2 + i] = 0;
                }
            };
            multiply_tiles(products, {(u32)h.x, (u32)l.x, (u32)h.y, (u32)l.y}, w.x, w.y);
            end_group(0);
            multiply_tiles(products, {(u32)h.z, (u32)l.z, (u32)h.w, (u32)l.w}, w.z, w.w);
            end_group(1);
            fetch(j);
        }
        if (!way.last_span(here)) continue;
        // The lane has the sums of its row and two outputs, of the warp's inputs.
        UNROLL
        for (int i = 0; i < 2; i++) {
            shared.sums[turn][warp][i][lane] = grouped ? sums[i] : 256 * (i64)products[i] + products[2 + i];
            sums[i] = products[i] = products[2 + i] = 0;
        }
        block_barrier();
        const Matrix &matrix = p.of[here.matrix];
        int output = here.unit * EIGHT_OUTPUTS + own_output;
        if (own_row < rows && output < matrix.outputs) {
            i64 sum = 0;
            UNROLL
            for (int i = 0; i < EIGHT_WARPS; i++) sum += shared.sums[turn][i][own_output % 2][own_row * 4 + own_output / 2];
            int value = store<grouped>(matrix, own_row * matrix.outputs + output, target, sum, exponent);
            if (way.gated() && !way.twin_comes(here)) {
                i64 number = gated_number(p, first_value, value);
                p.gated.values[own_row * matrix.outputs + output] = number;
                most = MaxOf::of(most, magnitude(number));
            }
            first_value = value;
        }
        turn ^= 1;
    }
    if (!way.gated()) return;
    if (own_row < 8) shared.maxima[own_row][own_output] = most;
    block_barrier();
    int row = thread_index();
    if (row >= rows) return;
    most = 0;
    for (int i = 0; i < EIGHT_OUTPUTS; i++) most = MaxOf::of(most, shared.maxima[row][i]);
    p.gated.maxima[(i64)row * p.blocks + block_x()] = most;
}

#define EIGHT_ROWS(name, grouped, blocks)            \
    THREADS(EIGHT_THREADS, blocks)                   \
    KERNEL(name, Products p) {                       \
        SHARED(EightRows, shared);                   \
        eight_rows<grouped>(shared, p);              \
    }
EIGHT_ROWS(products_8, false, 3)
EIGHT_ROWS(grouped_products_8, true, 2)
