// Few positions: one block does a head of a row.

// Positions that one block does by itself, and of which a thread has the values on their way.
const int NEAR = 1024, VALUES_AT_ONCE = 8;

struct Near {
    u64 products[NEAR];
    // Scores, then the factors of values.
    int numbers[NEAR];
    const i8 *values[NEAR];
    i64 sums[256][4];
};

// A whole head of a row that sees at most `NEAR` positions.
DEVICE void near_head(Near &near, Reduction &shared, const Call &call, i64 row, int head, u64 *maxima) {
    const Layer &layer = call.layer;
    int kv_head = head / (layer.heads / layer.kv_heads);
    i64 slot = row * layer.heads + head;
    RowInfo info = call.rows[row];
    Seen range = seen(layer, info);
    u32 count = range.end - range.first;
    u64 top = 0;
    for (u32 i = thread_index(); i < count; i += threads()) {
        Place place = place_of(call, info, kv_head, range.first + i);
        int score = score_of(call, slot, place);
        near.numbers[i] = score;
        near.values[i] = values_of(layer, place);
        // For a moment the values' maximum.
        near.products[i] = *value_maximum(layer, place);
        top = MaxOf::of(top, ordered(score));
    }
    int highest = score_of_order(block_reduce<MaxOf>(shared, top));
    u64 weight_sum = 0, product_maximum = 0;
    for (u32 i = thread_index(); i < count; i += threads()) {
        u64 weight = exp2_neg(call.tables, (u64)((i64)highest - near.numbers[i]));
        near.products[i] *= weight;
        weight_sum += weight;
        product_maximum = MaxOf::of(product_maximum, near.products[i]);
    }
    weight_sum = block_reduce<SumOf>(shared, weight_sum);
    product_maximum = block_reduce<MaxOf>(shared, product_maximum);
    int shift = activation_shift(product_maximum);
    for (u32 i = thread_index(); i < count; i += threads()) near.numbers[i] = (int)shift_by((i64)near.products[i], shift);
    block_barrier();
    // A thread takes four channels, and as many threads share the positions as there are.
    u32 quads = layer.stride / 4, shares = threads() / quads, quad = thread_index() % quads, share = thread_index() / quads;
    i64 sums[4] = {};
    for (u32 first = share; first < count && share < shares; first += VALUES_AT_ONCE * shares) {
        int factors[VALUES_AT_ONCE], bytes[VALUES_AT_ONCE];
        UNROLL
        for (int j = 0; j < VALUES_AT_ONCE; j++) {
            u32 p = first + j * shares;
            factors[j] = p < count ? near.numbers[p] : 0;
            bytes[j] = p < count ? *(const int *)(near.values[p] + 4 * quad) : 0;
        }
        UNROLL
        for (int c = 0; c < 4; c++) {
            int sum = 0;
            UNROLL
            for (int j = 0; j < VALUES_AT_ONCE; j++) sum += factors[j] * (int)(i8)(bytes[j] >> 8 * c);
            sums[c] += sum;
        }
    }
    UNROLL
    for (int c = 0; c < 4; c++) near.sums[thread_index()][c] = sums[c];
    block_barrier();
    Scale scale = normaliser(weight_sum);
    u64 max = 0;
    for (u32 i = thread_index(); i < (u32)layer.head_dim; i += threads()) {
        i64 sum = 0;
        for (u32 s = 0; s < shares; s++) sum += near.sums[s * quads + i / 4][i % 4];
        int value = rescale(sum, scale.mantissa, shift + scale.exponent);
        call.scratch.sums[slot * layer.head_dim + i] = (u64)(i64)value;
        max = MaxOf::of(max, magnitude(value));
    }
    max = block_reduce<MaxOf>(shared, max);
    if (thread_index() == 0) maxima[slot] = max;
}

// Blocks `(row, heads)` of 64 to 256 threads, so many heads each: those that share keys find them near. The ends of heads are left as rows that
// wait to be quantised, in `sums`, with a part for each head.
THREADS(256, 2)
KERNEL(attention_near, Call call, u64 *maxima, int heads_each) {
    SHARED(Near, near);
    SHARED(Parts, parts);
    Reduction shared{parts};
    for (int head = block_y() * heads_each; head < ((int)block_y() + 1) * heads_each; head++)
        near_head(near, shared, call, block_x(), head, maxima);
}
