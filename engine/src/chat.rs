//! Conversations as text: the chat template in a model's file, rendered as Python's jinja2 would.

mod arguments;
mod calls;
mod filters;
mod format;
mod json;
mod methods;
mod objects;
mod operators;
pub mod parts;
mod percent;
mod python;
mod rendered;
mod repr;
mod rewrite;
mod source;
mod statements;
mod strftime;
mod tests;
mod values;

use gguf::Metadata;
use minijinja::{Environment, Value};
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

crate::opaque::opaque_debug!(Template { marks });

impl Template {
    /// The template of a file, if it has one. Bytes that are no UTF-8 become U+FFFD.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>> {
        const KEY: &str = "tokenizer.chat_template";
        if let Some(gguf::Value::String(bytes)) = metadata.get(KEY) {
            return Self::new(&String::from_utf8_lossy(bytes)).map(Some);
        }
        metadata.str(KEY)?.map(Self::new).transpose()
    }

    /// Compiles a template.
    pub fn new(source: &str) -> Result<Self> {
        let compile = || {
            let mut environment = python::environment()?;
            environment.add_template_owned("chat", statements::rewritten(source)?)?;
            Ok(environment)
        };
        let environment = compile().map_err(|error| template_error(&error))?;
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
        python::add_clock(&mut environment, now);
        let template = environment.get_template("chat").map_err(|error| template_error(&error))?;
        let mut values = request.clone();
        let mut nulls = Vec::new();
        if let Some(values) = values.as_object_mut() {
            for (key, text) in [("bos_token", &inputs.bos_token), ("eos_token", &inputs.eos_token)]
            {
                values.entry(key).or_insert_with(|| text.as_str().into());
            }
            nulls.extend(
                ["tools", "documents"].into_iter().filter(|key| !values.contains_key(*key)),
            );
        }
        let render = |values: &serde_json::Value| {
            template.render(Value::from(minijinja::value::Serde(values)))
        };
        if !nulls.is_empty() {
            // transformers hands these over in any case, as None. Some templates go through them without a look: for
            // those they are undefined, which is empty, as in llama.cpp.
            let mut values = values.clone();
            for key in nulls {
                values[key] = serde_json::Value::Null;
            }
            if let Ok(text) = render(&values) {
                return Ok(text);
            }
        }
        render(&values).map_err(|error| template_error(&error))
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
