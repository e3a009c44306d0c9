//! The command `ditscope doctor`.

use std::time::Duration;

use crate::gpu::{Stream, StreamOptions};
use crate::ops::selftest::{Finding, examine};

use super::GpuArgs;

/// Arguments of `ditscope doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// Longest GPU time of one submit: the tests are small.
const SUBMIT_BUDGET: Duration = Duration::from_millis(100);
/// A test that takes longer compiles slowly.
const SLOW: f64 = 2.0;

/// Tests all kernels, and prints a table that can be pasted into a bug report.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let gpu = args.gpu.open_untested()?;
    let caps = gpu.caps();
    let about = format!(
        "ditscope {} on {} {}\n{} ({}, {})\nsubgroups {}, workgroup memory {} KiB, bindings {} MiB, buffers {} MiB",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        gpu.adapter_name(),
        gpu.backend(),
        gpu.driver(),
        caps.subgroup_min.map_or("none".into(), |size| size.to_string()),
        caps.workgroup_memory >> 10,
        caps.max_binding >> 20,
        caps.max_buffer >> 20,
    );
    if !args.json {
        out!("{about}\n\n| kernel | variant | error | seconds | |\n|---|---|---|---|---|");
    }
    let mut findings: Vec<Finding> = Vec::new();
    let mut cx = Stream::new(&gpu, StreamOptions::default().with_budget(SUBMIT_BUDGET));
    examine(&mut cx, &mut |finding| {
        if !args.json {
            out!("{}", line(finding));
        }
        findings.push(finding.clone());
    })?;
    let wrong = findings.iter().filter(|finding| finding.fault.is_some()).count();
    if args.json {
        let driver = gpu.driver();
        let report = serde_json::json!({ "adapter": gpu.adapter_name(), "driver": driver, "findings": findings });
        out!("{report}");
    } else {
        out!("\n{} kernels, {wrong} wrong; the seconds are mostly compilation", findings.len());
    }
    anyhow::ensure!(wrong == 0, "{wrong} kernels are wrong on this GPU; jobs test variants before use and avoid them");
    Ok(())
}

fn line(finding: &Finding) -> String {
    let Finding { kernel, variant, error, seconds, fault, .. } = finding;
    let error = error.map_or("-".into(), |error| format!("{error:.1e}"));
    let remark = match fault {
        Some(fault) => format!("WRONG: {fault}"),
        None if *seconds > SLOW => "right, compiles slowly".into(),
        None => "right".into(),
    };
    format!("| {kernel} | {variant} | {error} | {seconds:.2} | {remark} |")
}
