// What products of up to eight rows share: the way of a warp through the weights.

// Words of 16 bytes that a lane has on their way, and as many that it multiplies.
const int WORDS = 4;

// Where a warp is: in which span of the inputs of which unit of outputs of which matrix.
struct Cursor {
    int unit, matrix, span;
};

// The way through the matrices' units: over all of them, or, if they are gated, over those that belong together, one after another.
struct Way {
    const Products &p;
    // Outputs of a unit; spans of the inputs; units to the next one.
    int outputs, spans, step;

    DEVICE bool gated() const { return p.gated.values; }
    DEVICE bool ends(Cursor at) const { return at.matrix >= p.count; }
    DEVICE Cursor settled(Cursor at) const {
        while (at.matrix < p.count) {
            int units = ((int)p.of[at.matrix].outputs + outputs - 1) / outputs;
            if (at.unit < units) break;
            at.unit -= units;
            at.matrix = gated() ? p.count : at.matrix + 1;
        }
        return at;
    }
    DEVICE Cursor next(Cursor at) const {
        if (at.span + 1 < spans) return Cursor{at.unit, at.matrix, at.span + 1};
        if (gated() && at.matrix + 1 < p.count) return Cursor{at.unit, at.matrix + 1, 0};
        return settled(Cursor{at.unit + step, gated() ? 0 : at.matrix, 0});
    }
    DEVICE bool last_span(Cursor at) const { return at.span + 1 == spans; }
    // Whether more of the outputs that belong together comes.
    DEVICE bool twin_comes(Cursor at) const { return at.matrix + 1 < p.count; }
};

// The number of a row's gated outputs, of which the first one is that of the gate.
DEVICE i64 gated_number(const Products &p, int first, int value) {
    int activation = (int)p.gated.activation;
    return p.count == 1 ? activated(p.gated.tables, activation, value) : activated(p.gated.tables, activation, first) * value;
}
