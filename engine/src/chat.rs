//! Conversations as text: the chat template in a model's file, rendered as Python's jinja2 would.

mod json;
pub mod parts;
mod python;
mod rendered;

use gguf::Metadata;
use minijinja::{Environment, ErrorKind, Value};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub use rendered::Rendered;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// What the person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    /// What the model is told about itself.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system".into(), content: content.into() }
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".into(), content: content.into() }
    }
}

/// Steps of a template before it is stopped: a hostile one must not hang.
const FUEL: u64 = 50_000_000;
/// The deepest recursion of a template.
const RECURSION: usize = 200;

/// What a template is rendered with, beside the messages.
#[derive(Debug, Clone, Default)]
pub struct TemplateInputs {
    /// The text of the begin-of-sequence token.
    pub bos_token: String,
    /// The text of the end-of-sequence token.
    pub eos_token: String,
    /// The time that `strftime_now` tells; none: now.
    pub now: Option<chrono::NaiveDateTime>,
}

/// A chat template, compiled.
pub struct Template {
    environment: Environment<'static>,
    marks: parts::Marks,
}

impl Template {
    /// The template of a file, if it has one.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>> {
        metadata.str("tokenizer.chat_template")?.map(Self::new).transpose()
    }

    /// Compiles a template.
    pub fn new(source: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| template_error(&error))?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<String, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_filter("tojson", json::to_json);
        python::add_to(&mut environment, source);
        environment
            .add_template_owned("chat", without_generation_marks(source))
            .map_err(|error| template_error(&error))?;
        Ok(Self { environment, marks: parts::Marks::of_template(source) })
    }

    /// How the family of the template marks the parts of an answer.
    pub fn marks(&self) -> parts::Marks {
        self.marks
    }

    /// Renders messages; with `add_generation_prompt` the text ends where the model is to go on.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        inputs: &TemplateInputs,
    ) -> Result<String> {
        let request = serde_json::json!({
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
        });
        self.render_values(&request, inputs)
    }

    /// Renders a request of any shape: `messages`, `tools`, `add_generation_prompt` and what else the
    /// template knows.
    pub fn render_values(
        &self,
        request: &serde_json::Value,
        inputs: &TemplateInputs,
    ) -> Result<String> {
        let now = inputs.now.unwrap_or_else(|| chrono::Local::now().naive_local());
        let mut environment = self.environment.clone();
        environment.add_function(
            "strftime_now",
            move |format: String| -> std::result::Result<String, minijinja::Error> {
                use std::fmt::Write as _;
                let mut text = String::new();
                // chrono reports an unknown % letter as a formatting error.
                write!(text, "{}", now.format(&format)).map_err(|_| {
                    minijinja::Error::new(
                        ErrorKind::InvalidOperation,
                        format!("strftime: bad format {format:?}"),
                    )
                })?;
                Ok(text)
            },
        );
        let template = environment.get_template("chat").map_err(|error| template_error(&error))?;
        let mut values = request.clone();
        if let Some(values) = values.as_object_mut() {
            for (key, text) in [("bos_token", &inputs.bos_token), ("eos_token", &inputs.eos_token)]
            {
                values.entry(key).or_insert_with(|| text.as_str().into());
            }
        }
        let values = Value::from(minijinja::value::Serde(values));
        template.render(values).map_err(|error| template_error(&error))
    }
}

/// The message of a template's error with its causes.
fn template_error(error: &minijinja::Error) -> Error {
    let mut text = error.detail().map_or_else(|| error.to_string(), str::to_string);
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Error::Template(text)
}

/// A template without its `{% generation %}` marks, which only training uses.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let end = start + length + 2;
        let word = rest[start + 2..end - 2].trim_matches(['-', '+', ' ', '\t', '\n', '\r']);
        if matches!(word, "generation" | "endgeneration") {
            out.push_str(&rest[..start]);
            // An empty comment keeps the whitespace rules of the tag that stood here.
            let (left, right) = (&rest[start + 2..=start + 2], &rest[end - 3..end - 2]);
            let left = if left == "-" { "-" } else { "" };
            let right = if right == "-" { "-" } else { "" };
            out.push_str("{%");
            out.push_str(left);
            out.push_str(" if true ");
            out.push_str(right);
            out.push_str("%}{% endif %}");
        } else {
            out.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}
