"""Logits of a bundle, recomputed from docs/numerics.md.

    logits.py BUNDLE --tokens 1,2,3 [--greedy N]     prints one JSON line per position
    logits.py BUNDLE --compare FILE.jsonl            recomputes such a file; exits 1 at the first difference

A line is {"position": p, "token": t, "logits": [one Q16 integer per vocabulary entry]}: the logits of
what follows token t at position p. With --greedy N (or --new N) the largest logit is fed back N times, and
those N positions are printed too.
"""

import argparse
import json
import sys

from bundle import Bundle, read_json
from llama import Sequence
from numerics import greedy


def records(bundle, tokens, new=0):
    """One record per fed token: the given tokens, then `new` greedy ones."""
    sequence = Sequence(bundle)
    logits = None
    for position in range(len(tokens) + new):
        token = tokens[position] if position < len(tokens) else greedy(logits)
        logits = sequence.feed(token)
        yield {"position": position, "token": token, "logits": logits}


def first_difference(bundle, expected):
    """The first difference between a list of records and their recomputation, or None."""
    if not expected:
        return "the file has no positions"
    tokens = [record["token"] for record in expected]
    for want, have in zip(expected, records(bundle, tokens)):
        position = have["position"]
        if want["position"] != position:
            return "line %d: position %s, expected %d" % (position + 1, want["position"], position)
        if len(want["logits"]) != len(have["logits"]):
            return "position %d: the file has %d logits, the vocabulary %d" % (
                position,
                len(want["logits"]),
                len(have["logits"]),
            )
        for i, (a, b) in enumerate(zip(want["logits"], have["logits"])):
            if a != b:
                return "position %d, index %d: expected %s, got %d" % (position, i, a, b)
    return None


def compare(bundle, path, tokens):
    """Prints the outcome of a comparison; the exit status."""
    with open(path, "rb") as file:
        expected = [read_json(line) for line in file if line.strip()]
    if tokens is not None and [record["token"] for record in expected][: len(tokens)] != tokens:
        difference = "the file does not start with the tokens given"
    else:
        difference = first_difference(bundle, expected)
    if difference:
        print("DIFFERENT: " + difference)
        return 1
    print("%d positions of %d logits, all equal" % (len(expected), bundle.vocabulary))
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
    for record in records(bundle, tokens, options.new):
        print(json.dumps(record, separators=(",", ":")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
