// Attention over a paged key-value cache with the order-free softmax: the cache, and the quantisation of keys, values and queries, with which
// it starts.

// Positions of a page: the blocks in which prefixes are kept.
const int PAGE = 16;
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

// Copies positions, all layers, from one sequence's pages to another's. Blocks `(position, layer, key-value head)`.
THREADS(32, 1)
KERNEL(copy_positions, Layer layer, i64 layer_bytes, unsigned char *const *from_pages, u32 first, unsigned char *const *to_pages, u32 at) {
    int head = block_z();
    u32 source = first + block_x(), target = at + block_x();
    i64 offset = block_y() * layer_bytes;
    Place from{from_pages[source / PAGE] + offset, head * PAGE + (int)(source % PAGE)};
    Place to{to_pages[target / PAGE] + offset, head * PAGE + (int)(target % PAGE)};
    int words = layer.stride / 16;
    for (int i = thread_index(); i < 3 * words; i += threads()) {
        i64 word = (i64)(i / words) * layer.kv_heads * PAGE * words + i % words;
        ((Int4 *)keys_high(layer, to))[word] = ((const Int4 *)keys_high(layer, from))[word];
    }
    if (thread_index() == 0) {
        *key_exponent(layer, to) = *key_exponent(layer, from);
        *value_maximum(layer, to) = *value_maximum(layer, from);
    }
}
