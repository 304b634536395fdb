// Attention over a paged key-value cache with the order-free softmax. Keys, values and queries are quantised; then, if a row sees few
// positions, one block does a head. If it sees many, blocks share them in passes: scores and their maximum; weights and their sum; sums of
// values; the end. Maxima and sums of the passes are integers, so blocks may add to them in any order.

// Positions of a page: the blocks in which prefixes are kept.
const int PAGE = 16;
const int CHUNK = 128;
// The most threads of a block that quantises a head.
const int HEAD_THREADS = 64;

// A row's place: its position, the positions that its sequence has in this layer, the first of its pages in the table, and whether its
// keys and values are kept (not if a later row of the step has the same position).
struct RowInfo {
    u32 position, length, first_page, kept;
};

// What all passes know of the layer.
struct Layer {
    // Bytes of a page before the layer's.
    i64 offset;
    int heads, kv_heads, head_dim;
    // Bytes of a quantised head.
    int stride;
    int causal, window;
};

// Intermediate results, `[rows, heads]` of each.
struct Scratch {
    i8 *query_high, *query_low;
    int *query_exponents;
    int *score_maxima;
    u64 *weight_sums, *product_maxima;
    // `[rows, heads, head_dim]`.
    u64 *sums;
    // `[rows, heads, positions]`.
    int *scores;
    int positions;
};

struct Call {
    Layer layer;
    Scratch scratch;
    const RowInfo *rows;
    // The row of `scores` 0: scores are kept for some rows at a time.
    i64 first_row;
    unsigned char *const *pages;
    const Tables *tables;
    Scale scale;
    SoftCap cap;
};

struct Place {
    unsigned char *page;
    int slot;
};

DEVICE Place place_of(const Call &call, const RowInfo &row, int kv_head, u32 position) {
    return Place{call.pages[row.first_page + position / PAGE] + call.layer.offset, kv_head * PAGE + (int)(position % PAGE)};
}

// The parts of a layer in a page: high and low bytes of keys, values, keys' exponents, values' maxima.
DEVICE i8 *keys_high(const Layer &layer, Place place) { return (i8 *)place.page + (i64)place.slot * layer.stride; }
DEVICE i8 *keys_low(const Layer &layer, Place place) { return keys_high(layer, place) + (i64)layer.kv_heads * PAGE * layer.stride; }
DEVICE i8 *values_of(const Layer &layer, Place place) { return keys_low(layer, place) + (i64)layer.kv_heads * PAGE * layer.stride; }
DEVICE int *key_exponent(const Layer &layer, Place place) {
    return (int *)(place.page + 3ll * layer.kv_heads * PAGE * layer.stride) + place.slot;
}
DEVICE u32 *value_maximum(const Layer &layer, Place place) {
    return (u32 *)key_exponent(layer, place) + layer.kv_heads * PAGE;
}

DEVICE int *score_at(const Call &call, i64 slot, u32 index) {
    return call.scratch.scores + (slot - call.first_row * call.layer.heads) * call.scratch.positions + index;
}

struct Seen {
    u32 first, end;
};

DEVICE Seen seen(const Layer &layer, const RowInfo &row) {
    u32 end = layer.causal ? row.position + 1 : row.length;
    u32 first = layer.window > 0 && end > (u32)layer.window ? end - layer.window : 0;
    return Seen{first, end};
}

DEVICE int quantise_head(Reduction &shared, const int *x, int count, i8 *high, i8 *low, int stride) {
    u64 max = 0;
    for (int i = thread_index(); i < count; i += threads()) max = MaxOf::of(max, magnitude(x[i]));
    int shift = activation_shift(block_reduce<MaxOf>(shared, max));
    for (int i = thread_index(); i < stride; i += threads()) write_activation(high, low, i, i < count ? shift_by(x[i], shift) : 0);
    return shift - 16;
}

// What is done to a head before it is quantised: a norm, if there are gains, and a rotation, if there are rotations.
struct HeadWork {
    const int *gains, *biases;
    i64 epsilon;
    const Int2 *rotations;
    const u32 *positions;
};

DEVICE void begin_head(Reduction &shared, HeadWork work, int *x, i64 row, int count) {
    if (work.gains) {
        normalise_run(shared, x, Norm{work.gains, work.biases, work.epsilon, count});
        block_barrier();
    }
    if (work.rotations) {
        int pairs = count / 2;
        const Int2 *rotations = work.rotations + (i64)work.positions[row] * pairs;
        for (int i = thread_index(); i < pairs; i += threads()) rotate(x + i, x + i + pairs, x[i], x[i + pairs], rotations[i]);
        block_barrier();
    }
}

// Blocks `(row, head)`, first the key-value heads, then the query heads.
THREADS(HEAD_THREADS, 8)
KERNEL(attention_begin, Call call, int *q, int *k, const int *v, HeadWork of_query, HeadWork of_key) {
    SHARED(Parts, parts);
    Reduction shared{parts};
    const Layer &layer = call.layer;
    const Scratch &scratch = call.scratch;
    i64 row = block_x();
    RowInfo info = call.rows[row];
    int count = layer.head_dim;
    if (block_y() < (u32)layer.kv_heads) {
        int head = block_y();
        int *key = k + (row * layer.kv_heads + head) * count;
        const int *value = v + (row * layer.kv_heads + head) * count;
        begin_head(shared, of_key, key, row, count);
        if (!info.kept) return;
        Place place = place_of(call, info, head, info.position);
        int exponent = quantise_head(shared, key, count, keys_high(layer, place), keys_low(layer, place), layer.stride);
        u64 max = 0;
        for (int i = thread_index(); i < count; i += threads()) max = MaxOf::of(max, magnitude(value[i]));
        max = block_reduce<MaxOf>(shared, max);
        i8 *values = values_of(layer, place);
        for (int i = thread_index(); i < count; i += threads())
            values[i] = max == 0 ? 0 : (i8)round_div((i64)value[i] * 127, (i64)max);
        if (thread_index() == 0) {
            *key_exponent(layer, place) = exponent;
            *value_maximum(layer, place) = (u32)max;
        }
    } else {
        i64 slot = row * layer.heads + (block_y() - layer.kv_heads);
        begin_head(shared, of_query, q + slot * count, row, count);
        int exponent = quantise_head(shared, q + slot * count, count, scratch.query_high + slot * layer.stride,
                                     scratch.query_low + slot * layer.stride, layer.stride);
        for (int i = thread_index(); i < count; i += threads()) scratch.sums[slot * count + i] = 0;
        if (thread_index() == 0) {
            scratch.query_exponents[slot] = exponent;
            scratch.score_maxima[slot] = -0x7fffffff - 1;
            scratch.weight_sums[slot] = scratch.product_maxima[slot] = 0;
        }
    }
}

DEVICE int score_of(const Call &call, i64 slot, Place place) {
    const Layer &layer = call.layer;
    const i8 *query_high = call.scratch.query_high + slot * layer.stride, *query_low = call.scratch.query_low + slot * layer.stride;
    const i8 *key_high = keys_high(layer, place), *key_low = keys_low(layer, place);
    int high = 0, middle = 0, low = 0;
    for (int i = 0; i < layer.stride; i += 16) {
        Int4 kh = *(const Int4 *)(key_high + i), kl = *(const Int4 *)(key_low + i);
        Int4 qh = *(const Int4 *)(query_high + i), ql = *(const Int4 *)(query_low + i);
        high = dot16(qh, kh, high);
        middle = dot16(qh, kl, dot16(ql, kh, middle));
        low = dot16(ql, kl, low);
    }
    i64 dot = 65536 * (i64)high + 256 * (i64)middle + low;
    int exponent = call.scratch.query_exponents[slot] + *key_exponent(layer, place) + call.scale.exponent + 16;
    int score = rescale(dot, call.scale.mantissa, exponent);
    return call.cap.cap ? soft_capped(call.tables, call.cap, score) : score;
}

// Ascending as an unsigned number, and zero is below every score.
DEVICE u64 ordered(int score) { return (u32)score ^ 0x80000000u; }
DEVICE int score_of_order(u64 order) { return (int)((u32)order ^ 0x80000000u); }

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
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        i64 slot = row * layer.heads + head;
        int score = score_of(call, slot, place);
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
        factors.of[thread_index()] = (int)shift_by((i64)product_of(call, info, range, slot, block_y(), index).product, shift);
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
    for (u32 i = thread_index(); i < width; i += threads()) write_activation(high, low, row * stride + i, shift_by((i64)sums[i], shift));
    if (thread_index() == 0) exponents[row] = shift - 16;
}

// Copies positions, all layers, from one sequence's pages to another's. Blocks `(position, layer, key-value head)`.
THREADS(32, 1)
KERNEL(copy_positions, Layer layer, i64 layer_bytes, unsigned char *const *from_pages, u32 first, unsigned char *const *to_pages, u32 at) {
    int head = block_z();
    u32 source = first + block_x(), target = at + block_x();
    i64 offset = block_y() * layer_bytes;
    Place from{from_pages[source / PAGE] + offset, head * PAGE + (int)(source % PAGE)};
    Place to{to_pages[target / PAGE] + offset, head * PAGE + (int)(target % PAGE)};
    for (int i = thread_index(); i < layer.stride; i += threads()) {
        keys_high(layer, to)[i] = keys_high(layer, from)[i];
        keys_low(layer, to)[i] = keys_low(layer, from)[i];
        values_of(layer, to)[i] = values_of(layer, from)[i];
    }
    if (thread_index() == 0) {
        *key_exponent(layer, to) = *key_exponent(layer, from);
        *value_maximum(layer, to) = *value_maximum(layer, from);
    }
}
