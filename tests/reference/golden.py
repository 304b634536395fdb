"""Golden vectors (docs/numerics.md, section 10): a parser, and a runner that recomputes every `out` line.

    python3 tests/reference/golden.py kernels/golden
"""

import os
import sys

import checkpoint
import kernels
import numerics
from graph import split


class Difference(Exception):
    """The first `out` line that the recomputation does not reproduce."""


# --- the file format -------------------------------------------------------------------------


def parse(text):
    """The cases of a file: a list of (case name, {line name: [integers]})."""
    cases = []
    name, values = None, {}
    for number, line in enumerate(text.splitlines() + [""], 1):
        words = line.split()
        if words and words[0].startswith("#"):
            continue
        if not words:
            if name is not None or values:
                cases.append((name, values))
            name, values = None, {}
        elif words[0] == "case":
            if name is not None or values:
                raise ValueError("line %d: `case` inside a case" % number)
            name = " ".join(words[1:])
        elif words[0] in values:
            raise ValueError("line %d: `%s` twice in a case" % (number, words[0]))
        else:
            values[words[0]] = list(map(int, words[1:]))
    return cases


def one(values, name):
    """The only value of a line."""
    (value,) = values[name]
    return value


# --- one recomputation per file: inputs -> {name of the out line: integers} --------------------


def tables(v):
    cos_sin = [numerics.cos_sin(turns) for turns in v["turns"]]
    return {
        "out_exp2": [numerics.exp2_neg(delta) for delta in v["exp2_delta"]],
        "out_sigmoid": [numerics.sigmoid(x) for x in v["sigmoid_x"]],
        "out_cos": [c for c, _ in cos_sin],
        "out_sin": [s for _, s in cos_sin],
        "out_log2": [numerics.log2_q32(x) for x in v["log2_x"]],
    }


def quantised(result):
    row, exponent = result
    return {"out_exponent": [exponent], "out": row}


def quantise(v):
    return quantised(numerics.quantise(v["x"], one(v, "bits")))


def embed(v):
    factor = tuple(v.get("factor", kernels.ONE))
    return {"out": kernels.embed(v["weights"], (one(v, "mantissa"), one(v, "exponent")), factor)}


def grouped_embed(v):
    factor = tuple(v.get("factor", kernels.ONE))
    scale = (one(v, "mantissa"), one(v, "exponent"))
    return {"out": kernels.embed(v["weights"], scale, factor, v["multipliers"])}


def rmsnorm(v):
    return quantised(kernels.rmsnorm(v["x"], v["gains"], one(v, "epsilon")))


def layernorm(v):
    return quantised(kernels.layernorm(v["x"], v["gains"], v["biases"], one(v, "epsilon")))


def normalise(v):
    runs = split(v["x"], len(v["gains"]))
    rows = [kernels.normalise(x, v["gains"], v.get("biases"), one(v, "epsilon")) for x in runs]
    return {"out": sum(rows, [])}


def linear(v):
    rows = split(v["weights"], one(v, "inputs"))
    scales = list(zip(v["mantissas"], v["exponents"]))
    if not len(rows) == len(scales) == len(v["exponents"]) or len(rows[-1]) != len(v["activations"]):
        raise ValueError("shapes of a linear case do not agree")
    return {"out": kernels.linear(v["activations"], one(v, "exponent"), rows, scales)}


def grouped_linear(v):
    inputs = one(v, "inputs")
    rows, groups = split(v["weights"], inputs), split(v["multipliers"], -(-inputs // kernels.GROUP))
    scales = list(zip(v["mantissas"], v["exponents"]))
    if not len(rows) == len(scales) == len(groups) or len(rows[-1]) != len(v["activations"]):
        raise ValueError("shapes of a linear case do not agree")
    return {"out": kernels.linear(v["activations"], one(v, "exponent"), rows, scales, groups)}


def bias(v):
    return {"out": kernels.bias(v["x"], v["bias"])}


def rope(v):
    return {"out": kernels.rope(v["head"], one(v, "position"), v["frequencies"])}


def attention(v):
    heads, kv_heads, head_dim = v["shape"]
    causal, window, soft_cap, divisor = v.get("view", [1, 0, 0, head_dim])
    queries = [split(row, head_dim) for row in split(v["q"], heads * head_dim)]
    caches = []
    for line, keep in (("k", kernels.cache_key), ("v", kernels.cache_value)):
        rows = [split(row, head_dim) for row in split(v[line], kv_heads * head_dim)]
        caches.append([[keep(row[g]) for row in rows] for g in range(kv_heads)])
    exponents, out = [], []
    for position, query in enumerate(queries):
        seen = position + 1 if causal else len(queries)
        keys, values = ([head[:seen] for head in cache] for cache in caches)
        row, exponent = kernels.attention(query, keys, values, window or None, soft_cap or None, divisor)
        exponents.append(exponent)
        out += row
    return {"out_exponents": exponents, "out": out}


def silu_gate(v):
    return quantised(kernels.gate("silu", v["gate"], v["up"]))


def gelu_tanh(v):
    return quantised(kernels.gate("gelu_tanh", v["gate"], v["up"] or None))


def gelu_erf(v):
    return quantised(kernels.gate("gelu_erf", v["gate"], v["up"] or None))


def soft_cap(v):
    return {"out": [numerics.cap(x, one(v, "cap")) for x in v["x"]]}


def sampling(v):
    settings = [one(v, name) for name in ("temperature", "top_p", "top_k", "seed")]
    settings.append(v.get("allowed"))
    return {"out": [numerics.sample(v["logits"], p, *settings) for p in v["positions"]]}


def log_probability(v):
    logits = v["logits"]
    return {"out": [numerics.log_probability(logits, t) for t in range(len(logits))]}


def weights(v):
    row, scale = checkpoint.weight_row(v["float_bits"])
    return {
        "out_weights": row,
        "out_scale": list(scale),
        "out_gains": [checkpoint.gain(pattern) for pattern in v["gain_bits"]],
    }


def grouped_weights(v):
    row, multipliers, scale = checkpoint.grouped_weight_row(v["float_bits"])
    return {"out_weights": row, "out_multipliers": multipliers, "out_scale": list(scale)}


FILES = {
    function.__name__ + ".txt": function
    for function in (
        tables,
        quantise,
        embed,
        grouped_embed,
        rmsnorm,
        layernorm,
        normalise,
        linear,
        grouped_linear,
        bias,
        rope,
        attention,
        silu_gate,
        gelu_tanh,
        gelu_erf,
        soft_cap,
        sampling,
        log_probability,
        weights,
        grouped_weights,
    )
}


# --- the runner ------------------------------------------------------------------------------


def check_case(where, inputs, recompute):
    """Raises Difference at the first value that differs."""
    got = recompute(inputs)
    expected = {name: row for name, row in inputs.items() if name.startswith("out")}
    if set(got) != set(expected):
        raise Difference("%s: out lines %s, expected %s" % (where, sorted(got), sorted(expected)))
    for name, row in expected.items():
        if len(row) != len(got[name]):
            raise Difference("%s, %s: %d values, expected %d" % (where, name, len(got[name]), len(row)))
        for i, (want, have) in enumerate(zip(row, got[name])):
            if want != have:
                raise Difference("%s, %s[%d]: expected %d, got %d" % (where, name, i, want, have))


def check_directory(directory):
    """Checks every file of section 10; returns the number of cases."""
    present = {name for name in os.listdir(directory) if name.endswith(".txt")}
    if present != set(FILES):
        raise Difference("%s: files %s, expected %s" % (directory, sorted(present), sorted(FILES)))
    count = 0
    for name in sorted(FILES):
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            cases = parse(file.read())
        if not cases:
            raise Difference("%s: no cases" % name)
        for case, inputs in cases:
            check_case("%s, case %s" % (name, case), inputs, FILES[name])
        count += len(cases)
    return count


def main(arguments):
    if len(arguments) != 1:
        print("usage: golden.py DIRECTORY", file=sys.stderr)
        return 2
    try:
        count = check_directory(arguments[0])
    except Difference as difference:
        print("DIFFERENT: %s" % difference)
        return 1
    print("%d cases, all equal" % count)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
