//! The command `ditscope devices`.

use crate::gpu::{GpuError, list_adapters};

/// Arguments of `ditscope devices`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists the adapters, with the strongest first.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let adapters = list_adapters()?;
    if args.json {
        out!("{}", serde_json::to_string(&adapters)?);
        return Ok(());
    }
    if adapters.is_empty() {
        return Err(GpuError::NoAdapter.into());
    }
    for (number, adapter) in adapters.iter().enumerate() {
        let caps = &adapter.caps;
        let subgroups = caps.subgroup_min.map_or("no subgroups".into(), |size| format!("subgroups of {size}"));
        let memory = caps.memory.map_or(String::new(), |bytes| format!("{:.1} GB of memory, ", bytes as f64 / 1e9));
        out!("{number}  {} ({}, {}, {})", adapter.name, adapter.kind, adapter.backend, adapter.driver);
        out!(
            "   {memory}{subgroups}, bindings of {} MiB, buffers of {} MiB, {} KiB of workgroup memory",
            caps.max_binding >> 20,
            caps.max_buffer >> 20,
            caps.workgroup_memory >> 10
        );
    }
    Ok(())
}
