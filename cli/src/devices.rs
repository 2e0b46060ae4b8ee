//! `engine devices`: what there is to run on.

use std::process::ExitCode;

use anyhow::Result;
use engine::internals::cpu::{self, InstructionSet};
use engine::internals::gpu::{AdapterInfo, list};
use serde_json::{Value, json};

use crate::{options, output};

/// List every physical adapter once, and the CPU.
#[derive(clap::Args)]
#[command(after_help = "Example: engine devices --json")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    print(args.json)
}

/// Prints the list, as JSON or for people.
pub fn print(as_json: bool) -> Result<ExitCode> {
    let adapters = list();
    if as_json {
        let mut devices: Vec<Value> = adapters.iter().map(describe).collect();
        devices.push(json!({
            "id": "cpu",
            "name": cpu::processor_name(),
            "kind": "cpu",
            "threads": cpu::default_threads(),
            "instructions": InstructionSet::detect().name(),
            "free_bytes": cpu::free_bytes(),
        }));
        output::print_json(&json!({ "devices": devices }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for adapter in &adapters {
        let limits = &adapter.limits;
        output::print_line(&format!(
            "{:<10} {} ({})",
            adapter.id,
            adapter.name,
            adapter.kind_name()
        ))?;
        let also = if adapter.also.is_empty() {
            String::new()
        } else {
            format!("; also by the name {}", adapter.also.join(", "))
        };
        output::print_line(&format!("           driver {}{also}", adapter.driver))?;
        output::print_line(&format!(
            "           binding {}, buffer {}, workgroup memory {}, {} invocations",
            output::bytes(limits.max_storage_buffer_binding_size),
            output::bytes(limits.max_buffer_size),
            output::bytes(limits.max_compute_workgroup_storage_size.into()),
            limits.max_compute_invocations_per_workgroup,
        ))?;
        let memory = adapter.free_bytes.map_or_else(|| "unknown".into(), output::bytes);
        let features = features(adapter).join(", ");
        output::print_line(&format!("           {features}, memory free {memory}"))?;
    }
    let memory = cpu::free_bytes().map_or_else(|| "unknown".into(), output::bytes);
    output::print_line(&format!("{:<10} {}", "cpu", cpu::processor_name()))?;
    output::print_line(&format!(
        "           {} threads, {}, memory free {memory}",
        cpu::default_threads(),
        InstructionSet::detect().name(),
    ))?;
    if adapters.is_empty() {
        output::say(format_args!("no GPU found. {}", options::why_no_gpu()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The features that matter here, in words.
fn features(adapter: &AdapterInfo) -> Vec<String> {
    let has = |feature| adapter.features.contains(feature);
    let mut words = Vec::new();
    let (least, most) = (adapter.info.subgroup_min_size, adapter.info.subgroup_max_size);
    if has(wgpu_features::SUBGROUP) {
        words.push(if least == most {
            format!("subgroups of {most}")
        } else {
            format!("subgroups of {least} to {most}")
        });
    } else {
        words.push("no subgroups".into());
    }
    for (feature, word) in [
        (wgpu_features::SHADER_F16, "f16"),
        (wgpu_features::TIMESTAMP_QUERY, "timestamps"),
        (wgpu_features::MAPPABLE_PRIMARY_BUFFERS, "mappable buffers"),
        (wgpu_features::PIPELINE_CACHE, "pipeline cache"),
        (wgpu_features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative matrices"),
    ] {
        if has(feature) {
            words.push(word.into());
        }
    }
    words
}

/// wgpu's features by the engine's door.
use engine::internals::gpu::adapter::Features as wgpu_features;

fn describe(adapter: &AdapterInfo) -> Value {
    let limits = &adapter.limits;
    json!({
        "id": adapter.id,
        "name": adapter.name,
        "kind": adapter.kind_name(),
        "driver": adapter.driver,
        "also": adapter.also,
        "free_bytes": adapter.free_bytes,
        "features": features(adapter),
        "subgroup_min_size": adapter.info.subgroup_min_size,
        "subgroup_max_size": adapter.info.subgroup_max_size,
        "limits": {
            "max_storage_buffer_binding_size": limits.max_storage_buffer_binding_size,
            "max_buffer_size": limits.max_buffer_size,
            "max_compute_workgroup_storage_size": limits.max_compute_workgroup_storage_size,
            "max_compute_invocations_per_workgroup": limits.max_compute_invocations_per_workgroup,
            "max_storage_buffers_per_shader_stage": limits.max_storage_buffers_per_shader_stage,
        },
    })
}
