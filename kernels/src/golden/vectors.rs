//! The text format of golden vectors.

use std::fmt::Write as _;

use thiserror::Error;

/// A text that is not a list of cases, or a case that lacks a line.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VectorError {
    /// A line before the first `case`, or one that is not a name and integers.
    #[error("line {line}: expected a name and integers, after a `case` line")]
    Line {
        /// Counted from one.
        line: usize,
    },
    /// A case without a line that its kernel needs.
    #[error("case {case} has no `{name}` line, or its values are out of range")]
    Missing {
        /// The case.
        case: String,
        /// The line's name.
        name: &'static str,
    },
}

/// One case: named rows of integers, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// `(name, values)` in the order of the file.
    pub lines: Vec<(String, Vec<i128>)>,
}

impl Case {
    /// A case without lines.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), lines: Vec::new() }
    }

    /// Adds a line.
    pub fn with<T: Into<i128> + Copy>(mut self, name: &str, values: &[T]) -> Self {
        self.lines.push((name.into(), values.iter().map(|&v| v.into()).collect()));
        self
    }

    /// Whether there is a line of this name.
    pub fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|(n, _)| n == name)
    }

    /// The values of a line, converted.
    pub fn get<T: TryFrom<i128>>(&self, name: &'static str) -> Result<Vec<T>, VectorError> {
        let missing = || VectorError::Missing { case: self.name.clone(), name };
        let (_, values) = self.lines.iter().find(|(n, _)| n == name).ok_or_else(missing)?;
        values.iter().map(|&v| T::try_from(v).map_err(|_| missing())).collect()
    }

    /// The values of a line that not every case has.
    pub fn optional<T: TryFrom<i128>>(&self, name: &'static str) -> Result<Option<Vec<T>>, VectorError> {
        self.lines.iter().any(|(n, _)| n == name).then(|| self.get(name)).transpose()
    }

    /// The single value of a line, converted.
    pub fn one<T: TryFrom<i128>>(&self, name: &'static str) -> Result<T, VectorError> {
        let mut values = self.get(name)?;
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok(value),
            _ => Err(VectorError::Missing { case: self.name.clone(), name }),
        }
    }

    /// The lines that are answers.
    pub fn answers(&self) -> impl Iterator<Item = &(String, Vec<i128>)> {
        self.lines.iter().filter(|(name, _)| name.starts_with("out"))
    }

    /// The case in the text format.
    pub fn write(&self, text: &mut String) {
        let _ = writeln!(text, "case {}", self.name);
        for (name, values) in &self.lines {
            text.push_str(name);
            for value in values {
                let _ = write!(text, " {value}");
            }
            text.push('\n');
        }
    }
}

/// Reads a golden file.
pub fn parse(text: &str) -> Result<Vec<Case>, VectorError> {
    let mut cases: Vec<Case> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next().filter(|name| !name.starts_with('#')) else { continue };
        if name == "case" {
            cases.push(Case::new(words.next().unwrap_or_default()));
            continue;
        }
        let values: Result<Vec<i128>, _> = words.map(str::parse).collect();
        match (cases.last_mut(), values) {
            (Some(case), Ok(values)) => case.lines.push((name.into(), values)),
            _ => return Err(VectorError::Line { line: i + 1 }),
        }
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_survive_the_text() {
        let case = Case::new("a").with("x", &[1i64, -2]).with("out", &[u64::MAX]);
        let mut text = "# comment\n".to_owned();
        case.write(&mut text);
        assert_eq!(parse(&text).unwrap(), [case]);
    }

    #[test]
    fn bad_lines_are_named() {
        assert_eq!(parse("x 1"), Err(VectorError::Line { line: 1 }));
        assert_eq!(parse("case a\nx one"), Err(VectorError::Line { line: 2 }));
        let case = &parse("case a\nx 300").unwrap()[0];
        assert_eq!(case.one::<u8>("x"), Err(VectorError::Missing { case: "a".into(), name: "x" }));
    }
}
