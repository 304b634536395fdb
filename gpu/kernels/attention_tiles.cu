// Many rows: sixteen pairs of a row and a head that share keys are the rows of tiles of tensor cores, whose columns are positions, then
// channels. The order of what is summed is free, so lanes multiply what they have loaded, without exchanges. As everywhere, the maximum of all
// scores comes first, then the weights and their sum, then the products with values.

const int PAIRS = 16, POSITIONS = 32, CHANNELS = 64;
const int PAIR_THREADS = 256;
// A masked score is below all others.
const int MASKED = -0x7fffffff - 1;

// Pairs `first` to `first + count - 1` of a key-value head, numbered row by row; the positions that one of them sees, the first of which is a
// multiple of `POSITIONS`.
struct PairTile {
    u32 first, count, start, end;
};

struct PairShared {
    // Entries of the table of powers, and how far it is to the next ones.
    Int2 exp2[256];
    u32 first[PAIRS], end[PAIRS];
    int exponents[PAIRS];
    i64 slots[PAIRS];
    // Of each warp.
    u64 maxima[PAIR_THREADS / 32][PAIRS], weight_sums[PAIR_THREADS / 32][PAIRS];
};

DEVICE u32 power(const Int2 *table, u32 delta) {
    u32 octaves = delta >> 16;
    Int2 entry = table[delta >> 8 & 255];
    u32 value = (u32)entry.x - (((u32)entry.y * (delta & 255) + 128) >> 8);
    u32 rounded = (value + ((1u << (octaves & 31)) >> 1)) >> (octaves & 31);
    return octaves > 31 ? 0 : rounded;
}

// Of the four lanes that have a row's columns.
DEVICE u64 quad(u64 value, u32 lanes) { return (u64)shuffle_xor((u32)(value >> 32), lanes) << 32 | shuffle_xor((u32)value, lanes); }
template <class Op> DEVICE u64 over_quad(u64 value) {
    value = Op::of(value, quad(value, 1));
    return Op::of(value, quad(value, 2));
}

// The bytes of four numbers of 16 bits: the high ones, rounded, and the low ones that are left.
DEVICE void split_bytes(const u32 (&numbers)[4], u32 &high, u32 &low) {
    u32 first = numbers[0] | numbers[1] << 16, second = numbers[2] | numbers[3] << 16;
    low = permute(first, second, 0x6420);
    // They are not negative, so that nothing is carried from one to the other.
    high = permute(first + 0x00800080, second + 0x00800080, 0x7531);
}

// Four words of four channels of a position each, as four words of four positions of a channel each.
DEVICE void transpose(u32 (&to)[4], u32 a, u32 b, u32 c, u32 d) {
    u32 ab_low = permute(a, b, 0x5140), ab_high = permute(a, b, 0x7362), cd_low = permute(c, d, 0x5140), cd_high = permute(c, d, 0x7362);
    to[0] = permute(ab_low, cd_low, 0x5410);
    to[1] = permute(ab_low, cd_low, 0x7632);
    to[2] = permute(ab_high, cd_high, 0x5410);
    to[3] = permute(ab_high, cd_high, 0x7632);
}

// What a block works on: a warp has every so many positions, a lane of them the rows `lane / 4` and `lane / 4 + 8` and, of each eight
// positions, the columns `2 * (lane % 4)` and the next one.
struct PairBlock {
    const Call &call;
    PairShared &shared;
    PairTile tile;
    int kv_head;
    u32 first_page;
    // Queries, then sums of values.
    unsigned char *queries;
    // For each eight positions four scores, then weights, of each lane; then, for each sixteen, the bytes of factors.
    Int4 *scores;

    DEVICE int groups() const { return (tile.end - tile.start + POSITIONS - 1) / POSITIONS; }
    DEVICE Int4 &at(int page, int eight) const { return scores[(page * 2 + eight) * 32 + thread_index() % 32]; }
    // The place of the first position of a page, counted from the first one; past the last position that of the last page.
    DEVICE Place place(int page) const {
        u32 position = tile.start + page * PAGE;
        if (position >= tile.end) position = tile.end - 1;
        return Place{call.pages[first_page + position / PAGE] + call.layer.offset, kv_head * PAGE};
    }
    DEVICE i64 plane() const { return (i64)call.layer.kv_heads * PAGE * call.layer.stride; }
};

// Queries as the lanes want them: for each 64 channels, each half of a lane's 16 bytes and both planes, a word of each lane.
DEVICE void load_queries(const PairBlock &block) {
    const Layer &layer = block.call.layer;
    const Scratch &scratch = block.call.scratch;
    for (int i = thread_index(); i < (layer.stride + CHANNELS - 1) / CHANNELS * 128; i += threads()) {
        int lane = i % 32, plane = i / 32 % 2, half = i / 64 % 2, byte = i / 128 * CHANNELS + lane % 4 * 16 + half * 8;
        const i8 *from = plane ? scratch.query_low : scratch.query_high;
        auto word = [&](u32 pair) {
            bool there = pair < block.tile.count && byte < layer.stride;
            return there ? *(const Int2 *)(from + block.shared.slots[pair] * layer.stride + byte) : Int2{};
        };
        Int2 upper = word(lane / 4), lower = word(lane / 4 + 8);
        ((Int4 *)block.queries)[i] = Int4{upper.x, lower.x, upper.y, lower.y};
    }
}

// Products of queries and keys of the sixteen positions of a page: of high bytes, of high and low ones, of low bytes.
DEVICE void multiply_keys(const PairBlock &block, Place place, int (&sums)[2][3][4]) {
    const Layer &layer = block.call.layer;
    int lane = thread_index() % 32;
    for (int run = 0; run * CHANNELS < layer.stride; run++) {
        int byte = run * CHANNELS + lane % 4 * 16;
        Int4 keys[2][2], queries[4];
        UNROLL
        for (int eight = 0; eight < 2; eight++) {
            const i8 *from = keys_high(layer, place) + (i64)(eight * 8 + lane / 4) * layer.stride + byte;
            keys[eight][0] = byte < layer.stride ? *(const Int4 *)from : Int4{};
            keys[eight][1] = byte < layer.stride ? *(const Int4 *)(from + block.plane()) : Int4{};
        }
        UNROLL
        for (int i = 0; i < 4; i++) queries[i] = ((const Int4 *)block.queries)[(run * 4 + i) * 32 + lane];
        UNROLL
        for (int half = 0; half < 2; half++) {
            Int4 h = queries[2 * half], l = queries[2 * half + 1];
            const unsigned high[4] = {(u32)h.x, (u32)h.y, (u32)h.z, (u32)h.w}, low[4] = {(u32)l.x, (u32)l.y, (u32)l.z, (u32)l.w};
            UNROLL
            for (int eight = 0; eight < 2; eight++) {
                Int4 kh = keys[eight][0], kl = keys[eight][1];
                u32 high0 = half ? kh.z : kh.x, high1 = half ? kh.w : kh.y, low0 = half ? kl.z : kl.x, low1 = half ? kl.w : kl.y;
                multiply_tiles(sums[eight][0], high, high0, high1);
                multiply_tiles(sums[eight][1], high, low0, low1);
                multiply_tiles(sums[eight][1], low, high0, high1);
                multiply_tiles(sums[eight][2], low, low0, low1);
            }
        }
    }
}

// Scores of the warp's positions; the lane's largest of both rows.
DEVICE void score_positions(const PairBlock &block, int (&tops)[2]) {
    const Call &call = block.call;
    int lane = thread_index() % 32;
    u32 first[2], end[2];
    int exponents[2];
    UNROLL
    for (int i = 0; i < 2; i++) {
        int row = lane / 4 + 8 * i;
        first[i] = block.shared.first[row];
        end[i] = block.shared.end[row];
        exponents[i] = block.shared.exponents[row] + call.scale.exponent + 16;
        tops[i] = MASKED;
    }
    for (int page = thread_index() / 32 * 2; page < 2 * block.groups(); page += page % 2 ? threads() / 16 - 1 : 1) {
        Place place = block.place(page);
        Int2 of_keys[2];
        UNROLL
        for (int eight = 0; eight < 2; eight++) of_keys[eight] = *(const Int2 *)(key_exponent(call.layer, place) + eight * 8 + lane % 4 * 2);
        int sums[2][3][4] = {};
        multiply_keys(block, place, sums);
        UNROLL
        for (int eight = 0; eight < 2; eight++) {
            int scores[4];
            UNROLL
            for (int c = 0; c < 4; c++) {
                i64 dot = 65536 * (i64)sums[eight][0][c] + 256 * (i64)sums[eight][1][c] + sums[eight][2][c];
                scores[c] = rescale_down(dot, call.scale.mantissa, exponents[c / 2] + (c % 2 ? of_keys[eight].y : of_keys[eight].x));
                u32 position = block.tile.start + page * PAGE + eight * 8 + lane % 4 * 2 + c % 2;
                // Without a branch around what is not far from done.
                int hidden = -(int)((position < first[c / 2]) | (position >= end[c / 2]));
                scores[c] = (scores[c] & ~hidden) | (MASKED & hidden);
                tops[c / 2] = tops[c / 2] > scores[c] ? tops[c / 2] : scores[c];
            }
            block.at(page, eight) = Int4{scores[0], scores[1], scores[2], scores[3]};
        }
    }
}

// Bounds the scores of the warp's positions, and their maxima.
DEVICE void cap_positions(const PairBlock &block, int (&tops)[2]) {
    auto capped = [&](int score) { return score == MASKED ? MASKED : soft_capped(block.call.tables, block.call.cap, score); };
    for (int page = thread_index() / 32 * 2; page < 2 * block.groups(); page += page % 2 ? threads() / 16 - 1 : 1) {
        ROLL
        for (int i = 0; i < 8; i++) {
            int &score = ((int *)&block.at(page, i / 4))[i % 4];
            score = capped(score);
        }
    }
    // The bound does not change the order.
    UNROLL
    for (int i = 0; i < 2; i++) tops[i] = capped(tops[i]);
}

// Maxima of values at the lane's two positions of each eight of a page.
DEVICE void maxima_of_values(const PairBlock &block, int page, u32 (&maxima)[2][2]) {
    const u32 *from = value_maximum(block.call.layer, block.place(page)) + thread_index() % 4 * 2;
    UNROLL
    for (int eight = 0; eight < 2; eight++) {
        Int2 two = *(const Int2 *)(from + 8 * eight);
        maxima[eight][0] = two.x;
        maxima[eight][1] = two.y;
    }
}

// Weights of the warp's positions; the lane's sums of them and largest products with maxima of values.
DEVICE void weigh_positions(const PairBlock &block, const int (&tops)[2], u64 (&weight_sums)[2], u64 (&product_maxima)[2]) {
    for (int page = thread_index() / 32 * 2; page < 2 * block.groups(); page += page % 2 ? threads() / 16 - 1 : 1) {
        u32 maxima[2][2];
        maxima_of_values(block, page, maxima);
        UNROLL
        for (int eight = 0; eight < 2; eight++) {
            Int4 scores = block.at(page, eight);
            const int score[4] = {scores.x, scores.y, scores.z, scores.w};
            u32 weights[4];
            UNROLL
            for (int c = 0; c < 4; c++) {
                weights[c] = score[c] == MASKED ? 0 : power(block.shared.exp2, (u32)tops[c / 2] - (u32)score[c]);
                weight_sums[c / 2] += weights[c];
                product_maxima[c / 2] = MaxOf::of(product_maxima[c / 2], (u64)weights[c] * maxima[eight][c % 2]);
            }
            block.at(page, eight) = Int4{(int)weights[0], (int)weights[1], (int)weights[2], (int)weights[3]};
        }
    }
}

// The factors of the warp's positions, in bytes: a word of each lane has the high ones of both rows, then the low ones.
DEVICE void factor_positions(const PairBlock &block, const int (&shifts)[2]) {
    const Quantise quantised[2] = {shifts[0], shifts[1]};
    for (int page = thread_index() / 32 * 2; page < 2 * block.groups(); page += page % 2 ? threads() / 16 - 1 : 1) {
        u32 maxima[2][2], factors[2][4], high[2], low[2];
        maxima_of_values(block, page, maxima);
        UNROLL
        for (int eight = 0; eight < 2; eight++) {
            Int4 weights = block.at(page, eight);
            const u32 weight[4] = {(u32)weights.x, (u32)weights.y, (u32)weights.z, (u32)weights.w};
            UNROLL
            for (int c = 0; c < 4; c++)
                factors[c / 2][eight * 2 + c % 2] = (u32)quantised[c / 2]((i64)((u64)weight[c] * maxima[eight][c % 2]));
        }
        UNROLL
        for (int i = 0; i < 2; i++) split_bytes(factors[i], high[i], low[i]);
        block.at(page, 0) = Int4{(int)high[0], (int)high[1], (int)low[0], (int)low[1]};
    }
}

// Where the sums of eight channels of a row are: neighbouring rows in different banks.
DEVICE int sums_at(int row, int eight) { return row * CHANNELS + 8 * (eight ^ (row & 7)); }

// Adds the products of factors and 64 channels of values of the warp's positions to the block's sums, of high and of low bytes.
DEVICE void multiply_values(const PairBlock &block, int first_channel) {
    const Layer &layer = block.call.layer;
    int lane = thread_index() % 32, byte = first_channel + lane / 4 * 8;
    int high[8][4] = {}, low[8][4] = {};
    for (int group = thread_index() / 32; group < block.groups(); group += threads() / 32) {
        Int2 values[4][2];
        UNROLL
        for (int half = 0; half < 2; half++) {
            const i8 *from = values_of(layer, block.place(2 * group + half)) + (i64)(lane % 4 * 2) * layer.stride + byte;
            UNROLL
            for (int i = 0; i < 4; i++)
                values[2 * half + i / 2][i % 2] = byte < layer.stride ? *(const Int2 *)(from + (i64)(i / 2 * 8 + i % 2) * layer.stride) : Int2{};
        }
        Int4 first = block.at(2 * group, 0), second = block.at(2 * group + 1, 0);
        const unsigned a_high[4] = {(u32)first.x, (u32)first.y, (u32)second.x, (u32)second.y};
        const unsigned a_low[4] = {(u32)first.z, (u32)first.w, (u32)second.z, (u32)second.w};
        UNROLL
        for (int four = 0; four < 2; four++) {
            auto word = [&](int eight, int i) { return (u32)(four ? values[eight][i].y : values[eight][i].x); };
            u32 upper[4], lower[4];
            transpose(upper, word(0, 0), word(0, 1), word(1, 0), word(1, 1));
            transpose(lower, word(2, 0), word(2, 1), word(3, 0), word(3, 1));
            UNROLL
            for (int i = 0; i < 4; i++) {
                multiply_tiles(high[4 * four + i], a_high, upper[i], lower[i]);
                multiply_tiles(low[4 * four + i], a_low, upper[i], lower[i]);
            }
        }
    }
    // A column is eight channels from the next one; eight rows further on it is the same bank.
    int *sums = (int *)block.queries;
    UNROLL
    for (int c = 0; c < 4; c++) {
        int *at = sums + sums_at(lane / 4, lane % 4 * 2 + c % 2) + c / 2 * 8 * CHANNELS;
        UNROLL
        for (int i = 0; i < 8; i++) {
            atomic_add(at + i, high[i][c]);
            atomic_add(at + PAIRS * CHANNELS + i, low[i][c]);
        }
    }
}

// Blocks `(tile, key-value head)` of whole warps. Scores are in the block's memory if there are none of the launch. The ends of heads are
// left as by `attention_near`.
THREADS(PAIR_THREADS, 2)
KERNEL(attention_tiles, Call call, const PairTile *tiles, u64 *maxima, Int4 *scores, i64 words) {
    SHARED_BYTES(memory);
    SHARED(PairShared, shared);
    const Layer &layer = call.layer;
    int lane = thread_index() % 32, warp = thread_index() / 32, warps = threads() / 32, kv_head = block_y();
    u32 thread = thread_index(), group = layer.heads / layer.kv_heads;
    PairTile tile = tiles[block_x()];
    Int4 *own = scores ? scores + (block_y() * grid_x() + block_x()) * words : (Int4 *)(memory + 8 * PAIRS * CHANNELS);
    PairBlock block{call, shared, tile, kv_head, call.rows[tile.first / group].first_page, memory, own};
    for (u32 i = thread; i < 256; i += threads()) {
        u32 entry = call.tables->exp2[i];
        shared.exp2[i] = Int2{(int)entry, (int)(entry - call.tables->exp2[i + 1])};
    }
    if (thread < PAIRS) {
        u32 pair = tile.first + (thread < tile.count ? thread : 0), row = pair / group;
        Seen range = seen(layer, call.rows[row]);
        i64 slot = (i64)row * layer.heads + kv_head * group + pair % group;
        // A pair too many sees nothing.
        shared.first[thread] = range.first;
        shared.end[thread] = thread < tile.count ? range.end : 0;
        shared.exponents[thread] = call.scratch.query_exponents[slot];
        shared.slots[thread] = slot;
    }
    block_barrier();
    load_queries(block);
    block_barrier();

    int tops[2];
    score_positions(block, tops);
    if (call.cap.cap) cap_positions(block, tops);
    UNROLL
    for (int i = 0; i < 2; i++) {
        u64 top = over_quad<MaxOf>(ordered(tops[i]));
        if (lane % 4 == 0) shared.maxima[warp][lane / 4 + 8 * i] = top;
    }
    block_barrier();
    // Queries are done with: their place is the sums'.
    ROLL
    for (u32 i = thread; i < 2 * PAIRS * CHANNELS; i += threads()) ((int *)memory)[i] = 0;
    UNROLL
    for (int i = 0; i < 2; i++) {
        u64 top = 0;
        ROLL
        for (int w = 0; w < warps; w++) top = MaxOf::of(top, shared.maxima[w][lane / 4 + 8 * i]);
        tops[i] = score_of_order(top);
    }
    block_barrier();

    u64 weight_sums[2] = {}, product_maxima[2] = {};
    weigh_positions(block, tops, weight_sums, product_maxima);
    UNROLL
    for (int i = 0; i < 2; i++) {
        u64 sum = over_quad<SumOf>(weight_sums[i]), max = over_quad<MaxOf>(product_maxima[i]);
        if (lane % 4 != 0) continue;
        shared.weight_sums[warp][lane / 4 + 8 * i] = sum;
        shared.maxima[warp][lane / 4 + 8 * i] = max;
    }
    block_barrier();
    int shifts[2];
    UNROLL
    for (int i = 0; i < 2; i++) {
        u64 max = 0;
        ROLL
        for (int w = 0; w < warps; w++) max = MaxOf::of(max, shared.maxima[w][lane / 4 + 8 * i]);
        shifts[i] = activation_shift(max);
    }
    factor_positions(block, shifts);
    // As many threads as there are end a pair.
    u32 each = threads() / PAIRS, pair = thread / each;
    bool there = pair < tile.count;
    u64 max = 0, sum = 0;
    ROLL
    for (int w = 0; w < warps; w++) {
        max = MaxOf::of(max, shared.maxima[w][pair]);
        sum += shared.weight_sums[w][pair];
    }
    Scale scale = there ? normaliser(sum) : Scale{};
    int exponent = scale.exponent + activation_shift(max), *sums = (int *)memory;
    u64 largest = 0;
    for (int first = 0; first < layer.head_dim; first += CHANNELS) {
        multiply_values(block, first);
        block_barrier();
        ROLL
        for (int i = thread % each; i < CHANNELS; i += each) {
            int &high = sums[sums_at(pair, i / 8) + i % 8], &low = (&high)[PAIRS * CHANNELS];
            int value = rescale(256 * (i64)high + low, scale.mantissa, exponent);
            high = low = 0;
            if (!there || first + i >= layer.head_dim) continue;
            call.scratch.sums[shared.slots[pair] * layer.head_dim + first + i] = (u64)(i64)value;
            largest = MaxOf::of(largest, magnitude(value));
        }
        block_barrier();
    }
    for (u32 lanes = each / 2; lanes > 0; lanes /= 2) largest = MaxOf::of(largest, quad(largest, lanes));
    if (there && thread % each == 0) maxima[shared.slots[pair]] = largest;
}
