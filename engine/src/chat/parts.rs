//! An answer in parts: what a model thinks, says, and calls. Families mark them in ways of their own; which one it is shows
//! in the chat template.

use super::calls::{Call, gemma_calls, llama_calls, mistral_calls, qwen_calls};

/// A part of an answer. Text and thoughts come in pieces as they become certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// What is said.
    Text(String),
    /// What is thought before.
    Thinking(String),
    /// A call of a tool.
    ToolCall {
        /// The tool's name.
        name: String,
        /// Its arguments, a JSON object.
        arguments: String,
    },
}

/// How a family marks parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// Nothing is marked.
    None,
    /// Llama 3: `<|python_tag|>`, or an answer that is a JSON object with name and parameters.
    Llama,
    /// Qwen, Hermes and many others: `<think>`, `<tool_call>` with JSON or tags inside.
    Qwen,
    /// Gemma 4: `<|channel>thought`, `<|tool_call>call:name{...}`.
    Gemma,
    /// Mistral: `[THINK]`, `[TOOL_CALLS]` with a JSON list, or names and `[ARGS]`.
    Mistral,
    /// gpt-oss's harmony: messages with a header that says channel and recipient.
    Harmony,
}

/// A marked stretch.
struct Span {
    open: &'static str,
    /// What ends it; none: the end of the answer.
    close: Option<&'static str>,
    /// How its calls are read; none: it is a thought.
    calls: Option<fn(&str) -> Vec<Call>>,
}

const THINK: Span = Span { open: "<think>", close: Some("</think>"), calls: None };

impl Marks {
    /// The marks of a chat template.
    pub fn of_template(template: &str) -> Self {
        let has = |text: &str| template.contains(text);
        if has("<|channel|>") && has("<|message|>") {
            Marks::Harmony
        } else if has("[TOOL_CALLS]") || has("[THINK]") {
            Marks::Mistral
        } else if has("<|tool_call>") || has("<|channel>") {
            Marks::Gemma
        } else if has("<tool_call>") || has("<think>") || has("</think>") {
            Marks::Qwen
        } else if has("<|python_tag|>") || (has("<|start_header_id|>") && has("\"parameters\"")) {
            Marks::Llama
        } else {
            Marks::None
        }
    }

    fn spans(self) -> &'static [Span] {
        match self {
            Marks::None | Marks::Harmony => &[],
            Marks::Llama => {
                &[Span { open: "<|python_tag|>", close: None, calls: Some(llama_calls) }, THINK]
            }
            Marks::Qwen => &[
                THINK,
                Span { open: "<tool_call>", close: Some("</tool_call>"), calls: Some(qwen_calls) },
            ],
            Marks::Gemma => &[
                Span { open: "<|channel>thought", close: Some("<channel|>"), calls: None },
                Span {
                    open: "<|tool_call>",
                    close: Some("<tool_call|>"),
                    calls: Some(gemma_calls),
                },
            ],
            Marks::Mistral => &[
                Span { open: "[THINK]", close: Some("[/THINK]"), calls: None },
                Span { open: "[TOOL_CALLS]", close: None, calls: Some(mistral_calls) },
                THINK,
            ],
        }
    }
}

/// Where in an answer the parser is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// In the span of that number.
    Span(usize),
    /// An answer of Llama's that began like a JSON object, and may be a call.
    Json,
    /// Before a message of harmony's.
    Header,
    /// In such a message.
    Message(Channel),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Text,
    Thinking,
    Call,
}

/// Cuts an answer into parts as it comes.
#[derive(Debug)]
pub struct PartParser {
    marks: Marks,
    state: State,
    /// Text that is not yet certain.
    held: String,
    /// Who a message of harmony's is for.
    recipient: String,
    /// Whether anything has come out yet.
    started: bool,
}

/// What ends a message of harmony's.
const MESSAGE_ENDS: [&str; 4] = ["<|end|>", "<|return|>", "<|call|>", "<|start|>"];

impl PartParser {
    /// A parser for an answer to a prompt that ends in `prompt`: some prompts open the thought themselves.
    pub fn new(marks: Marks, prompt: &str) -> Self {
        let prompt = prompt.trim_end();
        let thinking = marks
            .spans()
            .iter()
            .position(|span| span.calls.is_none() && prompt.ends_with(span.open));
        let state = match (marks, thinking) {
            (Marks::Harmony, _) => State::Header,
            (_, Some(span)) => State::Span(span),
            _ => State::Text,
        };
        let (held, recipient) = (String::new(), String::new());
        Self { marks, state, held, recipient, started: false }
    }

    /// Takes more of the answer, control tokens as they are written.
    pub fn push(&mut self, text: &str, on_part: &mut dyn FnMut(Part)) {
        self.held.push_str(text);
        while self.step(on_part) {}
    }

    /// The answer is over.
    pub fn finish(&mut self, on_part: &mut dyn FnMut(Part)) {
        while self.step(on_part) {}
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Text => self.say(&rest, on_part),
            State::Message(channel) => self.message(channel, &rest, on_part),
            // A header without a message; or no harmony at all.
            State::Header => {
                if !rest.contains("<|") {
                    self.say(&rest, on_part);
                }
            }
            State::Json => match llama_calls(&rest) {
                calls if calls.is_empty() => self.say(&rest, on_part),
                calls => give_calls(calls, on_part),
            },
            State::Span(index) => self.end_span(index, &rest, on_part),
        }
        self.state = State::Text;
    }

    /// Takes one mark out of what is held, if there is one; gives out what is certain.
    fn step(&mut self, on_part: &mut dyn FnMut(Part)) -> bool {
        let spans = self.marks.spans();
        match self.state {
            State::Text => {
                if self.marks == Marks::Llama && !self.started {
                    let start = self.held.trim_start();
                    if start.starts_with('{') {
                        self.state = State::Json;
                        return false;
                    }
                    if start.is_empty() {
                        return false;
                    }
                }
                let found = spans
                    .iter()
                    .enumerate()
                    .filter_map(|(index, span)| self.held.find(span.open).map(|at| (at, index)));
                if let Some((at, index)) = found.min() {
                    let before = self.take(at);
                    self.say(&before, on_part);
                    self.take(spans[index].open.len());
                    self.state = State::Span(index);
                    return true;
                }
                let certain = certain(&self.held, spans.iter().map(|span| span.open));
                let text = self.take(certain);
                self.say(&text, on_part);
                false
            }
            State::Span(index) => {
                let Some(close) = spans[index].close else { return false };
                if let Some(at) = self.held.find(close) {
                    let inside = self.take(at);
                    self.take(close.len());
                    self.end_span(index, &inside, on_part);
                    self.state = State::Text;
                    return true;
                }
                if spans[index].calls.is_none() {
                    let certain = certain(&self.held, std::iter::once(close));
                    let text = self.take(certain);
                    think(&text, on_part);
                }
                false
            }
            State::Json => false,
            State::Header => {
                let Some(at) = self.held.find("<|message|>") else { return false };
                let header = self.take(at);
                self.take("<|message|>".len());
                self.state = State::Message(self.read_header(&header));
                true
            }
            State::Message(channel) => {
                let found = MESSAGE_ENDS.iter().filter_map(|end| Some((self.held.find(end)?, end)));
                if let Some((at, end)) = found.min() {
                    let inside = self.take(at);
                    self.take(end.len());
                    self.message(channel, &inside, on_part);
                    self.state = State::Header;
                    return true;
                }
                if channel != Channel::Call {
                    let certain = certain(&self.held, MESSAGE_ENDS.into_iter());
                    let text = self.take(certain);
                    self.message(channel, &text, on_part);
                }
                false
            }
        }
    }

    /// Takes the first bytes of what is held.
    fn take(&mut self, bytes: usize) -> String {
        self.held.drain(..bytes).collect()
    }

    fn say(&mut self, text: &str, on_part: &mut dyn FnMut(Part)) {
        // The lines between a thought, or a call, and what is said belong to neither.
        let text = if self.started { text } else { text.trim_start_matches('\n') };
        if !text.is_empty() {
            self.started = true;
            on_part(Part::Text(text.into()));
        }
    }

    fn end_span(&mut self, index: usize, inside: &str, on_part: &mut dyn FnMut(Part)) {
        let span = &self.marks.spans()[index];
        let Some(calls) = span.calls else { return think(inside, on_part) };
        match calls(inside) {
            // No call after all: nothing that a model said is lost.
            calls if calls.is_empty() => {
                let close = span.close.unwrap_or_default();
                self.say(&format!("{}{inside}{close}", span.open), on_part);
            }
            calls => give_calls(calls, on_part),
        }
    }

    /// The channel of a header such as `<|channel|>commentary to=functions.get_weather <|constrain|>json`.
    fn read_header(&mut self, header: &str) -> Channel {
        let after = |mark: &str| {
            let at = header.find(mark)? + mark.len();
            header[at..].split(|c: char| c.is_whitespace() || c == '<').next()
        };
        if let Some(recipient) = after("to=") {
            self.recipient = recipient.strip_prefix("functions.").unwrap_or(recipient).into();
            return Channel::Call;
        }
        if after("<|channel|>") == Some("analysis") { Channel::Thinking } else { Channel::Text }
    }

    fn message(&mut self, channel: Channel, text: &str, on_part: &mut dyn FnMut(Part)) {
        match channel {
            Channel::Text => self.say(text, on_part),
            Channel::Thinking => think(text, on_part),
            Channel::Call => {
                let name = std::mem::take(&mut self.recipient);
                on_part(Part::ToolCall { name, arguments: text.trim().into() });
            }
        }
    }
}

fn think(text: &str, on_part: &mut dyn FnMut(Part)) {
    if !text.is_empty() {
        on_part(Part::Thinking(text.into()));
    }
}

fn give_calls(calls: Vec<Call>, on_part: &mut dyn FnMut(Part)) {
    for (name, arguments) in calls {
        on_part(Part::ToolCall { name, arguments });
    }
}

/// How many bytes of a text cannot be the start of a mark.
fn certain(text: &str, marks: impl Iterator<Item = &'static str>) -> usize {
    let begun = marks
        .flat_map(|mark| (1..mark.len()).filter(|&n| mark.is_char_boundary(n)).map(|n| &mark[..n]))
        .filter(|start| text.ends_with(start))
        .map(str::len)
        .max();
    text.len() - begun.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of an answer that comes in pieces of `size` characters, neighbours of a kind joined.
    fn parts(marks: Marks, prompt: &str, answer: &str, size: usize) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut add = |part: Part| match (parts.last_mut(), part) {
            (Some(Part::Text(all)), Part::Text(more))
            | (Some(Part::Thinking(all)), Part::Thinking(more)) => all.push_str(&more),
            (_, part) => parts.push(part),
        };
        let mut parser = PartParser::new(marks, prompt);
        let chars: Vec<char> = answer.chars().collect();
        for piece in chars.chunks(size) {
            parser.push(&piece.iter().collect::<String>(), &mut add);
        }
        parser.finish(&mut add);
        parts
    }

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn thinking(text: &str) -> Part {
        Part::Thinking(text.into())
    }

    fn call(arguments: &str) -> Part {
        Part::ToolCall { name: "get_weather".into(), arguments: arguments.into() }
    }

    #[test]
    fn families_mark_parts_in_their_ways() {
        let json = r#"{"city":"Zürich"}"#;
        let cases: &[(Marks, &str, &str, Vec<Part>)] = &[
            (Marks::None, "", "a <think> b", vec![text("a <think> b")]),
            (
                Marks::Qwen,
                "",
                "<think>\nhm\n</think>\n\nSo: <b>\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\"}}\n</tool_call>",
                vec![thinking("\nhm\n"), text("So: <b>\n"), call(json)],
            ),
            (
                Marks::Qwen,
                "<|im_start|>assistant\n<think>\n",
                "hm</think>yes",
                vec![thinking("hm"), text("yes")],
            ),
            (
                Marks::Qwen,
                "",
                "<tool_call>\n<function=get_weather>\n<parameter=city>\nZürich\n</parameter>\n</function>\n</tool_call>",
                vec![call(json)],
            ),
            (
                Marks::Qwen,
                "",
                "<tool_call>nothing</tool_call>",
                vec![text("<tool_call>nothing</tool_call>")],
            ),
            (
                Marks::Llama,
                "",
                r#"{"name": "get_weather", "parameters": {"city": "Zürich"}}"#,
                vec![call(json)],
            ),
            (Marks::Llama, "", r#"{"a": 1}"#, vec![text(r#"{"a": 1}"#)]),
            (Marks::Llama, "", "\n\nPlain {x}", vec![text("Plain {x}")]),
            (
                Marks::Llama,
                "",
                r#"<|python_tag|>{"name": "get_weather", "parameters": {"city": "Zürich"}}"#,
                vec![call(json)],
            ),
            (
                Marks::Gemma,
                "",
                "<|channel>thought\nhm<channel|>Well.<|tool_call>call:get_weather{city:<|\"|>Zürich<|\"|>}<tool_call|>",
                vec![thinking("\nhm"), text("Well."), call(json)],
            ),
            (
                Marks::Mistral,
                "",
                "[THINK]hm[/THINK]ok[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\"}}]",
                vec![thinking("hm"), text("ok"), call(json)],
            ),
            (
                Marks::Mistral,
                "",
                "[TOOL_CALLS]get_weather[ARGS]{\"city\":\"Zürich\"}",
                vec![call(json)],
            ),
            (
                Marks::Harmony,
                "<|start|>assistant",
                "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\":\"Zürich\"}<|call|>",
                vec![thinking("hm"), call(json)],
            ),
            (
                Marks::Harmony,
                "<|start|>assistant",
                "<|channel|>final<|message|>Rain.<|return|>",
                vec![text("Rain.")],
            ),
        ];
        for (marks, prompt, answer, expected) in cases {
            for size in [1, 3, 7, 1000] {
                let ours = parts(*marks, prompt, answer, size);
                assert_eq!(&ours, expected, "{marks:?} {answer:?} in pieces of {size}");
            }
        }
    }
}
