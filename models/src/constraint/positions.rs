//! The position automaton of an expression (Glushkov, 1961): which byte of the pattern may come after which.
//!
//! It has no empty moves, and every one of its states leads to acceptance, because no set of bytes is empty.

use super::bytes::ByteSet;
use super::pattern::Expression;

/// A set of positions, one bit each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Places(Box<[u64]>);

impl Places {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)].into())
    }

    fn insert(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(word, other)| word & other).collect())
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(word, other)| word & other != 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(i, &word)| {
            // Clearing the lowest bit of what is left gives the next.
            std::iter::successors(Some(word), |&left| Some(left & left.wrapping_sub(1)))
                .take_while(|&left| left != 0)
                .map(move |left| 64 * i + left.trailing_zeros() as usize)
        })
    }
}

/// The position automaton.
#[derive(Debug)]
pub(super) struct Positions {
    /// What each position reads.
    pub(super) sets: Vec<ByteSet>,
    /// Where a match may go on after each position.
    pub(super) follow: Vec<Places>,
    /// Where a match may begin.
    pub(super) first: Places,
    /// Where it may end.
    pub(super) last: Places,
    /// Whether it may be empty.
    pub(super) nullable: bool,
}

impl Positions {
    /// Memory and work are bounded by the square of `expression.positions()`.
    pub(super) fn of(expression: &Expression) -> Self {
        let count = expression.positions();
        let mut builder =
            Builder { count, sets: Vec::with_capacity(count), follow: Vec::with_capacity(count) };
        let Fragment { nullable, first, last } = builder.fragment(expression);
        Self { sets: builder.sets, follow: builder.follow, first, last, nullable }
    }

    /// The positions that read a byte.
    pub(super) fn reading(&self, byte: u8) -> Places {
        let mut places = Places::none(self.sets.len());
        let reading = self.sets.iter().enumerate().filter(|(_, set)| set.contains(byte));
        reading.for_each(|(place, _)| places.insert(place));
        places
    }

    /// Where a match may go on after any of these positions.
    pub(super) fn after(&self, read: &Places) -> Places {
        let mut ahead = Places::none(self.sets.len());
        read.iter().for_each(|place| ahead.add(&self.follow[place]));
        ahead
    }
}

/// What the world sees of a part of an expression.
struct Fragment {
    nullable: bool,
    first: Places,
    last: Places,
}

struct Builder {
    count: usize,
    sets: Vec<ByteSet>,
    follow: Vec<Places>,
}

impl Builder {
    fn fragment(&mut self, expression: &Expression) -> Fragment {
        match expression {
            Expression::Empty => self.empty(),
            Expression::Byte(set) => {
                let mut place = Places::none(self.count);
                place.insert(self.sets.len());
                self.sets.push(*set);
                self.follow.push(Places::none(self.count));
                Fragment { nullable: false, first: place.clone(), last: place }
            }
            Expression::Sequence(parts) => parts.iter().rev().fold(self.empty(), |rest, part| {
                let part = self.fragment(part);
                self.joined(part, rest)
            }),
            Expression::Choice(parts) => {
                let none = Fragment { nullable: false, ..self.empty() };
                parts.iter().fold(none, |mut sum, part| {
                    let part = self.fragment(part);
                    sum.first.add(&part.first);
                    sum.last.add(&part.last);
                    Fragment { nullable: sum.nullable || part.nullable, ..sum }
                })
            }
            Expression::Optional(of) => Fragment { nullable: true, ..self.fragment(of) },
            Expression::Plus(of) => {
                let part = self.fragment(of);
                self.again(&part);
                part
            }
            // E{1,3} is E(E(E)?)?: few positions are possible at a time.
            Expression::Repeat { of, copies, required, endless } => {
                (0..*copies).rev().fold(self.empty(), |rest, copy| {
                    let mut part = self.fragment(of);
                    if *endless && copy + 1 == *copies {
                        self.again(&part);
                    }
                    part = self.joined(part, rest);
                    Fragment { nullable: part.nullable || copy >= *required, ..part }
                })
            }
        }
    }

    fn empty(&self) -> Fragment {
        Fragment { nullable: true, first: Places::none(self.count), last: Places::none(self.count) }
    }

    /// After `part`, `part` may come again.
    fn again(&mut self, part: &Fragment) {
        part.last.iter().for_each(|place| self.follow[place].add(&part.first));
    }

    /// `part` and then `rest`. Parts are joined from right to left, so each position gets all that may follow it at once.
    fn joined(&mut self, mut part: Fragment, mut rest: Fragment) -> Fragment {
        part.last.iter().for_each(|place| self.follow[place].add(&rest.first));
        if part.nullable {
            part.first.add(&rest.first);
        }
        if rest.nullable {
            rest.last.add(&part.last);
        }
        Fragment { nullable: part.nullable && rest.nullable, first: part.first, last: rest.last }
    }
}
