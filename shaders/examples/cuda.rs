//! Writes kernel variants for `checks/nvrtc`, a line of JSON each: the variant, its text, the products of a turn.
//!
//! `cargo run --release -p shaders --example cuda -- VARIANT...`, or with variants on stdin, one a line.

use std::io::BufRead as _;

use shaders::Variant;

/// A text as JSON.
fn quoted(text: &str) -> String {
    let escaped: Vec<String> = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            '\n' => "\\n".into(),
            '\t' => "\\t".into(),
            _ => c.into(),
        })
        .collect();
    format!("\"{}\"", escaped.concat())
}

fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = std::io::stdin().lock().lines().map_while(Result::ok).collect();
    }
    for name in names {
        let variant: Variant = name.parse().expect("a variant");
        let kernel = variant.build().unwrap_or_else(|why| panic!("{why}"));
        let text = kernel.text_for_cuda().unwrap_or_else(|why| panic!("{why}"));
        let products = kernel.products_a_turn().map_or("null".into(), |n| n.to_string());
        println!(
            "{{\"name\":{},\"text\":{},\"products\":{products}}}",
            quoted(&name),
            quoted(&text)
        );
    }
}
