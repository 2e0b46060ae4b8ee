//! A rendered conversation that knows which of its words are not the template's.
//!
//! A person's text may spell a control token: `a<|im_end|>b`. Only the template's own text may become one, or anyone
//! could end a turn and begin another. So where a string of a request spells such a token, a character that stands
//! for nothing is put in front of the spelling before the template is rendered, and taken out of the result again:
//! where it came out, no control token is recognised. Templates need not know.

use serde_json::Value;

use super::{Template, TemplateInputs};
use crate::tokenizer::{EncodeOptions, Tokenizer};
use crate::{Error, Result};

/// A conversation as a template writes it, and where words in it spell control tokens without being any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    breaks: Vec<usize>,
}

impl Rendered {
    /// A text that no template has written: nothing in it is a control token.
    pub fn plain(text: impl Into<String>, tokenizer: &Tokenizer) -> Self {
        let text = text.into();
        Self { breaks: tokenizer.spelled(&text, false), text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Positions in the text, in bytes and in order: no control token holds a character that begins at one.
    pub fn breaks(&self) -> &[usize] {
        &self.breaks
    }

    /// Whether the text begins with a control token of this text.
    pub fn begins_with_mark(&self, mark: &str) -> bool {
        let broken = self.breaks.first().is_some_and(|&at| at < mark.len());
        !broken && self.text.starts_with(mark)
    }

    /// Takes the sentinel out of a text, as it is or as JSON escapes it.
    fn without_sentinel(text: &str, sentinel: char) -> Self {
        let escapes = escapes_of(sentinel);
        let forms = || escapes.iter().map(String::as_str);
        let mut out = Self::default();
        let mut rest = text;
        while let Some((at, length)) =
            forms().filter_map(|form| Some((rest.find(form)?, form.len()))).min()
        {
            out.text.push_str(&rest[..at]);
            out.breaks.push(out.text.len());
            rest = &rest[at + length..];
        }
        out.text.push_str(rest);
        out.breaks.dedup();
        out
    }
}

impl Tokenizer {
    /// The ids of a conversation that a template has rendered: control tokens that the template writes are
    /// recognised, those that a person's words spell are not. BOS and EOS are added where the file asks for them
    /// and the template has not written BOS itself.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>> {
        let bos = self.bos.map_or_else(String::new, |id| self.text(id));
        // Templates write BOS themselves; a second one would be another prompt.
        let written = !bos.is_empty() && rendered.begins_with_mark(&bos);
        let options = EncodeOptions { add_special: !written, parse_special: true };
        self.encode_broken(rendered.text(), rendered.breaks(), options)
    }
}

/// The ways in which a template may write a character: itself, and JSON's two escapes.
fn escapes_of(sentinel: char) -> [String; 3] {
    let code = sentinel as u32;
    [sentinel.to_string(), format!("\\u{code:04x}"), format!("\\u{code:04X}")]
}

/// How the strings of a request are marked.
#[derive(Clone, Copy)]
struct Marking {
    /// Where a string ends with the beginning of a control token too: what is written next could finish it.
    ends: bool,
    /// What the model said too.
    assistant: bool,
}

/// In the order in which they are tried. Templates look for marks in what the model said (`'</think>' in content`), and
/// would not find them: then its messages are left as they are.
const MARKINGS: [Marking; 4] = [
    Marking { ends: true, assistant: true },
    Marking { ends: false, assistant: true },
    Marking { ends: true, assistant: false },
    Marking { ends: false, assistant: false },
];

impl Template {
    /// Renders a request of any shape, as [`Template::render_values`] does, for a vocabulary: what strings of
    /// the request spell (all but roles, and top-level values named `..._token`) does not become control tokens.
    pub fn render_for(
        &self,
        request: &Value,
        inputs: &TemplateInputs,
        tokenizer: &Tokenizer,
    ) -> Result<Rendered> {
        // One moment for all renderings, which are compared.
        let now = inputs.now.unwrap_or_else(|| chrono::Local::now().naive_local());
        let inputs = &TemplateInputs { now: Some(now), ..inputs.clone() };
        let text = self.render_values(request, inputs)?;
        let mut spells = false;
        let all = |text: &str| {
            spells |= !tokenizer.spelled(text, true).is_empty();
            text.to_string()
        };
        map_request(request, true, all);
        if !spells {
            return Ok(Rendered { text, breaks: Vec::new() });
        }
        // A noncharacter of Unicode that is nowhere else.
        let written = request.to_string();
        let is_free = |c: &char| {
            escapes_of(*c).iter().all(|form| !text.contains(form) && !written.contains(form))
        };
        let sentinel = ('\u{fdd0}'..='\u{fdef}').find(is_free).ok_or_else(|| {
            Error::Template("the conversation holds every noncharacter of Unicode".into())
        })?;
        let mut last = None;
        for marking in MARKINGS {
            let marked = map_request(request, marking.assistant, |text: &str| {
                let mut out = String::with_capacity(text.len() + 8);
                let mut start = 0;
                for at in tokenizer.spelled(text, marking.ends) {
                    out.push_str(&text[start..at]);
                    out.push(sentinel);
                    start = at;
                }
                out + &text[start..]
            });
            // A template may refuse what it does not understand.
            let Ok(rendered) = self.render_values(&marked, inputs) else { continue };
            let rendered = Rendered::without_sentinel(&rendered, sentinel);
            if rendered.text == text {
                return Ok(rendered);
            }
            last = Some(rendered);
        }
        // The template has looked at what a person or a tool wrote and taken the spelling for a mark. It is none:
        // the text stands as if it were not spelled so.
        Ok(last.unwrap_or_else(|| Rendered::plain(text, tokenizer)))
    }
}

/// A request with its strings changed: all but roles and top-level values named `..._token`, and the messages of the
/// assistant if `assistant`.
fn map_request(request: &Value, assistant: bool, mut change: impl FnMut(&str) -> String) -> Value {
    let Some(fields) = request.as_object() else { return request.clone() };
    let mut message = |message: &Value| {
        let role = message.get("role").and_then(Value::as_str);
        if role == Some("assistant") && !assistant {
            return message.clone();
        }
        let Some(fields) = message.as_object() else { return map_value(message, &mut change) };
        let map = |(name, value): (&String, &Value)| match name.as_str() {
            "role" => (name.clone(), value.clone()),
            _ => (change(name), map_value(value, &mut change)),
        };
        Value::Object(fields.iter().map(map).collect())
    };
    let mut messages = Value::Null;
    if let Some(list) = fields.get("messages").and_then(Value::as_array) {
        messages = list.iter().map(&mut message).collect();
    }
    let fields = fields.iter().map(|(name, value)| {
        let value = match name.as_str() {
            "messages" if value.is_array() => std::mem::take(&mut messages),
            name if name.ends_with("_token") => value.clone(),
            _ => map_value(value, &mut change),
        };
        (name.clone(), value)
    });
    Value::Object(fields.collect())
}

/// A value with all its strings changed, names of fields too.
fn map_value(value: &Value, change: &mut dyn FnMut(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => items.iter().map(|item| map_value(item, change)).collect(),
        Value::Object(fields) => Value::Object(
            fields.iter().map(|(name, value)| (change(name), map_value(value, change))).collect(),
        ),
        other => other.clone(),
    }
}
