//! From what a person writes for a model to a file on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use engine::model::ModelFile;
use engine::{Device, LoadOptions, Model};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;

use crate::{catalogue, hub};

/// A file's path, a catalogue name, or a name on the hub; fetched if it is not here yet.
pub fn resolve(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.to_path_buf());
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
    if let Some(name) = hub::Name::parse(name) {
        return hub::fetch(&name);
    }
    let known: Vec<_> = catalogue::load()?.models.into_iter().map(|model| model.name).collect();
    bail!(
        "{name}: no such file, and no model of that name; there are {}, names on the hub (user/repo[:quant]) and paths",
        known.join(", ")
    )
}

/// Loads a model, with a bar on stderr where it is a terminal.
pub fn load(device: &Device, path: &Path, options: &LoadOptions) -> Result<Arc<Model>> {
    load_file(device, ModelFile::open(path)?, options)
}

/// Loads an opened model, with a bar on stderr where it is a terminal.
pub fn load_file(device: &Device, file: ModelFile, options: &LoadOptions) -> Result<Arc<Model>> {
    // The CPU maps the file: there is nothing to wait for and no bar.
    let mut shown: Option<ProgressBar> = None;
    let model =
        Model::load_file(std::slice::from_ref(device), file, options, &mut |done, total| {
            shown.get_or_insert_with(|| bar(total, "loading")).set_position(done);
        })?;
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    for warning in model.warnings() {
        eprintln!("{warning}");
    }
    Ok(model)
}

/// A bar of bytes on stderr; nothing where stderr is no terminal.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_string());
    bar
}

/// A count of bytes on stderr, where the total is not known; nothing where stderr is no terminal.
pub fn counter(what: &str) -> ProgressBar {
    let counter = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes} {bytes_per_sec}") {
        counter.set_style(style);
    }
    counter.set_message(what.to_string());
    counter.enable_steady_tick(std::time::Duration::from_millis(100));
    counter
}
