//! `engine bench --roofline`: the kernels of products by format, beside what the device could do.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use engine::Precision;
use engine::internals::check::tune::{self, Measurement};
use engine::internals::gpu::Gpu;
use engine::internals::gpu::choice::{Count, Family, Kernels, ProductShape};
use engine::internals::profile::Roof;
use gguf::Format;
use serde_json::{Value, json};

use crate::output;

/// Formats whose products are measured: those that most files are made of.
const FORMATS: [Format; 8] = [
    Format::F16,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::IQ4_XS,
    Format::MXFP4,
];
/// Rows and columns of the matrices that are measured, on a card and on a software driver.
const SIDES: [usize; 2] = [4096, 1024];

/// Measures the kernels that the device would use by default, for one token and for many, on matrices that together are
/// more than most caches hold.
pub fn measure(gpu: &Arc<Gpu>, precision: Precision) -> Result<Vec<Measurement>> {
    let kernels = Kernels { precision, tuned: BTreeMap::new(), ..gpu.kernels.clone() };
    let side = SIDES[usize::from(kernels.adapter.family == Family::Software)];
    let mut all = Vec::new();
    for format in FORMATS {
        let count = Count::One;
        let shape = ProductShape { format, rows: side, columns: side, gated: false, count };
        all.extend(tune::measure(gpu, shape, &[Count::One, Count::Many], &kernels)?);
    }
    Ok(all)
}

/// One of them for programs.
pub fn json(product: &Measurement) -> Value {
    json!({
        "format": product.shape.format.name(),
        "rows": product.shape.rows,
        "columns": product.shape.columns,
        "tokens": product.tokens,
        "kernel": product.kernel.name(),
        "seconds": product.seconds,
        "weight_bytes_per_second": product.gigabytes_per_second() * 1e9,
        "multiply_adds_per_second": product.giga_multiply_adds() * 1e9,
    })
}

/// Prints them as a table, beside what the device could do in what each kernel computes in.
pub fn print(products: &[Measurement], precision: Precision, roof: &Roof) -> Result<()> {
    let Some(first) = products.first() else { return Ok(()) };
    let row = |product: &Measurement| {
        let (bytes, multiply_adds) =
            (product.gigabytes_per_second() * 1e9, product.giga_multiply_adds() * 1e9);
        let most =
            roof.multiply_adds_of(product.kernel.multiplies(precision, product.shape.format));
        let share = (bytes / roof.bandwidth).max(multiply_adds / most);
        vec![
            product.shape.format.name().into(),
            product.kernel.name().into(),
            product.tokens.to_string(),
            format!("{:.1}", product.seconds * 1e6),
            format!("{:.2}", bytes / 1e9),
            format!("{:.2}", multiply_adds / 1e9),
            format!("{:.1} %", 100.0 * share),
        ]
    };
    output::print_line(&format!(
        "\nproducts with matrices of {} x {}, by default kernels",
        first.shape.rows, first.shape.columns
    ))?;
    let header = ["format", "kernel", "tokens", "us", "GB/s", "G madd/s", "of roofline"];
    output::print_table(&header, &products.iter().map(row).collect::<Vec<_>>(), 2)
}
