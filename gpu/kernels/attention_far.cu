// Many positions: blocks share a head of a row in passes: scores and their maximum; weights and their sum; sums of values; the end. Maxima and
// sums of the passes are integers, so blocks may add to them in any order.

// Positions of a block.
const int CHUNK = 128;

// Blocks `(chunk, key-value head, row)`, a thread for each position.
THREADS(CHUNK, 8)
KERNEL(attention_scores, Call call) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    const Layer &layer = call.layer;
    i64 row = call.first_row + block_z();
    RowInfo info = call.rows[row];
    Seen range = seen(layer, info);
    u32 index = block_x() * CHUNK + thread_index();
    if (block_x() * CHUNK >= range.end - range.first) return;
    bool there = index < range.end - range.first;
    int kv_head = block_y(), group = layer.heads / layer.kv_heads;
    Place place = place_of(call, info, kv_head, there ? range.first + index : range.first);
    int exponent = *key_exponent(layer, place);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        i64 slot = row * layer.heads + head, query = slot * layer.stride;
        Dot dot;
        for (int first = 0; first < layer.stride; first += 64) {
            KeyRun run;
            run.load(keys_high(layer, place), keys_low(layer, place), first, layer.stride);
            dot.add(run, call.scratch.query_high + query + first, call.scratch.query_low + query + first, layer.stride - first);
        }
        int score = score_of(call, dot, call.scratch.query_exponents[slot] + exponent);
        if (there) *score_at(call, slot, index) = score;
        u64 max = block_reduce<MaxOf>(shared, there ? ordered(score) : 0);
        if (thread_index() == 0) atomic_max(call.scratch.score_maxima + slot, score_of_order(max));
    }
}

// The weight of a position and its product with the value's maximum.
struct Product {
    u64 weight, product;
};

DEVICE Product product_of(const Call &call, const RowInfo &info, Seen range, i64 slot, int head, u32 index) {
    const Layer &layer = call.layer;
    i64 delta = (i64)call.scratch.score_maxima[slot] - *score_at(call, slot, index);
    u64 weight = exp2_neg(call.tables, (u64)delta);
    Place place = place_of(call, info, head / (layer.heads / layer.kv_heads), range.first + index);
    return Product{weight, weight * *value_maximum(layer, place)};
}

// Blocks `(chunk, head, row)`, a thread for each position.
THREADS(CHUNK, 8)
KERNEL(attention_weights, Call call) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    i64 row = call.first_row + block_z(), slot = row * call.layer.heads + block_y();
    RowInfo info = call.rows[row];
    Seen range = seen(call.layer, info);
    u32 index = block_x() * CHUNK + thread_index();
    if (block_x() * CHUNK >= range.end - range.first) return;
    Product own{0, 0};
    if (index < range.end - range.first) own = product_of(call, info, range, slot, block_y(), index);
    u64 sum = block_reduce<SumOf>(shared, own.weight), max = block_reduce<MaxOf>(shared, own.product);
    if (thread_index() == 0) {
        atomic_add(call.scratch.weight_sums + slot, sum);
        atomic_max(call.scratch.product_maxima + slot, max);
    }
}

struct Factors {
    int of[CHUNK];
    const i8 *values[CHUNK];
};

// Blocks `(chunk, head, row)`: factors by position, then sums by channel.
THREADS(CHUNK, 8)
KERNEL(attention_values, Call call) {
    SHARED(Factors, factors);
    const Layer &layer = call.layer;
    i64 row = call.first_row + block_z(), slot = row * layer.heads + block_y();
    RowInfo info = call.rows[row];
    Seen range = seen(layer, info);
    u32 index = block_x() * CHUNK + thread_index(), seen_count = range.end - range.first;
    if (block_x() * CHUNK >= seen_count) return;
    if (index < seen_count) {
        int shift = activation_shift(call.scratch.product_maxima[slot]);
        factors.of[thread_index()] = Quantise(shift)((i64)product_of(call, info, range, slot, block_y(), index).product);
        int kv_head = block_y() / (layer.heads / layer.kv_heads);
        factors.values[thread_index()] = values_of(layer, place_of(call, info, kv_head, range.first + index));
    }
    block_barrier();
    u32 left = seen_count - block_x() * CHUNK, count = left < CHUNK ? left : CHUNK;
    // As many threads for a channel as there are, each with some of the positions.
    u32 shares = CHUNK / layer.head_dim;
    if (shares == 0) shares = 1;
    for (u32 i = thread_index(); i < shares * layer.head_dim; i += threads()) {
        u32 channel = i % layer.head_dim;
        // 128 products below 2^22 each.
        int sum = 0;
        for (u32 first = i / layer.head_dim; first < count; first += VALUES_AT_ONCE * shares) {
            int values[VALUES_AT_ONCE];
            UNROLL
            for (int j = 0; j < VALUES_AT_ONCE; j++) {
                u32 p = first + j * shares;
                values[j] = p < count ? factors.values[p][channel] : 0;
            }
            UNROLL
            for (int j = 0; j < VALUES_AT_ONCE; j++) sum += first + j * shares < count ? factors.of[first + j * shares] * values[j] : 0;
        }
        if (sum != 0) atomic_add(call.scratch.sums + slot * layer.head_dim + channel, (u64)(i64)sum);
    }
}

// A block for each row: ends the heads and quantises them together.
THREADS(ROW_THREADS, 1)
KERNEL(attention_end, Call call, i8 *high, i8 *low, int *exponents, int stride) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    i64 row = block_x();
    u32 width = call.layer.heads * call.layer.head_dim;
    u64 *sums = call.scratch.sums + row * width;
    u64 max = 0;
    for (u32 i = thread_index(); i < width; i += threads()) {
        i64 slot = row * call.layer.heads + i / call.layer.head_dim;
        Scale scale = normaliser(call.scratch.weight_sums[slot]);
        int exponent = activation_shift(call.scratch.product_maxima[slot]) + scale.exponent;
        int value = rescale((i64)sums[i], scale.mantissa, exponent);
        max = MaxOf::of(max, magnitude(value));
        sums[i] = (u64)(i64)value;
    }
    int shift = activation_shift(block_reduce<MaxOf>(shared, max));
    Quantise quantised(shift);
    for (u32 i = thread_index(); i < width; i += threads()) write_activation(high, low, row * stride + i, quantised((i64)sums[i]));
    if (thread_index() == 0) exponents[row] = shift - 16;
}
