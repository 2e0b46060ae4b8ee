//! What a person sees of work that takes long: bars and counters of bytes on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// A bar of bytes on stderr; nothing where stderr is no terminal.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(output::harmless(what).into_owned());
    bar
}

/// A count of bytes on stderr, where the total is not known; nothing where stderr is no terminal.
pub fn counter(what: &str) -> ProgressBar {
    let counter = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes} {bytes_per_sec}") {
        counter.set_style(style);
    }
    counter.set_message(output::harmless(what).into_owned());
    counter.enable_steady_tick(Duration::from_millis(100));
    counter
}
