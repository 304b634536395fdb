//! `metisvm bench`.
