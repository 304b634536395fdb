// Few positions: one block does a head of a row. If rows are of different sequences, so that nobody else sees what is new, the block also does
// what attention begins with: its query, and its key-value head's new key and values, for itself; one block puts them in the cache.

// Positions that one block does by itself, and of which a thread has the values on their way.
const int NEAR = 1024, VALUES_AT_ONCE = 8;
const int NEAR_THREADS = 512;
const int MOST_STRIDE = 256;

struct alignas(16) Near {
    // The row's own.
    i8 query[2][MOST_STRIDE], key[2][MOST_STRIDE], values[MOST_STRIDE];
    int query_exponent, key_exponent;
    u32 value_maximum;
    u64 products[NEAR];
    // Scores, then the factors of values.
    int numbers[NEAR];
    const i8 *values_at[NEAR];
    i64 sums[NEAR_THREADS][4];
    Parts parts;
};

// What attention begins with, if `q` is not none.
struct Beginning {
    int *q, *k;
    const int *v;
    HeadWork of_query, of_key;
    // For each row and key-value head how many blocks have read its new key: none between launches.
    u32 *done;
};

// Quantises the query or the new key, by a warp. What has been worked on is written where it was: a key by the last of the blocks
// that read it.
DEVICE void begin_head(Near &near, const Call &call, const Beginning &begin, i64 row, bool is_key, i64 slot, u32 blocks) {
    const Layer &layer = call.layer;
    int lane = thread_index() % 32, count = layer.head_dim;
    int *x = (is_key ? begin.k : begin.q) + slot * count;
    Head head = load_head(x, count);
    bool worked = work_on_head(head, chosen(is_key, begin.of_key, begin.of_query), row, count);
    i8 *to = is_key ? near.key[0] : near.query[0];
    int exponent = quantise_head(head, layer, to, to + MOST_STRIDE);
    if (lane == 0) (is_key ? near.key_exponent : near.query_exponent) = exponent;
    if (worked && is_key && blocks > 1) {
        // The first lane counts for all, and what it finds is for all.
        memory_fence();
        warp_barrier();
        u32 done = lane == 0 ? atomic_add(begin.done + slot, 1u) + 1 : 0;
        worked = ballot(done == blocks) != 0;
        warp_barrier();
        memory_fence();
        if (worked && lane == 0) begin.done[slot] = 0;
    }
    if (worked) store_head(head, x, count);
}

DEVICE void begin_values(Near &near, const Call &call, const Beginning &begin, i64 slot) {
    const Layer &layer = call.layer;
    u32 max = quantise_values(load_head(begin.v + slot * layer.head_dim, layer.head_dim), layer, near.values);
    if (thread_index() % 32 == 0) near.value_maximum = max;
}

// Puts the row's key and values in the cache.
DEVICE void keep_key(const Near &near, const Layer &layer, Place place) {
    for (int i = 16 * thread_index(); i < layer.stride; i += 16 * threads()) {
        *(Int4 *)(keys_high(layer, place) + i) = *(const Int4 *)(near.key[0] + i);
        *(Int4 *)(keys_low(layer, place) + i) = *(const Int4 *)(near.key[1] + i);
        *(Int4 *)(values_of(layer, place) + i) = *(const Int4 *)(near.values + i);
    }
    if (thread_index() == 0) {
        *key_exponent(layer, place) = near.key_exponent;
        *value_maximum(layer, place) = near.value_maximum;
    }
}

// A whole head of a row that sees at most `NEAR` positions, whose query the block has; `run` is the beginning of the thread's first key.
DEVICE void near_head(Near &near, Reduction &shared, const Call &call, const RowInfo &info, i64 slot, int kv_head, bool begins, KeyRun run, u64 *maxima) {
    const Layer &layer = call.layer;
    Seen range = seen(layer, info);
    u32 count = range.end - range.first;
    u64 top = 0;
    for (u32 i = thread_index(); i < count; i += threads()) {
        Place place = place_of(call, info, kv_head, range.first + i);
        bool own = begins && i + 1 == count;
        const i8 *high = own ? near.key[0] : keys_high(layer, place), *low = own ? near.key[1] : keys_low(layer, place);
        int exponent = own ? near.key_exponent : *key_exponent(layer, place);
        near.values_at[i] = own ? near.values : values_of(layer, place);
        // For a moment the values' maximum.
        near.products[i] = own ? near.value_maximum : *value_maximum(layer, place);
        Dot dot;
        for (int first = 0; first < layer.stride; first += 64) {
            if (first > 0 || own || i >= threads()) run.load(high, low, first, layer.stride);
            dot.add(run, near.query[0] + first, near.query[1] + first, layer.stride - first);
        }
        int score = score_of(call, dot, near.query_exponent + exponent);
        near.numbers[i] = score;
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
    block_reduce<SumOf, MaxOf>(shared, weight_sum, product_maximum);
    int shift = activation_shift(product_maximum);
    Quantise quantised(shift);
    for (u32 i = thread_index(); i < count; i += threads()) near.numbers[i] = quantised((i64)near.products[i]);
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
            bytes[j] = p < count ? *(const int *)(near.values_at[p] + 4 * quad) : 0;
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
        ROLL
        for (u32 s = 0; s < shares; s++) sum += near.sums[s * quads + i / 4][i % 4];
        int value = rescale(sum, scale.mantissa, shift + scale.exponent);
        call.scratch.sums[slot * layer.head_dim + i] = (u64)(i64)value;
        max = MaxOf::of(max, magnitude(value));
    }
    max = block_reduce<MaxOf>(shared, max);
    if (thread_index() == 0) maxima[slot] = max;
}

// Blocks `(row, heads)` of 64 to 512 threads, so many heads each: those that share keys find them near. The ends of heads are left as rows that
// wait to be quantised, in `sums`, with a part for each head. Blocks past the heads fetch what comes next.
THREADS(NEAR_THREADS, 1)
KERNEL(attention_near, Call call, u64 *maxima, int heads_each, Beginning begin, Ahead ahead, u32 fetchers) {
    SHARED(Near, near);
    Reduction shared{near.parts};
    const Layer &layer = call.layer;
    i64 row = block_x();
    int group = layer.heads / layer.kv_heads, first_head = block_y() * heads_each, kv_head = first_head / group;
    int warp = thread_index() / 32;
    if (first_head >= layer.heads) {
        ahead.fetch(block_y() - layer.heads / heads_each, fetchers);
        return;
    }
    RowInfo info = call.rows[row];
    Seen range = seen(layer, info);
    bool begins = begin.q;
    for (int head = first_head; head < first_head + heads_each; head++) {
        i64 slot = row * layer.heads + head, kv_slot = row * layer.kv_heads + kv_head;
        // The thread's first key comes meanwhile.
        KeyRun run{};
        u32 position = range.first + thread_index();
        if (position + begins < range.end) {
            Place place = place_of(call, info, kv_head, position);
            run.load(keys_high(layer, place), keys_low(layer, place), 0, layer.stride);
        }
        if (begins) {
            // Heads that share keys share the new ones.
            bool is_key = warp == 1, of_values = head == first_head && warp == (threads() > 64 ? 2 : 1);
            if (warp == 0 || (is_key && head == first_head)) begin_head(near, call, begin, row, is_key, is_key ? kv_slot : slot, group / heads_each);
            if (of_values) begin_values(near, call, begin, kv_slot);
        } else {
            for (int i = 16 * thread_index(); i < layer.stride; i += 16 * threads()) {
                *(Int4 *)(near.query[0] + i) = *(const Int4 *)(call.scratch.query_high + slot * layer.stride + i);
                *(Int4 *)(near.query[1] + i) = *(const Int4 *)(call.scratch.query_low + slot * layer.stride + i);
            }
            if (thread_index() == 0) near.query_exponent = call.scratch.query_exponents[slot];
        }
        block_barrier();
        if (begins && head % group == 0 && info.kept) keep_key(near, layer, place_of(call, info, kv_head, info.position));
        near_head(near, shared, call, info, slot, kv_head, begins, run, maxima);
    }
}
