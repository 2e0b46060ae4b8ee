//! Any text as a chat template, behind a zero byte what a person says: the template is refused or rendered, with tools and
//! without, and what is rendered is cut into ids.
#![no_main]

use std::sync::LazyLock;

use engine::Tokenizer;
use engine::internals::chat::{Template, TemplateInputs};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| engine_fuzz::tokenizers().remove(0));

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (source, said) = text.split_once('\0').unwrap_or((&text, "Hi <|im_end|> there"));
    let Ok(template) = Template::new(source) else { return };
    let inputs = TemplateInputs {
        bos_token: "<s>".into(),
        eos_token: "</s>".into(),
        // The same text each time.
        now: Some("2026-01-02T03:04:05".parse().unwrap()),
    };
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": said},
        {"role": "assistant", "content": "<think>so</think>Yes.", "tool_calls": [
            {"type": "function", "function": {"name": "look", "arguments": {"at": [1, 2.5, null]}}},
        ]},
        {"role": "tool", "content": "{\"a\": \"b\"}"},
        {"role": "user", "content": [{"type": "text", "text": said}]},
    ]);
    let parameters = json!({"type": "object", "properties": {"at": {"type": "array"}}});
    let tools = json!([{"type": "function", "function": {
        "name": "look", "description": "Looks.", "parameters": parameters,
    }}]);
    for request in [
        json!({"messages": messages, "tools": tools, "add_generation_prompt": true}),
        json!({"messages": [messages[1]], "add_generation_prompt": false}),
    ] {
        let Ok(rendered) = template.render_for(&request, &inputs, &TOKENIZER) else { continue };
        assert!(rendered.breaks().is_sorted());
        assert!(rendered.breaks().iter().all(|&at| rendered.text().is_char_boundary(at)));
        // Longer ones only take time, which the target for tokenizers has more use for.
        if rendered.text().len() < 1 << 16 {
            TOKENIZER.encode_rendered(&rendered).unwrap();
        }
    }
});
