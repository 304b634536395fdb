// Attention over a paged key-value cache with the order-free softmax: the cache, and the quantisation of keys, values and queries, with which
// it starts.

// Positions of a page: the blocks in which prefixes are kept.
const int PAGE = 16;

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

// What is done to a head before it is quantised: a norm, if there are gains, and a rotation, if there are rotations.
struct HeadWork {
    const int *gains, *biases;
    i64 epsilon;
    const Int2 *rotations;
    const u32 *positions;
};

// By its parts: a structure that is chosen would be copied to memory.
DEVICE HeadWork chosen(bool which, const HeadWork &a, const HeadWork &b) {
    return HeadWork{which ? a.gains : b.gains, which ? a.biases : b.biases, which ? a.epsilon : b.epsilon, which ? a.rotations : b.rotations,
                    which ? a.positions : b.positions};
}

// A head in a warp's registers: a lane has every 32nd channel of the first half, and the channels that are rotated with them.
const int HEAD_WORDS = 4;

struct Head {
    int of[HEAD_WORDS][2];

    // Channels and where they are: `use(word, half, channel)`.
    template <class Use> DEVICE static void each(int head_dim, Use use) {
        int pairs = head_dim / 2;
        UNROLL
        for (int j = 0; j < HEAD_WORDS; j++) {
            int pair = thread_index() % 32 + 32 * j;
            if (pair >= pairs) continue;
            use(j, 0, pair);
            use(j, 1, pair + pairs);
        }
    }
};

DEVICE Head load_head(const int *x, int head_dim) {
    Head head{};
    Head::each(head_dim, [&](int j, int half, int i) { head.of[j][half] = x[i]; });
    return head;
}

DEVICE void store_head(const Head &head, int *x, int head_dim) {
    Head::each(head_dim, [&](int j, int half, int i) { x[i] = head.of[j][half]; });
}

// Normalises and rotates; whether that is anything.
DEVICE bool work_on_head(Head &head, HeadWork work, i64 row, int head_dim) {
    int pairs = head_dim / 2;
    Int2 rotations[HEAD_WORDS] = {};
    if (work.rotations) {
        const Int2 *of_row = work.rotations + (i64)work.positions[row] * pairs;
        Head::each(head_dim, [&](int j, int half, int i) { if (half == 0) rotations[j] = of_row[i]; });
    }
    if (work.gains) {
        Norm norm{work.gains, work.biases, work.epsilon, head_dim};
        Head gains{}, biases{};
        Head::each(head_dim, [&](int j, int half, int i) { gains.of[j][half] = norm.gains[i], biases.of[j][half] = bias_of(norm, i); });
        auto each_number = [&](auto use) { Head::each(head_dim, [&](int j, int half, int) { use(head.of[j][half]); }); };
        Factor factor = norm_factor(OverWarp{}, each_number, norm);
        Head::each(head_dim, [&](int j, int half, int) {
            i64 value = normed(head.of[j][half], gains.of[j][half], biases.of[j][half], factor);
            head.of[j][half] = saturate32(round_shift(value, 24));
        });
    }
    UNROLL
    for (int j = 0; j < HEAD_WORDS; j++)
        if (work.rotations) rotate(&head.of[j][0], &head.of[j][1], head.of[j][0], head.of[j][1], rotations[j]);
    return work.gains || work.rotations;
}

DEVICE u32 largest_of_head(const Head &head) {
    u32 max = 0;
    UNROLL
    for (int j = 0; j < 2 * HEAD_WORDS; j++) max = (u32)MaxOf::of(max, magnitude(head.of[j / 2][j % 2]));
    return warp_max(max);
}

// Quantises queries or keys; returns their exponent.
DEVICE int quantise_head(const Head &head, const Layer &layer, i8 *high, i8 *low) {
    int shift = activation_shift(largest_of_head(head));
    Quantise quantised(shift);
    Head::each(layer.head_dim, [&](int j, int half, int i) { write_activation(high, low, i, quantised(head.of[j][half])); });
    int past = layer.head_dim + thread_index() % 32;
    if (past < layer.stride) high[past] = low[past] = 0;
    return shift - 16;
}

// Quantises values; returns their maximum.
DEVICE u32 quantise_values(const Head &head, const Layer &layer, i8 *values) {
    u32 max = largest_of_head(head);
    // `round_div(127 * v, max) + 128`, by one division for all of a head: an inverse gives the quotient or one less.
    u64 divisor = 2ull * max, inverse = max == 0 ? 0 : (1ull << 63) / divisor;
    Head::each(layer.head_dim, [&](int j, int half, int i) {
        u64 dividend = (u64)(254 * (i64)head.of[j][half] + 257 * (i64)max), quotient = multiply_high(2 * dividend, inverse);
        if (dividend - quotient * divisor >= divisor) quotient++;
        values[i] = max == 0 ? 0 : (i8)((int)quotient - 128);
    });
    return max;
}

const int BEGIN_THREADS = 128;

// Warps `(row, head)`, first the key-value heads, then the query heads.
THREADS(BEGIN_THREADS, 5)
KERNEL(attention_begin, Call call, int *q, int *k, const int *v, HeadWork of_query, HeadWork of_key, i64 rows) {
    const Layer &layer = call.layer;
    const Scratch &scratch = call.scratch;
    int heads = layer.kv_heads + layer.heads, count = layer.head_dim;
    i64 warp = (i64)block_x() * (BEGIN_THREADS / 32) + thread_index() / 32, row = warp / heads;
    int number = (int)(warp % heads);
    if (row >= rows) return;
    RowInfo info = call.rows[row];
    bool is_key = number < layer.kv_heads;
    i64 slot = is_key ? row * layer.kv_heads + number : row * layer.heads + number - layer.kv_heads;
    int *x = (is_key ? k : q) + slot * count;
    Head head = load_head(x, count);
    if (work_on_head(head, chosen(is_key, of_key, of_query), row, count)) store_head(head, x, count);
    if (is_key && !info.kept) return;
    Place place = place_of(call, info, is_key ? number : 0, info.position);
    i8 *high = is_key ? keys_high(layer, place) : scratch.query_high + slot * layer.stride;
    i8 *low = is_key ? keys_low(layer, place) : scratch.query_low + slot * layer.stride;
    int exponent = quantise_head(head, layer, high, low);
    bool first = thread_index() % 32 == 0;
    if (is_key) {
        u32 max = quantise_values(load_head(v + slot * count, count), layer, values_of(layer, place));
        if (first) {
            *key_exponent(layer, place) = exponent;
            *value_maximum(layer, place) = max;
        }
        return;
    }
    if (first) scratch.query_exponents[slot] = exponent;
    // What passes over many positions add to.
    if (scratch.positions == 0) return;
    Head::each(count, [&](int, int, int i) { scratch.sums[slot * count + i] = 0; });
    if (first) {
        scratch.score_maxima[slot] = -0x7fffffff - 1;
        scratch.weight_sums[slot] = scratch.product_maxima[slot] = 0;
    }
}

// 64 channels of a key, which are on their way together; zero past the head's end.
struct KeyRun {
    Int4 high[4], low[4];

    DEVICE void load(const i8 *key_high, const i8 *key_low, int first, int stride) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            bool there = first + 16 * j < stride;
            high[j] = there ? *(const Int4 *)(key_high + first + 16 * j) : Int4{};
            low[j] = there ? *(const Int4 *)(key_low + first + 16 * j) : Int4{};
        }
    }
};

// Products of high bytes, of high and low ones, and of low bytes.
struct Dot {
    int high = 0, middle = 0, low = 0;

    // With the query's bytes from the run's first channel on, of which so many are left.
    DEVICE void add(const KeyRun &key, const i8 *query_high, const i8 *query_low, int left) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            if (16 * j >= left) break;
            Int4 qh = *(const Int4 *)(query_high + 16 * j), ql = *(const Int4 *)(query_low + 16 * j);
            high = dot16(qh, key.high[j], high);
            middle = dot16(qh, key.low[j], dot16(ql, key.high[j], middle));
            low = dot16(ql, key.low[j], low);
        }
    }
    DEVICE i64 sum() const { return 65536 * (i64)high + 256 * (i64)middle + low; }
};

// The score of a query and a key with these exponents together.
DEVICE int score_of(const Call &call, const Dot &dot, int exponents) {
    int score = rescale(dot.sum(), call.scale.mantissa, exponents + call.scale.exponent + 16);
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
