//! Reading a pattern. `docs/constraints.md` has the grammar.

use super::ConstraintError;
use super::bytes::ByteSet;

/// How deep groups may be nested: bounds the recursion.
pub(super) const MAX_NESTING: usize = 32;
/// Digits of a number in `{m,n}`.
const MAX_DIGITS: usize = 4;

/// What a pattern means. An expression without positions is [`Empty`](Self::Empty), and nothing else holds an `Empty`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// The empty string.
    Empty,
    /// One byte of a set.
    Byte(ByteSet),
    Sequence(Vec<Self>),
    Choice(Vec<Self>),
    Optional(Box<Self>),
    /// Once or more often.
    Plus(Box<Self>),
    /// `copies` of it, at least one, of which the first `required` are not optional; an `endless` last one may be repeated.
    Repeat {
        of: Box<Self>,
        copies: usize,
        required: usize,
        endless: bool,
    },
}

impl Expression {
    /// Reads a whole pattern.
    pub(super) fn parse(pattern: &[u8]) -> Result<Self, ConstraintError> {
        let mut reader = Reader { pattern, at: 0 };
        let expression = reader.choice(0)?;
        // A choice ends at the end or at a parenthesis that nothing opened.
        if reader.at < pattern.len() { Err(reader.stop()) } else { Ok(expression) }
    }

    /// How many bytes it names, each copy of a repetition counted; saturates.
    pub(super) fn positions(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Byte(_) => 1,
            Self::Sequence(parts) | Self::Choice(parts) => {
                parts.iter().map(Self::positions).fold(0, usize::saturating_add)
            }
            Self::Optional(of) | Self::Plus(of) => of.positions(),
            Self::Repeat { of, copies, .. } => of.positions().saturating_mul(*copies),
        }
    }

    /// The sets of bytes in it.
    pub(super) fn sets(&self) -> Vec<ByteSet> {
        match self {
            Self::Empty => Vec::new(),
            Self::Byte(set) => vec![*set],
            Self::Sequence(parts) | Self::Choice(parts) => parts.iter().flat_map(Self::sets).collect(),
            Self::Optional(of) | Self::Plus(of) | Self::Repeat { of, .. } => of.sets(),
        }
    }

    fn optional(self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            of => Self::Optional(Box::new(of)),
        }
    }

    fn plus(self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            of => Self::Plus(Box::new(of)),
        }
    }

    fn times(self, copies: usize, required: usize, endless: bool) -> Self {
        match self {
            Self::Empty => Self::Empty,
            of => Self::Repeat { of: Box::new(of), copies, required, endless },
        }
    }

    /// One after the other.
    fn sequence(mut parts: Vec<Self>) -> Self {
        parts.retain(|part| *part != Self::Empty);
        match parts.pop() {
            None => Self::Empty,
            Some(only) if parts.is_empty() => only,
            Some(last) => {
                parts.push(last);
                Self::Sequence(parts)
            }
        }
    }

    /// One of them.
    fn alternatives(mut parts: Vec<Self>) -> Self {
        let all = parts.len();
        parts.retain(|part| *part != Self::Empty);
        let with_empty = parts.len() < all;
        let choice = match parts.pop() {
            None => Self::Empty,
            Some(only) if parts.is_empty() => only,
            Some(last) => {
                parts.push(last);
                Self::Choice(parts)
            }
        };
        if with_empty { choice.optional() } else { choice }
    }
}

/// A place in a pattern. What it has read is a prefix of some pattern; where no pattern goes on, it stops.
struct Reader<'a> {
    pattern: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.pattern.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    const fn stop(&self) -> ConstraintError {
        ConstraintError::Syntax { position: self.at }
    }

    /// `choice = sequence *( "|" sequence )`
    fn choice(&mut self, nesting: usize) -> Result<Expression, ConstraintError> {
        let mut alternatives = vec![self.sequence(nesting)?];
        while self.eat(b'|') {
            alternatives.push(self.sequence(nesting)?);
        }
        Ok(Expression::alternatives(alternatives))
    }

    /// `sequence = *( atom [quantifier] )`
    fn sequence(&mut self, nesting: usize) -> Result<Expression, ConstraintError> {
        let mut parts = Vec::new();
        while let Some(first) = self.peek().filter(|byte| !b"|)".contains(byte)) {
            let atom = self.atom(first, nesting)?;
            // A character of several bytes is several atoms; a quantifier would only take the last.
            let quantified = self.peek().is_some_and(|byte| b"?*+{".contains(&byte));
            if quantified && !first.is_ascii() {
                return Err(self.stop());
            }
            parts.push(self.quantifier(atom)?);
        }
        Ok(Expression::sequence(parts))
    }

    /// `atom = "(" choice ")" | "[" class "]" | "." | "\" escape | literal`
    fn atom(&mut self, first: u8, nesting: usize) -> Result<Expression, ConstraintError> {
        match first {
            b'(' if nesting < MAX_NESTING => {
                self.at += 1;
                let group = self.choice(nesting + 1)?;
                if self.eat(b')') { Ok(group) } else { Err(self.stop()) }
            }
            b'(' | b']' | b'{' | b'}' | b'?' | b'*' | b'+' | b'^' | b'$' => Err(self.stop()),
            b'[' => {
                self.at += 1;
                Ok(Expression::Byte(self.class()?))
            }
            b'.' => {
                self.at += 1;
                Ok(Expression::Byte(ByteSet::one(b'\n').complement()))
            }
            b'\\' => {
                self.at += 1;
                Ok(Expression::Byte(ByteSet::one(self.escape()?)))
            }
            literal => {
                self.at += 1;
                Ok(Expression::Byte(ByteSet::one(literal)))
            }
        }
    }

    /// `escape = punctuation | "n" | "r" | "t" | "x" 2hexdigit`, after the backslash.
    fn escape(&mut self) -> Result<u8, ConstraintError> {
        let byte = match self.peek() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'x') => {
                self.at += 1;
                return Ok(self.hex_digit()? << 4 | self.hex_digit()?);
            }
            Some(byte) if byte.is_ascii_punctuation() => byte,
            _ => return Err(self.stop()),
        };
        self.at += 1;
        Ok(byte)
    }

    fn hex_digit(&mut self) -> Result<u8, ConstraintError> {
        let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(|| self.stop())?;
        self.at += 1;
        Ok(digit as u8)
    }

    /// `class = ["^"] item *item ["-"]`, `item = byte ["-" byte]`, after the bracket that opens it.
    fn class(&mut self) -> Result<ByteSet, ConstraintError> {
        let negated = self.eat(b'^');
        let mut set = ByteSet::default();
        let mut after_range = false;
        loop {
            match self.peek() {
                Some(b']') if !set.is_empty() => {
                    let set = if negated { set.complement() } else { set };
                    if set.is_empty() {
                        return Err(self.stop());
                    }
                    self.at += 1;
                    return Ok(set);
                }
                // After a range a hyphen can only be the last of the class.
                Some(b'-') if after_range => {
                    set.insert(b'-');
                    self.at += 1;
                    if self.peek() != Some(b']') {
                        return Err(self.stop());
                    }
                }
                _ => {
                    let (bytes, is_range) = self.item()?;
                    set = set.union(bytes);
                    after_range = is_range;
                }
            }
        }
    }

    /// A byte or a range of bytes, and whether it was a range.
    fn item(&mut self) -> Result<(ByteSet, bool), ConstraintError> {
        let first = self.class_byte()?;
        let hyphen_ends = self.pattern.get(self.at + 1) == Some(&b']');
        if self.peek() != Some(b'-') || hyphen_ends {
            return Ok((ByteSet::one(first), false));
        }
        self.at += 1;
        let upper = self.at;
        let last = self.class_byte()?;
        if last < first {
            return Err(ConstraintError::Syntax { position: upper });
        }
        Ok((ByteSet::range(first, last), true))
    }

    fn class_byte(&mut self) -> Result<u8, ConstraintError> {
        match self.peek() {
            Some(b'\\') => {
                self.at += 1;
                self.escape()
            }
            Some(byte) if byte.is_ascii() && !b"[]".contains(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            _ => Err(self.stop()),
        }
    }

    /// `quantifier = "?" | "*" | "+" | "{" number [ "," [number] ] "}"`, at most one.
    fn quantifier(&mut self, atom: Expression) -> Result<Expression, ConstraintError> {
        if self.eat(b'?') {
            return Ok(atom.optional());
        }
        if self.eat(b'*') {
            return Ok(atom.plus().optional());
        }
        if self.eat(b'+') {
            return Ok(atom.plus());
        }
        if !self.eat(b'{') {
            return Ok(atom);
        }
        let min = self.number()?;
        let max = match self.eat(b',') {
            false => Some(min),
            true if self.peek() == Some(b'}') => None,
            true => Some(self.number()?),
        };
        let fits = max.is_none_or(|max| max >= 1 && min <= max);
        if self.peek() != Some(b'}') || !fits {
            return Err(self.stop());
        }
        self.at += 1;
        Ok(match max {
            Some(max) => atom.times(max, min, false),
            None if min == 0 => atom.plus().optional(),
            None => atom.times(min, min, true),
        })
    }

    /// `number = "0" | digit1-9 *3digit`
    fn number(&mut self) -> Result<usize, ConstraintError> {
        let start = self.at;
        let mut number = 0;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            if self.at - start == MAX_DIGITS || (self.at > start && number == 0) {
                break;
            }
            number = 10 * number + usize::from(digit - b'0');
            self.at += 1;
        }
        if self.at == start { Err(self.stop()) } else { Ok(number) }
    }
}
