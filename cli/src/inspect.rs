//! `engine inspect`: what a model file is and what it needs.

use std::borrow::Cow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use engine::internals::model::{parameters, predict};
use engine::{ContextOptions, Device, Memory, ModelFile, Precision};
use gguf::Gguf;
use serde_json::{Map, Value, json};

use crate::model_info::{quantization, tensor_bytes, tensor_types};
use crate::models::ModelName;
use crate::options::{ContextArgs, DeviceArgs};
use crate::{models, output};

/// Show what a model file is and what it needs.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  engine inspect smollm2:135m\n  engine show model.gguf --ctx 32768 --json"
)]
pub struct Args {
    /// A file, a catalogue name or a name on the hub
    model: ModelName,
    /// Also list every tensor
    #[arg(long)]
    tensors: bool,
    /// Also list every metadata key
    #[arg(long)]
    metadata: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// A section of the output: title, rows of name and value.
type Section = (&'static str, Vec<(String, String)>);

/// What is known of a file.
struct Report<'a> {
    path: &'a Path,
    file: &'a Gguf,
    /// None if its architecture is unknown, or its metadata wrong.
    model: Option<&'a ModelFile>,
    architecture: String,
    device: &'a Device,
    options: &'a ContextOptions,
    /// What it takes on the device, and the positions of its context; or why that is not known.
    memory: Result<(Memory, usize), String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let path = models::resolve(&args.model)?;
    let file = models::open_path(&path)?;
    // A file of an unknown architecture is still shown, without what its memory would be.
    let model = ModelFile::from_gguf(file.clone());
    let layers = model.as_ref().ok().map(|model| model.spec.layers.len());
    let device = args.device.open_for(Precision::F16Tiles, layers)?;
    // As `engine run` would use it.
    let options = match &model {
        Ok(model) => args.context.options(&model.spec),
        Err(_) => args.context.options_without_model(),
    };
    let options = ContextOptions { outputs: Some(1), ..options };
    let memory = model.as_ref().map_err(ToString::to_string).and_then(|model| {
        let memory = predict(model, &device, &options, Precision::F16Tiles)
            .map_err(|error| error.to_string())?;
        let positions = options.sizes(&model.spec).map_err(|error| error.to_string())?.positions;
        Ok((memory, positions))
    });
    let architecture =
        file.metadata.text("general.architecture").map_or("unknown".into(), Cow::into_owned);
    let report = Report {
        path: &path,
        file: &file,
        model: model.as_ref().ok(),
        architecture,
        device: &device,
        options: &options,
        memory,
    };
    if args.json {
        output::print_json(&report.json(args))?;
    } else {
        print_sections(&report.sections(args))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_sections(sections: &[Section]) -> Result<()> {
    for (title, rows) in sections {
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(16);
        output::print_line(&format!("  {title}"))?;
        for (name, value) in rows {
            output::print_line(format!("    {name:<width$}    {value}").trim_end())?;
        }
        output::print_line("")?;
    }
    Ok(())
}

impl Report<'_> {
    /// A whole number of the architecture's metadata.
    fn key(&self, name: &str) -> Option<u32> {
        self.file.metadata.u32(&format!("{}.{name}", self.architecture)).ok().flatten()
    }

    fn bits_per_weight(&self) -> f64 {
        let count = parameters(self.file);
        if count == 0 { 0.0 } else { tensor_bytes(self.file) as f64 * 8.0 / count as f64 }
    }

    /// What the model is for, in a word.
    fn capability(&self) -> &'static str {
        let pooling = self.key("pooling_type");
        let embeds = self
            .model
            .map_or(pooling.is_some_and(|kind| kind > 0), |model| model.spec.pooling.is_some());
        match pooling {
            Some(4) => "reranking",
            _ if embeds => "embedding",
            _ if self.file.metadata.get("tokenizer.chat_template").is_some() => "chat",
            _ => "completion",
        }
    }

    fn json(&self, args: &Args) -> Value {
        let file = self.file;
        let types: Map<String, Value> = tensor_types(file)
            .into_iter()
            .map(|(name, t)| {
                (name, json!({ "tensors": t.tensors, "elements": t.elements, "bytes": t.bytes }))
            })
            .collect();
        let memory = match &self.memory {
            Ok((memory, positions)) => json!({
                "device": self.device.name(),
                "context": positions,
                "weights": memory.weights,
                "kv": memory.kv,
                "compute": memory.compute,
                "staging": memory.staging,
                "total": memory.total(),
            }),
            Err(why) => json!({ "error": why }),
        };
        let mut object = json!({
            "path": self.path.to_string_lossy(),
            "file_bytes": file.file_bytes(),
            "gguf_version": file.version,
            "architecture": self.architecture,
            "name": file.metadata.text("general.name"),
            "parameters": parameters(file),
            "context_length": self.key("context_length"),
            "embedding_length": self.key("embedding_length"),
            "block_count": self.key("block_count"),
            "quantization": quantization(file),
            "bits_per_weight": self.bits_per_weight(),
            "license": file.metadata.text("general.license"),
            "capabilities": [self.capability()],
            "chat_template": file.metadata.get("tokenizer.chat_template").is_some(),
            "tensor_types": types,
            "memory": memory,
        });
        if args.tensors {
            object["tensors"] = file
                .tensors
                .iter()
                .map(|t| json!({ "name": t.name, "type": t.tensor_type.name(), "shape": t.shape, "bytes": t.bytes }))
                .collect();
        }
        if args.metadata {
            let entries: Map<String, Value> = file
                .metadata
                .iter()
                .map(|(key, value)| (key.into(), value.to_string().into()))
                .collect();
            object["metadata"] = entries.into();
        }
        object
    }

    fn sections(&self, args: &Args) -> Vec<Section> {
        let file = self.file;
        let number = |name: &str| self.key(name).map_or("unknown".into(), |n| n.to_string());
        let types = tensor_types(file).into_iter().map(|(name, t)| {
            let (elements, bytes) = (output::count(t.elements, ""), output::bytes(t.bytes));
            (name, format!("{:>4} tensors  {elements:>9}  {bytes:>11}", t.tensors))
        });
        let mut sections: Vec<Section> = vec![
            (
                "Model",
                vec![
                    row("architecture", self.architecture.clone()),
                    row("parameters", output::count(parameters(file), "")),
                    row("context length", number("context_length")),
                    row("embedding length", number("embedding_length")),
                    row("quantization", quantization(file)),
                    row("bits per weight", format!("{:.2}", self.bits_per_weight())),
                    row("file size", output::bytes(file.file_bytes())),
                ],
            ),
            ("Tensors", types.collect()),
            ("Capabilities", vec![row(self.capability(), String::new())]),
            ("Memory", self.memory_rows()),
        ];
        if let Some(license) = file.metadata.text("general.license") {
            sections.push(("License", vec![row(&license, String::new())]));
        }
        if args.metadata {
            sections.push((
                "Metadata",
                file.metadata.iter().map(|(k, v)| (k.into(), short(&v.to_string()))).collect(),
            ));
        }
        if args.tensors {
            let tensor = |t: &gguf::TensorInfo| {
                (t.name.clone(), format!("{:<6} {:?}", t.tensor_type.name(), t.shape))
            };
            sections.push(("All tensors", file.tensors.iter().map(tensor).collect()));
        }
        sections
    }

    fn memory_rows(&self) -> Vec<(String, String)> {
        let (memory, positions) = match &self.memory {
            Ok(known) => known,
            Err(why) => return vec![row("unknown", why.clone())],
        };
        let (keys, values) = (self.options.key_type.name(), self.options.value_type.name());
        vec![
            row("device", self.device.name()),
            row("context", format!("{positions}, keys {keys}, values {values}")),
            row("weights", output::bytes(memory.weights)),
            row("cache", output::bytes(memory.kv)),
            row("compute", output::bytes(memory.compute)),
            row("staging", output::bytes(memory.staging)),
            row("total", output::bytes(memory.total())),
        ]
    }
}

fn row(name: &str, value: String) -> (String, String) {
    (name.to_string(), value)
}

/// A value in one line of the terminal.
fn short(text: &str) -> String {
    let line: String = text.chars().take(100).collect();
    if line.len() < text.len() { format!("{line}...") } else { line }
}
