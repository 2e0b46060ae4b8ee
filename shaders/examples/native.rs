//! Writes the texts of kernel variants as wgpu hands them to the compilers of Direct3D and Metal, and prints a line for
//! each: file, target, entry point, variant; the first three as tests/dx12/hlslc.c reads them.
//!
//! `cargo run --release -p shaders --example native -- FOLDER VARIANT...`; a variant as profiles and messages name it.

use shaders::{METAL_VERSIONS, SHADER_MODELS, ShaderModel, Text, Variant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, variants @ ..] = arguments.as_slice() else { panic!("FOLDER VARIANT...") };
    let write = |file: &str, target: &str, text: &Text, variant: &str| {
        std::fs::write(format!("{folder}/{file}"), &text.text).expect("a folder");
        println!("{file}\t{target}\t{}\t{variant}", text.entry);
    };
    for (number, name) in variants.iter().enumerate() {
        let variant: Variant = name.parse().expect("a variant");
        let kernel = variant.build().unwrap_or_else(|why| panic!("{why}"));
        for model in SHADER_MODELS {
            if model == ShaderModel::V5_1 && kernel.uses_subgroups() {
                continue;
            }
            let text = kernel.hlsl(model).expect("HLSL");
            let model = model.to_str();
            write(&format!("{number}.{model}.hlsl"), &format!("cs_{model}"), &text, name);
        }
        for version @ (major, minor) in METAL_VERSIONS {
            let text = kernel.msl(version).expect("MSL");
            write(&format!("{number}.{major}_{minor}.metal"), "metal", &text, name);
        }
    }
}
