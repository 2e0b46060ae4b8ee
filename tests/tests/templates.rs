//! Chat templates against Python's jinja2.

use std::path::PathBuf;

use engine::internals::chat::{Template, TemplateInputs};
use serde_json::Value;

/// Conversations, with tools and without, rendered by known models' templates, where `ENGINE_GOLDENS` names the folder.
#[test]
fn known_templates_render_as_in_python() {
    let Some(folder) = std::env::var_os("ENGINE_GOLDENS") else {
        println!("SKIPPED: ENGINE_GOLDENS does not name the folder of templates");
        return;
    };
    let folder = PathBuf::from(folder).join("templates");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let golden: Value = serde_json::from_str(&read("cases.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let inputs = TemplateInputs {
        bos_token: text(&golden["bos_token"]),
        eos_token: text(&golden["eos_token"]),
        now: Some(text(&golden["now"]).parse().unwrap()),
    };
    let (mut equal, mut wrong) = (0, Vec::new());
    for case in golden["cases"].as_array().unwrap() {
        let name = format!("{} {}", text(&case["template"]), text(&case["case"]));
        let template = Template::new(&read(&text(&case["template"])))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut request = golden["inputs"][text(&case["case"])].clone();
        if request.get("add_generation_prompt").is_none() {
            request["add_generation_prompt"] = true.into();
        }
        let rendered = template.render_values(&request, &inputs);
        match (&case["expected"], rendered) {
            (Value::Null, Err(_)) => equal += 1,
            (Value::String(expected), Ok(ours)) if *expected == ours => equal += 1,
            (expected, Ok(ours)) => {
                // From shortly before the first difference on.
                let expected = expected.as_str().unwrap_or("an error");
                let same = ours.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
                let part = |text: &str| -> String {
                    text.chars().skip(same.saturating_sub(60)).take(140).collect()
                };
                wrong.push(format!("{name}:\n  {:?}\n  {:?}", part(&ours), part(expected)));
            }
            (_, Err(error)) => wrong.push(format!("{name}: {error}")),
        }
    }
    println!("{equal} equal, {} not", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(equal, golden["cases"].as_array().unwrap().len());
}
