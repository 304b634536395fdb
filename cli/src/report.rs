//! Output for people or for programs.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Where a command's result goes.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    json: bool,
}

impl Report {
    /// One JSON document, or text.
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the output is for programs.
    pub const fn is_json(self) -> bool {
        self.json
    }

    /// Prints the result: `value` as JSON, or `text`.
    pub fn finish(self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? + "\n" } else { text() };
        write(&text)
    }

    /// Prints a line at once, when the output is for people.
    pub fn line(self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { write(&format!("{text}\n")) }
    }

    /// Says at once what must be seen before the result comes: on standard error when the output is for programs.
    pub fn notice(self, text: &str) -> anyhow::Result<()> {
        if self.json {
            // Nobody may be reading there.
            let _ = writeln!(std::io::stderr(), "{text}");
            Ok(())
        } else {
            write(&format!("{text}\n"))
        }
    }

    /// A progress bar on standard error when that is a terminal; hidden otherwise.
    pub fn progress(self, unit: &str) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(0);
        let template = format!("{{bar:40}} {{percent:>3}} % {{human_pos}}/{{human_len}} {unit} {{eta}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar
    }
}

/// Somebody else's text without what would steer a terminal or begin a line of its own.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_format(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The same of a text that may have lines.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Characters that are not seen and change how others are: marks of direction above all.
const fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Writes to standard output. A reader who has closed it has read enough: the exit code still tells the result.
fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(printable("MIT\nowner me\x1b[2J"), "MIT\\nowner me\\u{1b}[2J");
        assert_eq!(printable("a\u{202e}b é 漢"), "a\\u{202e}b é 漢");
        assert_eq!(printable_lines("one\ntwo\r"), "one\ntwo\\r");
    }
}
