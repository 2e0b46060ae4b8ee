//! From what a person writes for a model to a file on this machine.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use engine::ModelFile;
use engine::{Device, LoadOptions, Model};
use gguf::{Gguf, Value};
use indicatif::ProgressBar;
use std::sync::{Arc, OnceLock};

use crate::{catalogue, hub, output, progress};

/// What a person writes for a model: a path, whose bytes need be no UTF-8, or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName(OsString);

impl ModelName {
    /// The name as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> Cow<'_, str> {
        self.0.to_string_lossy()
    }

    /// The names that llama-bench reads out of `a.gguf,b.gguf`; one name where there is such a file.
    pub fn split(&self) -> Vec<Self> {
        match self.0.to_str() {
            Some(text) if text.contains(',') && !Path::new(text).exists() => {
                text.split(',').filter(|part| !part.is_empty()).map(Self::from).collect()
            }
            _ => vec![self.clone()],
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl From<OsString> for ModelName {
    fn from(name: OsString) -> Self {
        Self(name)
    }
}

impl From<&str> for ModelName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl AsRef<OsStr> for ModelName {
    fn as_ref(&self) -> &OsStr {
        &self.0
    }
}

/// A file's path, a catalogue name, a name on the hub or a link; fetched if it is not here yet.
pub fn resolve(name: impl AsRef<OsStr>) -> Result<PathBuf> {
    let path = Path::new(name.as_ref());
    if path.is_dir() {
        bail!("{}: a folder, not a model; name the .gguf file in it", path.display());
    }
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    // Only paths may be other than UTF-8.
    let Some(name) = name.as_ref().to_str() else { bail!("{}: no such file", path.display()) };
    if name.is_empty() {
        bail!("the model's name is empty: give a file, a short name or a name on the hub");
    }
    if let Some(wanted) = hub::parse(name)? {
        return hub::fetch(&wanted, false);
    }
    let like_a_path =
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
            || path.is_absolute()
            || name.starts_with("./")
            || name.starts_with("../");
    if like_a_path {
        bail!("{name}: no such file");
    }
    if let Some(entry) = catalogue::find(name)? {
        return catalogue::fetch(&entry);
    }
    let known: Vec<_> = catalogue::load()?.models.into_iter().map(|model| model.name).collect();
    bail!(
        "{name}: no such file, and no model of that name; there are {}, names on the hub (user/repo[:quant]), links to .gguf files and paths",
        known.join(", ")
    )
}

/// What `--override` asked for.
static OVERRIDES: OnceLock<Vec<String>> = OnceLock::new();

/// Keeps what `--override` asked for, for every file opened after this.
pub fn set_overrides(overrides: Vec<String>) {
    // Set once, by main.
    let _ = OVERRIDES.set(overrides);
}

/// Opens a model's file by any name that a person writes for it.
pub fn open(name: impl AsRef<OsStr>) -> Result<Gguf> {
    open_path(&resolve(name)?)
}

/// Opens a file, its metadata changed as `--override` asks.
pub fn open_path(path: &Path) -> Result<Gguf> {
    let mut file = Gguf::open(path)?;
    for change in OVERRIDES.get().into_iter().flatten() {
        let Some((key, value)) = change.split_once('=') else {
            bail!("--override {change}: expected KEY=VALUE");
        };
        let value = new_value(file.metadata.get(key), value)
            .with_context(|| format!("--override {change}"))?;
        file.metadata.set(key, value);
    }
    Ok(file)
}

/// A value as it is written: of the type that it replaces, or of the type named before it.
fn new_value(old: Option<&Value>, text: &str) -> Result<Value> {
    let typed =
        text.split_once(':').filter(|(kind, _)| matches!(*kind, "str" | "bool" | "int" | "float"));
    let old = match (typed, old) {
        (Some(("str", _)), _) | (None, None) => &Value::String(Vec::new()),
        (Some(("bool", _)), _) => &Value::Bool(false),
        (Some(("float", _)), _) => &Value::F32(0.0),
        (Some(_), _) => &Value::I64(0),
        (None, Some(old)) => old,
    };
    let text = typed.map_or(text, |(_, text)| text);
    Ok(match old {
        Value::String(_) => Value::String(text.as_bytes().to_vec()),
        Value::Bool(_) => Value::Bool(text.parse().context("expected true or false")?),
        Value::F32(_) | Value::F64(_) => Value::F32(text.parse().context("expected a number")?),
        Value::Array(_) => bail!("the key holds an array, which cannot be replaced"),
        _ => Value::I64(text.parse().context("expected a whole number")?),
    })
}

/// Opens a model that is to be computed with, by any name that a person writes for it.
pub fn open_model(name: impl AsRef<OsStr>) -> Result<ModelFile> {
    Ok(ModelFile::from_gguf(open(name)?)?)
}

/// Loads an opened model, with a bar on stderr where it is a terminal.
pub fn load_file(device: &Device, file: ModelFile, options: &LoadOptions) -> Result<Arc<Model>> {
    // The CPU maps the file: there is nothing to wait for and no bar.
    let mut shown: Option<ProgressBar> = None;
    let model =
        Model::load_file(std::slice::from_ref(device), file, options, &mut |done, total| {
            shown.get_or_insert_with(|| progress::bar(total, "loading")).set_position(done);
        })?;
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    for warning in model.warnings() {
        output::say(warning);
    }
    Ok(model)
}
