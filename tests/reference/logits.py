"""Logits of a bundle, recomputed from docs/numerics.md.

    logits.py BUNDLE --tokens 1,2,3 [--greedy N]     prints one JSON line per position
    logits.py BUNDLE --compare FILE.jsonl            recomputes such a file; exits 1 at the first difference

A line is {"position": p, "token": t, "logits": [one Q16 integer per vocabulary entry]}: the logits of
what follows token t at position p. With --greedy N (or --new N) the largest logit is fed back N times, and
those N positions are printed too.

An encoder has one line per text: {"tokens": [...], "vector": [Q16 integers]}, and "classes": [one Q16 logit per class]
if it is a classifier. --tokens is one text; a file may hold several.
"""

import argparse
import json
import sys

import bert
import gpt2
import llama
from bundle import Bundle
from numerics import greedy
from tensors import read_json

DECODERS = {"llama": llama.Sequence, "gpt2": gpt2.Sequence}


def records(bundle, tokens, new=0):
    """One record per fed token: the given tokens, then `new` greedy ones."""
    sequence = DECODERS[bundle.architecture](bundle)
    logits = None
    for position in range(len(tokens) + new):
        token = tokens[position] if position < len(tokens) else greedy(logits)
        logits = sequence.feed(token)
        yield {"position": position, "token": token, "logits": logits}


def text_record(bundle, tokens):
    """The record of a text fed to an encoder."""
    xs = bert.encode(bundle, tokens)
    record = {"tokens": tokens, "vector": bert.vector(bundle, xs)}
    if bundle.variant.classes:
        record["classes"] = bert.class_logits(bundle, xs)
    return record


def first_difference(bundle, expected):
    """The first difference between a list of positions and their recomputation, or None."""
    tokens = [record["token"] for record in expected]
    for want, have in zip(expected, records(bundle, tokens)):
        position = have["position"]
        if want["position"] != position:
            return "line %d: position %s, expected %d" % (position + 1, want["position"], position)
        difference = row_difference("position %d" % position, want["logits"], have["logits"])
        if difference:
            return difference
    return None


def first_text_difference(bundle, expected):
    """The first difference between a list of texts and their recomputation, or None."""
    for number, want in enumerate(expected, 1):
        have = text_record(bundle, want["tokens"])
        if set(want) != set(have):
            return "line %d: it has %s, expected %s" % (number, sorted(want), sorted(have))
        for name in sorted(set(have) - {"tokens"}):
            difference = row_difference("line %d, %s" % (number, name), want[name], have[name])
            if difference:
                return difference
    return None


def row_difference(where, want, have):
    """The first difference of two rows, or None."""
    if len(want) != len(have):
        return "%s: the file has %d values, the model %d" % (where, len(want), len(have))
    for i, (a, b) in enumerate(zip(want, have)):
        if a != b:
            return "%s, index %d: expected %s, got %d" % (where, i, a, b)
    return None


def compare(bundle, path, tokens):
    """Prints the outcome of a comparison; the exit status."""
    with open(path, "rb") as file:
        expected = [read_json(line) for line in file if line.strip()]
    fed = [token for record in expected for token in record.get("tokens", [record.get("token")])]
    if not expected:
        difference = "the file has no lines"
    elif tokens is not None and fed[: len(tokens)] != tokens:
        difference = "the file does not start with the tokens given"
    elif bundle.architecture in DECODERS:
        difference = first_difference(bundle, expected)
        done = "%d positions of %d logits" % (len(expected), bundle.vocabulary)
    else:
        difference = first_text_difference(bundle, expected)
        done = "%d texts" % len(expected)
    if difference:
        print("DIFFERENT: " + difference)
        return 1
    print(done + ", all equal")
    return 0


def main():
    parser = argparse.ArgumentParser(description="Logits of a bundle in plain Python integers.")
    parser.add_argument("bundle", help="bundle directory")
    parser.add_argument("--tokens", help="token ids, separated by commas")
    parser.add_argument("--greedy", "--new", dest="new", type=int, default=0, metavar="N")
    parser.add_argument("--compare", metavar="FILE", help="JSON lines to recompute")
    options = parser.parse_args()
    tokens = None
    if options.tokens is not None:
        tokens = [int(word) for word in options.tokens.split(",")]
    elif options.compare is None:
        parser.error("--tokens or --compare is needed")

    bundle = Bundle(options.bundle)
    if options.compare is not None:
        return compare(bundle, options.compare, tokens)
    if bundle.architecture not in DECODERS:
        if options.new:
            parser.error("an encoder does not generate")
        lines = [text_record(bundle, tokens)]
    else:
        lines = records(bundle, tokens, options.new)
    for record in lines:
        print(json.dumps(record, separators=(",", ":")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
