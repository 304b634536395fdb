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

struct Selection {
    u64 sums[256];
    u64 group_sums[32];
    u32 counts[1024];
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

// The first candidate of those that a cut keeps up to which they weigh (or count) more than `target`. All of them do.
DEVICE Found find(Selection &shared, const u32 *weights, u32 width, Cut within, u64 target, bool counted) {
    u32 prefix = 0;
    u64 all = target;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (u32 i = thread_index(); i < 256; i += threads()) shared.sums[i] = 0;
        block_barrier();
        for (u32 i = thread_index(); i < width; i += threads()) {
            u32 w = weights[i];
            if (w > 0 && (shift == 24 || w >> (shift + 8) == prefix) && within.keeps(w, i))
                atomic_add(shared.sums + (w >> shift & 255), (u64)(counted ? 1 : w));
        }
        block_barrier();
        if (thread_index() < 16) {
            u64 sum = 0;
            for (u32 i = 0; i < 16; i++) sum += shared.sums[16 * thread_index() + i];
            shared.group_sums[thread_index()] = sum;
        }
        block_barrier();
        if (thread_index() == 0) {
            u32 group = 15, digit = 15;
            while (group > 0 && target >= shared.group_sums[group]) target -= shared.group_sums[group--];
            while (digit > 0 && target >= shared.sums[16 * group + digit]) target -= shared.sums[16 * group + digit--];
            shared.digit = 16 * group + digit;
            shared.target = target;
        }
        block_barrier();
        prefix = prefix << 8 | shared.digit;
        target = shared.target;
        block_barrier();
    }
    // Of the candidates with this weight, which all weigh the same, so many come first.
    u64 before = all - target;
    u64 rank = counted ? target : target / prefix;
    u32 share = (width + threads() - 1) / threads();
    u32 first = thread_index() * share, end = first + share < width ? first + share : width, own = 0;
    for (u32 i = first; i < end; i++) own += weights[i] == prefix && within.keeps(prefix, i);
    shared.counts[thread_index()] = own;
    block_barrier();
    if (thread_index() < threads() / 32) {
        u64 sum = 0;
        for (u32 i = 0; i < 32; i++) sum += shared.counts[32 * thread_index() + i];
        shared.group_sums[thread_index()] = sum;
    }
    block_barrier();
    u64 ahead = 0;
    for (u32 i = 0; i < thread_index() / 32; i++) ahead += shared.group_sums[i];
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
    for (u32 i = thread_index(); i < width; i += threads()) sum += weights[i] > 0 && cut.keeps(weights[i], i) ? weights[i] : 0;
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
    for (u32 i = thread_index(); i < width; i += threads())
        if (allowed(i)) best = MaxOf::of(best, (u64)((u32)logits[i] ^ 0x80000000u) << 32 | (NO_TOKEN - i));
    best = block_reduce<MaxOf>(reduction, best);
    if (best == 0 || request.inverse == 0) {
        if (thread_index() == 0) out[block_x()] = best == 0 ? NO_TOKEN : NO_TOKEN - (u32)best;
        return;
    }
    i64 max = (int)((u32)(best >> 32) ^ 0x80000000u);
    u64 whole = request.inverse >> 32, fraction = request.inverse & 0xffffffffu;
    u32 candidates = 0;
    for (u32 i = thread_index(); i < width; i += threads()) {
        // `delta * inverse`, rounded from Q48 to Q16, in two parts.
        u64 delta = (u64)(max - logits[i]);
        u64 scaled = delta * whole + ((delta * fraction + (1ull << 31)) >> 32);
        weights[i] = allowed(i) ? exp2_neg(tables, scaled) : 0;
        candidates += weights[i] > 0;
    }
    candidates = (u32)block_reduce<SumOf>(reduction, candidates);
    Cut cut{0, NO_TOKEN};
    if (request.top_k > 0 && request.top_k < candidates)
        cut = find(selection, weights, width, cut, request.top_k - 1, true).cut;
    u64 kept = kept_weight(reduction, weights, width, cut);
    if (request.top_p < 1 << 16) {
        u64 nucleus = (kept >> 16) * request.top_p + (((kept & 0xffff) * request.top_p + 0xffff) >> 16);
        Found found = find(selection, weights, width, cut, nucleus - 1, false);
        cut = found.cut;
        kept = found.weight;
    }
    u32 token = find(selection, weights, width, cut, multiply_high(request.random, kept), false).cut.token;
    if (thread_index() == 0) out[block_x()] = token;
}
