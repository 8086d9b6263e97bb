//! How far what takes long has come.

use indicatif::{ProgressBar, ProgressStyle};

/// Shown where somebody watches.
pub fn bar(what: &'static str, whole: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}");
    ProgressBar::new(whole).with_style(style.expect("the template is right")).with_message(what)
}
