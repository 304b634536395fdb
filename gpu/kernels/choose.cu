// Choosing a token from a row of logits: greedy, or drawn as `docs/numerics.md` defines it, by counting instead of sorting.

struct Request {
    // `log2(e) / temperature`, Q32; zero is greedy.
    u64 inverse;
    u64 random;
    // The words of the tokens that are allowed, or none.
    const u64 *mask;
    u32 row, top_p, top_k, unused;
};

const u32 NO_TOKEN = 0xffffffff;
// Bits of a part of a sum: so many that the parts of 2^20 summands fit 32 bits, whose sums a block's memory makes by itself.
const int PART_BITS = 11, PARTS = 4, DIGITS = 256;

struct Selection {
    u32 sums[PARTS][DIGITS];
    // The first token with each last digit, from the largest number down.
    int first[DIGITS];
    u32 counts[1024], warp_counts[32];
    u64 target;
    u32 digit, token;
};

// The first candidates in the order of descending weights and ascending tokens, up to and including one.
struct Cut {
    u32 weight, token;
    DEVICE bool keeps(u32 w, u32 t) const { return w > weight || (w == weight && t <= token); }
};

struct Found {
    Cut cut;
    // What all that the cut keeps weigh; of a search by weight.
    u64 weight;
};

const int LARGEST = 0x7fffffff;

DEVICE void add_to_digit(Selection &shared, u32 digit, u64 amount) {
    UNROLL
    for (int i = 0; i < PARTS; i++) {
        u32 part = (u32)(amount >> PART_BITS * i) & (i + 1 < PARTS ? (1 << PART_BITS) - 1 : ~0u);
        if (part != 0) atomic_add(&shared.sums[i][digit], part);
    }
}

DEVICE u64 sum_of_digit(const Selection &shared, u32 digit) {
    u64 sum = 0;
    UNROLL
    for (int i = 0; i < PARTS; i++) sum += (u64)shared.sums[i][digit] << PART_BITS * i;
    return sum;
}

// The largest digit such that all larger ones sum up to at most `target`, by the block's first warp; what is left of the target.
DEVICE void find_digit(Selection &shared, u64 target) {
    const int each = DIGITS / 32;
    u32 lane = thread_index(), top = DIGITS - 1 - each * lane;
    u64 own = 0, larger = 0;
    for (int i = 0; i < each; i++) own += sum_of_digit(shared, top - i);
    u64 all = own;
    UNROLL
    for (u32 lanes = 1; lanes < 32; lanes *= 2) {
        u64 other = (u64)shuffle_xor((u32)(all >> 32), lanes) << 32 | shuffle_xor((u32)all, lanes);
        if (lane & lanes) larger += other;
        all += other;
    }
    if (target < larger || target - larger >= own) return;
    target -= larger;
    u32 digit = top;
    for (u64 sum; target >= (sum = sum_of_digit(shared, digit)); digit--) target -= sum;
    shared.digit = digit;
    shared.target = target;
}

// The first candidate of those that a cut keeps up to which they weigh (or count) more than `target`. All of them do.
DEVICE Found find(Selection &shared, const u32 *weights, u32 width, Cut within, u64 target, bool counted) {
    u32 prefix = 0;
    u64 all = target;
    auto load = [&](u32 i) { return weights[i]; };
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (u32 i = thread_index(); i < DIGITS; i += threads()) {
            UNROLL
            for (int j = 0; j < PARTS; j++) shared.sums[j][i] = 0;
            shared.first[i] = -1;
        }
        block_barrier();
        // Neighbours often have one digit, zero above all: what has been summed up is added when another digit comes.
        u32 digit = 0;
        u64 sum = 0;
        at_once<8>(width, load, [&](u32 i, u32 w) {
            if (w == 0 || (shift < 24 && w >> (shift + 8) != prefix) || !within.keeps(w, i)) return;
            u32 own = w >> shift & (DIGITS - 1);
            if (own != digit && sum != 0) {
                add_to_digit(shared, digit, sum);
                sum = 0;
            }
            digit = own;
            sum += counted ? 1 : w;
            if (shift == 0) atomic_max(shared.first + own, LARGEST - (int)i);
        });
        u64 zeros = SumOf::over_warp(digit == 0 ? sum : 0);
        if (thread_index() % 32 == 0 && zeros != 0) add_to_digit(shared, 0, zeros);
        if (digit != 0) add_to_digit(shared, digit, sum);
        block_barrier();
        if (thread_index() < 32) find_digit(shared, target);
        block_barrier();
        prefix = prefix << 8 | shared.digit;
        target = shared.target;
        block_barrier();
    }
    // Of the candidates with this weight, which all weigh the same, so many come first.
    u64 before = all - target;
    u64 rank = counted ? target : target / prefix;
    if (rank == 0) {
        u32 token = (u32)(LARGEST - shared.first[prefix & (DIGITS - 1)]);
        block_barrier();
        return Found{Cut{prefix, token}, before + prefix};
    }
    u32 share = (width + threads() - 1) / threads();
    u32 first = thread_index() * share, end = first + share < width ? first + share : width, own = 0;
    for (u32 i = first; i < end; i++) own += weights[i] == prefix && within.keeps(prefix, i);
    shared.counts[thread_index()] = own;
    u32 of_warp = warp_sum(own);
    if (thread_index() % 32 == 0) shared.warp_counts[thread_index() / 32] = of_warp;
    block_barrier();
    u64 ahead = 0;
    for (u32 i = 0; i < thread_index() / 32; i++) ahead += shared.warp_counts[i];
    for (u32 i = thread_index() / 32 * 32; i < thread_index(); i++) ahead += shared.counts[i];
    if (ahead <= rank && rank < ahead + own) {
        u32 i = first;
        for (u64 left = rank - ahead;; i++) {
            if (weights[i] == prefix && within.keeps(prefix, i) && left-- == 0) break;
        }
        shared.token = i;
    }
    block_barrier();
    u32 token = shared.token;
    block_barrier();
    return Found{Cut{prefix, token}, before + (rank + 1) * prefix};
}

DEVICE u64 kept_weight(Reduction &shared, const u32 *weights, u32 width, Cut cut) {
    u64 sum = 0;
    at_once<8>(width, [&](u32 i) { return weights[i]; }, [&](u32 i, u32 w) { sum += w > 0 && cut.keeps(w, i) ? w : 0; });
    return block_reduce<SumOf>(shared, sum);
}

// A block for each request. Whole warps, at most 1,024 threads.
THREADS(1024, 1)
KERNEL(choose, const int *logits, u32 width, const Request *requests, u32 *weights, const Tables *tables, u32 *out) {
    SHARED(Parts, parts);
    Reduction reduction{parts};
    SHARED(Selection, selection);
    Request request = requests[block_x()];
    logits += (i64)request.row * width;
    weights += (i64)block_x() * width;
    auto allowed = [&](u32 i) { return request.mask == nullptr || (request.mask[i / 64] >> i % 64 & 1) == 1; };
    // The largest logit, the lowest token of equals.
    u64 best = 0;
    auto load = [&](u32 i) { return logits[i]; };
    at_once<8>(width, load, [&](u32 i, int logit) {
        if (allowed(i)) best = MaxOf::of(best, (u64)((u32)logit ^ 0x80000000u) << 32 | (NO_TOKEN - i));
    });
    best = block_reduce<MaxOf>(reduction, best);
    if (best == 0 || request.inverse == 0) {
        if (thread_index() == 0) out[block_x()] = best == 0 ? NO_TOKEN : NO_TOKEN - (u32)best;
        return;
    }
    i64 max = (int)((u32)(best >> 32) ^ 0x80000000u);
    u64 whole = request.inverse >> 32, fraction = request.inverse & 0xffffffffu;
    u32 candidates = 0;
    at_once<4>(width, load, [&](u32 i, int logit) {
        // `delta * inverse`, rounded from Q48 to Q16, in two parts.
        u64 delta = (u64)(max - logit);
        u64 scaled = delta * whole + ((delta * fraction + (1ull << 31)) >> 32);
        u32 weight = allowed(i) ? exp2_neg(tables, scaled) : 0;
        weights[i] = weight;
        candidates += weight > 0;
    });
    candidates = (u32)block_reduce<SumOf>(reduction, candidates);
    // The first of them, then the nucleus, then what is drawn from it: three searches by one code.
    Cut cut{0, NO_TOKEN};
    u64 kept = 0;
    ROLL
    for (int search = 0; search < 3; search++) {
        u64 target;
        if (search == 0) {
            if (request.top_k == 0 || request.top_k >= candidates) continue;
            target = request.top_k - 1;
        } else if (search == 1) {
            kept = kept_weight(reduction, weights, width, cut);
            if (request.top_p >= 1 << 16) continue;
            target = (kept >> 16) * request.top_p + (((kept & 0xffff) * request.top_p + 0xffff) >> 16) - 1;
        } else {
            target = multiply_high(request.random, kept);
        }
        Found found = find(selection, weights, width, cut, target, search == 0);
        cut = found.cut;
        if (search == 1) kept = found.weight;
    }
    if (thread_index() == 0) out[block_x()] = cut.token;
}
