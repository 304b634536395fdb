// The product of one row: a warp for each output streams its weights and asks for the next ones before it multiplies these. One block does
// the work of a multiprocessor, so that the row is made once for all its warps.

const int ONE_ROW_THREADS = 1024, GROUPED_ROW_THREADS = 768;
// Bytes of weights that a warp reads at a time.
const int ROW_SPAN = WORDS * 512;

DEVICE int dot16(Int4 a, Int4 b, int sum) { return dot4(a.x, b.x, dot4(a.y, b.y, dot4(a.z, b.z, dot4(a.w, b.w, sum)))); }

struct OneRow {
    Parts parts;
    int exponent;
    u64 maxima[32];
};

// Puts the row in the block's memory: high bytes, zeros up to `plane`, and the same of low bytes. One block keeps what it makes for others.
DEVICE void put_row(OneRow &shared, unsigned char *memory, int plane, const Products &p) {
    int stride = p.x.stride, exponent;
    for (int i = stride + 16 * thread_index(); i < plane; i += 16 * threads()) *(Int4 *)(memory + i) = *(Int4 *)(memory + plane + i) = Int4{};
    bool keeps = block_x() == 0;
    auto write = [&](u32 i, int value) {
        write_activation((i8 *)memory, (i8 *)memory + plane, i, value);
        if (keeps) write_activation(p.x.high, p.x.low, i, value);
    };
    Reduction reduction{shared.parts};
    if (p.source.kind == NORMED) {
        exponent = norm_row(reduction, p.source.x, Norm{p.source.gains, p.source.biases, p.source.epsilon, p.inputs}, write);
    } else if (p.source.kind == WAITING) {
        exponent = quantise_raw(reduction, p.source.raw, 0, p.inputs, write);
    } else {
        keeps = false;
        exponent = p.x.exponents[0];
        for (int i = 16 * thread_index(); i < stride; i += 16 * threads()) {
            *(Int4 *)(memory + i) = *(const Int4 *)(p.x.high + i);
            *(Int4 *)(memory + plane + i) = *(const Int4 *)(p.x.low + i);
        }
    }
    if (thread_index() == 0) {
        shared.exponent = exponent;
        if (keeps) p.x.exponents[0] = exponent;
    }
    block_barrier();
}

// A number of an output's target: a lane for each, as there are few registers.
DEVICE u32 part_of_target(const Matrix &matrix, int output) {
    u32 lane = thread_index() % 32;
    const u32 *of = lane < 2 ? (const u32 *)matrix.scales : (const u32 *)(lane == 2 ? matrix.bias : matrix.sum);
    return lane < 4 && of ? of[lane < 2 ? 2 * output + lane : output] : 0;
}

// For the first lane, which replaces what another one has read.
DEVICE Target target_of_parts(u32 part) {
    warp_barrier();
    Scale scale{part, (int)shuffle_xor(part, 1)};
    return Target{scale, (int)shuffle_xor(part, 2), (int)shuffle_xor(part, 3)};
}

template <bool grouped> DEVICE void one_row(OneRow &shared, unsigned char *memory, const Products &p) {
    int lane = thread_index() % 32, warp = thread_index() / 32, warps = threads() / 32, stride = p.x.stride;
    const Way way{p, 1, (stride + ROW_SPAN - 1) / ROW_SPAN, p.blocks * warps};
    // Past the row's end they are what they were: they meet zeros.
    Int4 coming[WORDS] = {};
    u32 multipliers[grouped ? WORDS : 1] = {};
    // Where a lane's weights of a span are and how many bytes from there on: none of a span past the last one.
    const i8 *bytes;
    const u8 *groups;
    int left;
    auto find = [&](Cursor at) {
        const Matrix &matrix = p.of[way.ends(at) ? 0 : at.matrix];
        int first = ROW_SPAN * at.span + 16 * lane;
        bytes = matrix.bytes + (i64)at.unit * stride + first;
        if (grouped) groups = matrix.groups + (i64)at.unit * ((p.inputs + 31) / 32) + first / 32;
        left = way.ends(at) ? 0 : stride - first;
    };
    auto fetch = [&](int j) {
        if (512 * j < left) coming[j] = *(const Int4 *)(bytes + 512 * j);
        // What pads the inputs has weights of zero, but no multiplier.
        if (grouped && 512 * j < left - (stride - p.inputs)) multipliers[j] = groups[16 * j];
    };

    // Neighbouring outputs are different multiprocessors', which have equally many.
    Cursor at = way.settled(Cursor{warp * p.blocks + (int)block_x(), 0, 0});
    // Weights come while the block makes the row.
    find(at);
    UNROLL
    for (int j = 0; j < WORDS; j++) fetch(j);
    u32 target = 0, target_comes = way.ends(at) ? 0 : part_of_target(p.of[at.matrix], at.unit);
    int plane = way.spans * ROW_SPAN;
    put_row(shared, memory, plane, p);
    int high = 0, low = 0, first_value = 0;
    i64 sum = 0;
    u64 most = 0;
    while (!way.ends(at)) {
        Cursor here = at;
        at = way.next(at);
        find(at);
        if (here.span == 0) target = target_comes;
        if (at.span == 0 && !way.ends(at)) target_comes = part_of_target(p.of[at.matrix], at.unit);
        const unsigned char *x = memory + ROW_SPAN * here.span + 16 * lane;
        UNROLL
        for (int j = 0; j < WORDS; j++) {
            high = dot16(coming[j], *(const Int4 *)(x + 512 * j), high);
            low = dot16(coming[j], *(const Int4 *)(x + plane + 512 * j), low);
            if (grouped) {
                sum += (256 * high + low) * (i64)multipliers[j];
                high = low = 0;
            }
            fetch(j);
        }
        if (!way.last_span(here)) continue;
        // The sums of high and of low bytes fit 32 bits each.
        if (grouped) sum = (i64)SumOf::over_warp((u64)sum);
        else sum = 256 * (i64)(int)warp_sum(high) + (int)warp_sum(low);
        Target own = target_of_parts(target);
        if (lane == 0) {
            int value = store<grouped>(p.of[here.matrix], here.unit, own, sum, shared.exponent);
            if (way.gated() && !way.twin_comes(here)) {
                i64 number = gated_number(p, first_value, value);
                p.gated.values[here.unit] = number;
                most = MaxOf::of(most, magnitude(number));
            }
            first_value = value;
        }
        sum = high = low = 0;
    }
    p.ahead.fetch(block_x(), p.blocks);
    if (!way.gated()) return;
    if (lane == 0) shared.maxima[warp] = most;
    block_barrier();
    if (warp != 0) return;
    most = MaxOf::over_warp(lane < warps ? shared.maxima[lane] : 0);
    if (lane == 0) p.gated.maxima[block_x()] = most;
}

#define ONE_ROW(name, threads, grouped)              \
    THREADS(threads, 1)                              \
    KERNEL(name, Products p) {                       \
        SHARED_BYTES(memory);                        \
        SHARED(OneRow, shared);                      \
        one_row<grouped>(shared, memory, p);         \
    }
ONE_ROW(products_1, ONE_ROW_THREADS, false)
ONE_ROW(grouped_products_1, GROUPED_ROW_THREADS, true)
