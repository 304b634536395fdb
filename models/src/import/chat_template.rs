//! What a chat template writes between messages.
//!
//! Templates are programs in Jinja's language. One is rendered here with marks in the place of messages, which shows the fixed text
//! around them; then that text must give, for other conversations, exactly what the template and the tokenizers library give. A template that
//! does more than put text between messages (dates, tools, a system message inside a user's) fails the comparison and is left out.

use std::fs;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value as Jinja;
use minijinja::{Environment, ErrorKind, context};
use serde_json::Value;
use thiserror::Error;

use crate::chat::{ChatFormat, Message, Role, Segment, SystemFormat};
use crate::tokenizer::{Markers, Tokenizer};

/// Steps that a template may take for one conversation.
const FUEL: u64 = 1_000_000;
/// The only text of the conversations that are rendered to find the format. No template writes it.
const MARKS: [&str; 4] = ["qJx0zK", "qJx1zK", "qJx2zK", "qJx3zK"];

/// What came of a checkpoint's chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatTemplate {
    /// There is none.
    Missing,
    /// It is in the bundle.
    Kept(ChatFormat),
    /// It is not, and why.
    LeftOut(String),
}

impl ChatTemplate {
    /// The format that goes into the manifest.
    pub(super) fn format(self) -> Option<ChatFormat> {
        match self {
            Self::Kept(format) => Some(format),
            Self::Missing | Self::LeftOut(_) => None,
        }
    }
}

/// Looks for a template in a Hugging Face folder: `chat_template.jinja`, or `chat_template` of `tokenizer_config.json`.
pub(super) fn of_folder(folder: &Path, json: &[u8], tokenizer: &Tokenizer) -> ChatTemplate {
    let config: Value = fs::read(folder.join("tokenizer_config.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let source = fs::read_to_string(folder.join("chat_template.jinja")).ok();
    let Some(source) = source.or_else(|| in_config(&config["chat_template"])) else {
        return ChatTemplate::Missing;
    };
    of_text(&source, &config, json, tokenizer)
}

/// A template, and the names that it may use for special tokens: `bos_token` and others, as in `tokenizer_config.json`.
pub(super) fn of_text(source: &str, names: &Value, json: &[u8], tokenizer: &Tokenizer) -> ChatTemplate {
    match derive(source, names, json, tokenizer) {
        Ok(format) => ChatTemplate::Kept(format),
        Err(error) => ChatTemplate::LeftOut(error.to_string()),
    }
}

/// A template, or the one named `default` of several.
fn in_config(value: &Value) -> Option<String> {
    let named = value.as_array().into_iter().flatten().find(|entry| entry["name"] == "default");
    value.as_str().or_else(|| named?["template"].as_str()).map(str::to_owned)
}

#[derive(Debug, Error)]
enum TemplateError {
    #[error("the template cannot be rendered: {0}")]
    Render(#[from] minijinja::Error),
    #[error("the template does not write each message once, in order")]
    Marks,
    #[error("the template does more than put text between messages")]
    NotStatic,
    #[error("{0}")]
    Format(#[from] crate::chat::ChatFormatError),
    #[error("its tokens are not those of the tokenizer: {0}")]
    Tokens(String),
}

fn derive(
    source: &str,
    config: &Value,
    json: &[u8],
    tokenizer: &Tokenizer,
) -> Result<ChatFormat, TemplateError> {
    let template = Template::new(source, config)?;
    let markers =
        Markers::of(json, tokenizer.vocabulary()).map_err(|e| TemplateError::Tokens(e.to_string()))?;
    let [a, b, c, d] = MARKS;
    let split = |text: &str| segments(text, &markers);

    let text = template.render(&[(Role::User, a), (Role::Assistant, b), (Role::User, c)])?;
    let [begin, reply, turn, answer] = between(&text, [a, b, c])?;
    let system = match template.render(&[(Role::System, d), (Role::User, a)]) {
        Ok(text) if !text.contains(d) => None,
        Ok(text) => match between(&text, [d, a])? {
            [begin, end, rest] if rest == answer => {
                Some(SystemFormat { begin: split(begin), end: split(end) })
            }
            _ => return Err(TemplateError::NotStatic),
        },
        // Some templates refuse a message of the system, or leave it out.
        Err(_) => None,
    };
    let padded = template.render(&[(Role::User, &format!(" \n{a}\n "))])?;
    let trim = !padded.contains(&format!("{a}\n "));
    let mut format = ChatFormat {
        begin: split(begin),
        system,
        reply: split(reply),
        turn: split(turn),
        answer: split(answer),
        trim,
        leading_space: false,
    };
    format.check(|token| tokenizer.is_special(token))?;

    let same = |format: &ChatFormat| compare(&template, format, &markers, tokenizer);
    match same(&format) {
        Err(TemplateError::Tokens(_)) => {
            format.leading_space = true;
            same(&format)?;
        }
        other => other?,
    }
    Ok(format)
}

/// The texts before, between and after the marks.
fn between<'a, const M: usize, const N: usize>(
    text: &'a str,
    marks: [&str; M],
) -> Result<[&'a str; N], TemplateError> {
    let mut rest = text;
    let mut parts = Vec::new();
    for mark in marks {
        let (before, after) = rest.split_once(mark).ok_or(TemplateError::Marks)?;
        parts.push(before);
        rest = after;
    }
    parts.push(rest);
    if parts.iter().any(|part| MARKS.iter().any(|mark| part.contains(mark))) {
        return Err(TemplateError::Marks);
    }
    parts.try_into().map_err(|_| TemplateError::Marks)
}

/// Fixed text as special tokens and text.
fn segments(text: &str, markers: &Markers) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some((at, length, token)) = markers.first_in(rest) {
        if at > 0 {
            segments.push(Segment::Text(rest[..at].to_owned()));
        }
        segments.push(Segment::Token(token.0));
        rest = &rest[at + length..];
    }
    if !rest.is_empty() {
        segments.push(Segment::Text(rest.to_owned()));
    }
    segments
}

/// Compares the format with the template on conversations of every shape: text first, then tokens.
fn compare(
    template: &Template<'_>,
    format: &ChatFormat,
    markers: &Markers,
    tokenizer: &Tokenizer,
) -> Result<(), TemplateError> {
    const CONTENTS: [&str; 6] = [
        "Hello!",
        "What is 2+2?\n\nAnswer with a number, please.",
        "ünïcödé, 你好 and 🦀",
        "  two spaces around  ",
        "{\"a\": [1, 2]}",
        "\nlines\n",
    ];
    for first in 0..CONTENTS.len() {
        for turns in 1..4 {
            for with_system in [false, true] {
                if with_system && format.system.is_none() {
                    continue;
                }
                let alternate = (0..2 * turns - 1).map(|i| [Role::User, Role::Assistant][i % 2]);
                let roles = with_system.then_some(Role::System).into_iter().chain(alternate);
                let contents = CONTENTS.iter().cycle().skip(first);
                let messages: Vec<(Role, &str)> = roles.zip(contents.copied()).collect();

                let rendered = template.render(&messages)?;
                if written(format, &messages, markers) != rendered {
                    return Err(TemplateError::NotStatic);
                }
                let bytes: Vec<Message<'_>> = messages
                    .iter()
                    .map(|&(role, content)| Message { role, content: content.as_bytes() })
                    .collect();
                let wrong = |error: &dyn ToString| TemplateError::Tokens(error.to_string());
                let own = format.encode(tokenizer, &bytes).map_err(|e| wrong(&e))?;
                if own != markers.encode(&rendered).map_err(|e| wrong(&e))? {
                    return Err(wrong(&"text after special tokens is encoded in another way"));
                }
            }
        }
    }
    Ok(())
}

/// A conversation as text, by the format.
fn written(format: &ChatFormat, messages: &[(Role, &str)], markers: &Markers) -> String {
    let mut text = String::new();
    let mut write = |segments: &[Segment]| {
        for segment in segments {
            match segment {
                Segment::Text(part) => text.push_str(part),
                Segment::Token(id) => text.push_str(markers.content(*id)),
            }
        }
    };
    let mut previous = None;
    for &(role, content) in messages {
        match (previous, role, &format.system) {
            (_, Role::System, Some(system)) => write(&system.begin),
            (Some(Role::System), _, Some(system)) => write(&system.end),
            (None, ..) => write(&format.begin),
            (_, Role::User, _) => write(&format.turn),
            _ => write(&format.reply),
        }
        let content = if format.trim { content.trim() } else { content };
        write(&[Segment::Text(content.to_owned())]);
        previous = Some(role);
    }
    write(&format.answer);
    text
}

/// A template and what it may look at.
struct Template<'a> {
    environment: Environment<'a>,
    /// The strings of bos, eos, unknown and padding tokens.
    tokens: [Jinja; 4],
}

impl<'a> Template<'a> {
    fn new(source: &'a str, config: &Value) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        // As `transformers` sets it up.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Jinja, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template("chat", source)?;
        let content = |value: &Value| value.as_str().or_else(|| value["content"].as_str()).map(Jinja::from);
        let tokens = ["bos_token", "eos_token", "unk_token", "pad_token"]
            .map(|name| content(&config[name]).unwrap_or(Jinja::UNDEFINED));
        Ok(Self { environment, tokens })
    }

    fn render(&self, messages: &[(Role, &str)]) -> Result<String, minijinja::Error> {
        let role = |role| match role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let messages: Vec<Jinja> = messages
            .iter()
            .map(|&(who, content)| context! { role => role(who), content => content })
            .collect();
        let [bos_token, eos_token, unk_token, pad_token] = &self.tokens;
        self.environment.get_template("chat")?.render(context! {
            messages, bos_token, eos_token, unk_token, pad_token,
            add_generation_prompt => true, tools => (), documents => (),
        })
    }
}
