//! Calls of tools out of what a model writes for them, in the ways of the families.

use serde_json::{Map, Value};

/// A call: name and arguments.
pub(super) type Call = (String, String);

/// The call in a JSON object with a name, and arguments or parameters.
fn call_of(value: &Value) -> Option<Call> {
    let object = value.get("function").filter(|f| f.is_object()).unwrap_or(value);
    let name = object.get("name")?.as_str()?;
    let arguments = object.get("arguments").or_else(|| object.get("parameters"));
    let arguments = match arguments {
        // Some write the object as a string once more.
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "{}".into(),
    };
    Some((name.into(), arguments))
}

/// One object or a list of them.
fn json_calls(text: &str) -> Vec<Call> {
    match serde_json::from_str::<Value>(text.trim()) {
        Ok(Value::Array(items)) => items.iter().filter_map(call_of).collect(),
        Ok(value) => call_of(&value).into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

/// JSON objects one after the other, with `;` between them.
pub(super) fn llama_calls(text: &str) -> Vec<Call> {
    let calls = json_calls(text);
    if calls.is_empty() { text.split(';').flat_map(json_calls).collect() } else { calls }
}

/// JSON, or `<function=name><parameter=key>value</parameter>...</function>`.
pub(super) fn qwen_calls(text: &str) -> Vec<Call> {
    let between = |text: &'_ str, open: &str, close: char| -> Option<(String, usize)> {
        let start = text.find(open)? + open.len();
        let end = start + text[start..].find(close)?;
        Some((text[start..end].trim().to_string(), end + 1))
    };
    let Some((name, at)) = between(text, "<function=", '>') else { return json_calls(text) };
    let mut arguments = Map::new();
    let mut rest = &text[at..];
    while let Some((key, at)) = between(rest, "<parameter=", '>') {
        let Some(end) = rest[at..].find("</parameter>") else { break };
        let value = rest[at..at + end].trim_matches('\n');
        let json = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
        arguments.insert(key, json);
        rest = &rest[at + end..];
    }
    vec![(name, Value::Object(arguments).to_string())]
}

/// `call:name{key:<|"|>text<|"|>,other:1}`.
pub(super) fn gemma_calls(text: &str) -> Vec<Call> {
    const QUOTE: &str = "<|\"|>";
    let Some((name, body)) = text.trim().strip_prefix("call:").and_then(|call| {
        let at = call.find('{')?;
        Some((call[..at].trim().to_string(), &call[at..]))
    }) else {
        return Vec::new();
    };
    let mut json = String::new();
    for (index, piece) in body.split(QUOTE).enumerate() {
        if index % 2 == 1 {
            json.push_str(&Value::from(piece).to_string());
            continue;
        }
        // Keys stand without quotes, before a colon.
        let mut word = String::new();
        for c in piece.chars() {
            if c.is_alphanumeric() || "_-.".contains(c) {
                word.push(c);
                continue;
            }
            let quoted = c == ':' && !word.is_empty();
            json.push_str(&if quoted {
                Value::from(word.as_str()).to_string()
            } else {
                word.clone()
            });
            word.clear();
            json.push(c);
        }
        json.push_str(&word);
    }
    match serde_json::from_str::<Value>(&json) {
        Ok(value) => vec![(name, value.to_string())],
        Err(_) => Vec::new(),
    }
}

/// A JSON list, or names each with `[ARGS]` and an object, `[TOOL_CALLS]` between them.
pub(super) fn mistral_calls(text: &str) -> Vec<Call> {
    let calls = json_calls(text);
    if !calls.is_empty() {
        return calls;
    }
    text.split("[TOOL_CALLS]")
        .filter_map(|call| {
            let (name, arguments) = call.split_once("[ARGS]")?;
            // Some put an id between.
            let name = name.split("[CALL_ID]").next().unwrap_or(name).trim();
            Some((name.into(), arguments.trim().into()))
        })
        .collect()
}
