"""Integer arithmetic of docs/numerics.md: sections 2, 3, 4, 7 and 8.

Everything is a Python integer; a "format" Qn in a comment says that x stands for x * 2^-n.
Names are those of the text, so each function can be held next to its paragraph.
"""

from functools import lru_cache

# --- 2. Rounding -----------------------------------------------------------------------------

LIMIT = 2**31 - 1


def bits(x):
    """Number of binary digits of x >= 0; bits(0) = 0."""
    if x < 0:
        raise ValueError("bits of a negative number")
    return x.bit_length()


def round_shift(x, s):
    """x / 2^s to nearest, ties toward plus infinity (Python's >> is a floor)."""
    if s < 0:
        raise ValueError("round_shift by a negative number of bits")
    return (x + (1 << (s - 1))) >> s if s else x


def shift_by(x, s):
    """round_shift for s >= 0, an exact left shift for s < 0."""
    return round_shift(x, s) if s >= 0 else x << -s


def round_div(n, d):
    """n / d to nearest, ties toward plus infinity."""
    if d < 1:
        raise ValueError("round_div by a number below one")
    return (2 * n + d) // (2 * d)


def saturate(x):
    """Clamp to -(2^31 - 1) .. 2^31 - 1."""
    return min(max(x, -LIMIT), LIMIT)


def rescale(acc, m, t):
    """acc * m * 2^t, rounded and saturated."""
    return saturate(shift_by(acc * m, -t))


def normal(m, e):
    """Bring a mantissa that rounding pushed up to 2^23 back below it."""
    return (m, e) if m < 2**23 else (m // 2, e + 1)


def scale_from(v, e):
    """The scale (mantissa, exponent) nearest to v * 2^e, v >= 1."""
    if v < 1:
        raise ValueError("scale_from of a number below one")
    b = bits(v)
    if b <= 23:
        return v << (23 - b), e - (23 - b)
    return normal((v + (1 << (b - 24))) >> (b - 23), e + b - 23)


def reciprocal(d):
    """The scale (mantissa, exponent) nearest to 1 / d, d >= 1."""
    b = bits(d)
    return normal(round_div(1 << (b + 22), d), -(b + 22))


def product(a, b):
    """The scale nearest to the product of two."""
    (m, e), (n, f) = a, b
    return scale_from(m * n, e + f)


# --- 3. Tables and elementary functions ------------------------------------------------------

LN2_Q62 = 3196577161300663914
LOG2E_Q62 = 6653256548922161245
HALF_PI_Q62 = 7244019458077122842
TURN_Q62 = 733972625820500306
INV_SQRT_TAU_Q62 = 1839796536686825613
LOG2E_Q32 = 6196328019
LN2_Q32 = 2977044472

ONE_Q30 = 2**30
ONE_Q62 = 2**62


def mul62(a, b):
    """Product of two Q62 numbers, floored."""
    return (a * b) >> 62


def exp2_neg_q62(x):
    """2^-x for x in Q62, 0 <= x < 1; result Q62."""
    y = mul62(x, LN2_Q62)
    term = result = ONE_Q62
    for k in range(1, 21):
        term = mul62(term, y) // k
        result += -term if k % 2 else term
    return result


EXP2 = tuple(round_shift(exp2_neg_q62(i << 54), 32) for i in range(256)) + (2**29,)


def exp2_neg(delta):
    """2^-delta for delta >= 0 in Q16; result Q30."""
    n = delta >> 16
    if n > 31:
        return 0
    i = (delta >> 8) & 255
    r = delta & 255
    value = EXP2[i] - round_shift((EXP2[i] - EXP2[i + 1]) * r, 8)
    return round_shift(value, n)


def _sigmoid_table():
    table = [0] * 2049
    for i in range(1025):
        log = i * LOG2E_Q62 // 64
        e = exp2_neg_q62(log % ONE_Q62) >> (log >> 62)
        table[1024 + i] = round_div(2**92, ONE_Q62 + e)
        table[1024 - i] = ONE_Q30 - table[1024 + i]
    return tuple(table)


SIGMOID = _sigmoid_table()


def sigmoid(x):
    """1 / (1 + e^-x) for x in Q16; result Q30."""
    offset = x + 16 * 2**16
    if offset < 0:
        return 0
    i = offset >> 10
    r = offset & 1023
    if i >= 2048:
        return ONE_Q30
    return SIGMOID[i] + round_shift((SIGMOID[i + 1] - SIGMOID[i]) * r, 10)


def _normal_table():
    table = [0] * 2049
    for i in range(1025):
        term = total = i << 49  # Q56
        k = 3
        while term > 0:
            term = term * i * i // (k << 14)
            total += term
            k += 2
        log = i * i * LOG2E_Q62 >> 15
        d = mul62(exp2_neg_q62(log % ONE_Q62), INV_SQRT_TAU_Q62)
        n = log >> 62
        r = max(0, bits(total) - 64)
        above = round_shift((total >> r) * d, 88 + n - r)
        table[1024 + i] = 2**29 + above
        table[1024 - i] = 2**29 - above
    return tuple(table)


NORMAL = _normal_table()


def normal_cdf(x):
    """The normal distribution function for x in Q16; result Q30."""
    offset = x + 8 * 2**16
    if offset < 0:
        return 0
    i = offset >> 9
    r = offset & 511
    if i >= 2048:
        return ONE_Q30
    return NORMAL[i] + round_shift((NORMAL[i + 1] - NORMAL[i]) * r, 9)


def cap(x, c):
    """c * tanh(x / c), the soft cap of x by c >= 1, both in Q16."""
    m, e = reciprocal(c)
    return round_shift(c * (2 * sigmoid(rescale(x, m, e + 17)) - ONE_Q30), 30)


def log2_cap(c):
    """A soft cap for natural units as one for log2 units."""
    return round_shift(c * LOG2E_Q32, 32)


@lru_cache(maxsize=1 << 16)
def cos_sin(turns):
    """Cosine and sine (Q30) of an angle in turns (Q64, modulo one turn)."""
    turns %= 2**64
    q = turns >> 62
    x = mul62(turns % ONE_Q62, HALF_PI_Q62)
    z = mul62(x, x)
    c = c_term = ONE_Q62
    s = s_term = x
    for k in range(1, 13):
        c_term = mul62(c_term, z) // ((2 * k - 1) * (2 * k))
        c += -c_term if k % 2 else c_term
        s_term = mul62(s_term, z) // ((2 * k) * (2 * k + 1))
        s += -s_term if k % 2 else s_term
    c = round_shift(c, 32)
    s = round_shift(s, 32)
    return ((c, s), (-s, c), (-c, -s), (s, -c))[q]


def log2_by_squaring(x, steps):
    """floor-ish log2(x), x >= 1, with `steps` fractional bits, one squaring for each bit."""
    w = bits(x) - 1
    m = (x << 62) >> w
    log = w
    for _ in range(steps):
        m = (m * m) >> 62
        bit = 1 if m >= 2**63 else 0
        m >>= bit
        log = 2 * log + bit
    return log


def log2_q32(x):
    """log2(x) for an integer x >= 1; result Q32."""
    return log2_by_squaring(x, 32)


# --- 4. Quantising activations ---------------------------------------------------------------

ACTIVATION_LIMIT = 32512


def activation_shift(maximum):
    """The shift that brings a row whose largest magnitude is `maximum` to |a| <= 32512."""
    if maximum == 0:
        return 0
    s = bits(maximum) - 15
    return s + 1 if shift_by(maximum, s) > ACTIVATION_LIMIT else s


def quantise(x, f):
    """A row in Qf as (integers of 16 bits, exponent): a * 2^exponent."""
    s = activation_shift(max(map(abs, x)))
    if s > 0:
        half = 1 << (s - 1)
        return [(v + half) >> s for v in x], s - f
    return [v << -s for v in x], s - f


# --- 7. Choosing a token ---------------------------------------------------------------------

MASK32 = 2**32 - 1


def random(seed, position):
    """Philox4x32-10 of (seed, position): 64 random bits."""
    c0, c1, c2, c3 = position & MASK32, position >> 32, 0, 0
    k0, k1 = seed & MASK32, seed >> 32
    for _ in range(10):
        a = 0xD2511F53 * c0
        b = 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & MASK32, (a >> 32) ^ c3 ^ k1, a & MASK32
        k0 = (k0 + 0x9E3779B9) & MASK32
        k1 = (k1 + 0xBB67AE85) & MASK32
    return c0 + (c1 << 32)


def greedy(logits):
    """The largest logit, the lowest id among equals."""
    return logits.index(max(logits))


def sample(logits, position, temperature_q16, top_p_q16, top_k, seed, allowed=None):
    """The token chosen for `position`, of the `allowed` ids if there is a mask; temperature 0 is greedy."""
    if allowed is not None:
        ids = sorted(allowed)
        settings = (temperature_q16, top_p_q16, top_k, seed)
        return ids[sample([logits[token] for token in ids], position, *settings)]
    if temperature_q16 == 0:
        return greedy(logits)
    inv = round_div(LOG2E_Q32 * 2**16, temperature_q16)
    top = max(logits)
    candidates = []
    for token, logit in enumerate(logits):
        w = exp2_neg(round_shift((top - logit) * inv, 32))
        if w:
            candidates.append((-w, token))
    candidates.sort()
    if top_k > 0:
        candidates = candidates[:top_k]
    total = -sum(w for w, _ in candidates)
    kept = 0
    prefix = []
    for w, token in candidates:
        kept -= w
        prefix.append((kept, token))
        if kept * 2**16 >= total * top_p_q16:
            break
    r = random(seed, position) * kept >> 64
    for running, token in prefix:
        if running > r:
            return token
    raise AssertionError("r is below kept, so some token was returned")


# --- 8. Log-probabilities --------------------------------------------------------------------


def log_sum_exp(logits):
    """What log_probability subtracts from every logit, Q16."""
    top = max(logits)
    total = sum(exp2_neg(round_shift((top - v) * LOG2E_Q32, 32)) for v in logits)
    return top + round_shift((log2_q32(total) - 30 * 2**32) * LN2_Q32, 48)


def log_probability(logits, target):
    """Natural logarithm of the softmax at `target`, Q16."""
    return logits[target] - log_sum_exp(logits)
