//! Writes the SPIR-V of kernel variants as wgpu hands it to a Vulkan driver, for statistics by vendors' compilers.
//!
//! `cargo run --release -p shaders --example spirv -- FOLDER VARIANT...`; a variant as profiles and messages name it:
//! `"matvec.q4_k+SPLIT+SUBGROUP MATRICES=1 ROWS=2 TOKENS=1 LANES=64"`.

use shaders::Variant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, variants @ ..] = arguments.as_slice() else { panic!("FOLDER VARIANT...") };
    for text in variants {
        let variant: Variant = text.parse().expect("a variant");
        let kernel = variant.build().unwrap_or_else(|why| panic!("{why}"));
        let words = kernel.spirv_as_wgpu().expect("SPIR-V");
        let file = text.replace([' ', '/'], "_");
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        std::fs::write(format!("{folder}/{file}.spv"), bytes).expect("a folder");
    }
}
