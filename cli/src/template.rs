//! `engine template`: the text of a conversation, as a chat template renders it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use engine::Tokenizer;
use engine::internals::chat::{Template, TemplateInputs};
use serde_json::Value;

use crate::{models, output};

/// Print the text of a request as a model's chat template renders it, without a newline at its end.
#[derive(clap::Args)]
#[command(
    after_help = "A request: {\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"tools\": [...], \"add_generation_prompt\": true, ...}\n\nExamples:\n  engine template smollm2:135m request.json\n  engine template --file chat.jinja request.json --now 2026-07-26T12:00:00"
)]
pub struct Args {
    /// A model (not with --file), then a JSON file with the request, or - for stdin
    #[arg(num_args = 1..=2, required = true, value_names = ["MODEL", "REQUEST.json"])]
    words: Vec<OsString>,
    /// A template's file, instead of a model's template
    #[arg(long)]
    file: Option<PathBuf>,
    /// The time that templates are told, as 2026-07-26T12:00:00 [default: now]
    #[arg(long)]
    now: Option<chrono::NaiveDateTime>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let (template, inputs, request) = match (&args.file, args.words.as_slice()) {
        (Some(path), [request]) => {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            (Template::new(&String::from_utf8_lossy(&bytes))?, TemplateInputs::default(), request)
        }
        (None, [model, request]) => {
            let file = models::open(model)?;
            let Some(template) = Template::from_metadata(&file.metadata)? else {
                bail!("{}: the file has no chat template; --file names one", model.display());
            };
            let tokenizer = Tokenizer::from_metadata(&file.metadata)?;
            let text = |id: Option<u32>| id.map_or_else(String::new, |id| tokenizer.text(id));
            let inputs = TemplateInputs {
                bos_token: text(tokenizer.bos),
                eos_token: text(tokenizer.eos),
                now: None,
            };
            (template, inputs, request)
        }
        _ => bail!("give a model and a request, or --file TEMPLATE and a request"),
    };
    let text = if request == "-" {
        crate::tokenize::read_stdin()?
    } else {
        std::fs::read_to_string(request).with_context(|| request.display().to_string())?
    };
    let mut request: Value = serde_json::from_str(&text)
        .with_context(|| format!("{}: not a JSON request", request.display()))?;
    let Some(fields) = request.as_object_mut() else {
        bail!("the request is no JSON object: expected {{\"messages\": [...]}}");
    };
    if !fields.get("messages").is_some_and(Value::is_array) {
        bail!("the request has no list \"messages\"");
    }
    fields.entry("add_generation_prompt").or_insert(Value::Bool(true));
    let inputs = TemplateInputs { now: args.now, ..inputs };
    output::print_text(&template.render_values(&request, &inputs)?)?;
    Ok(ExitCode::SUCCESS)
}
