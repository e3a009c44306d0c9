//! The command `ditscope bench`.

use std::path::Path;
use std::time::Instant;

use crate::caching::{Intervals, StepSchedule, StrategyConfig, Uniform};
use crate::engine::{Engine, GenerateRequest, NamedFiles, Observe, Received};
use crate::gpu::{Gpu, Stream, StreamOptions};
use crate::ops::bench::{self, KernelSpeed, Peak};

use super::generate::SUBMIT_BUDGET;
use super::job::run_job;
use super::{GpuArgs, ModelArgs};

/// Number of steps of a measured run. The first step also compiles kernels and is not counted.
const STEPS: usize = 4;
/// Number of queries per head of sampled profiling.
const SAMPLED: usize = 64;
/// Smallest number of rounds. A round has one run of each kind.
const MIN_ROUNDS: usize = 3;
/// Time after which no further round starts.
const ROUNDS_SECONDS: f64 = 60.0;

/// Arguments of `ditscope bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure only the kernels
    #[arg(long)]
    kernels: bool,
    /// Measure only a denoising step, and the device's peak
    #[arg(long, conflicts_with = "kernels")]
    step: bool,
    /// The model of the denoising step
    #[command(flatten)]
    model: ModelArgs,
    /// Size of the step in pixels [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = super::generate::parse_size, conflicts_with = "kernels")]
    size: Option<(usize, usize)>,
    /// Forget the chosen kernels and choose again. Clips may then differ from earlier clips in the
    /// last bits
    #[arg(long, conflicts_with = "step")]
    retune: bool,
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// The speed of a model's denoising step.
#[derive(Debug, serde::Serialize)]
struct StepSpeed {
    model: String,
    size: [usize; 2],
    frames: usize,
    guidance_scale: f64,
    rounds: usize,
    /// Time of the fastest step.
    seconds: f64,
    /// Time of a step that reuses the whole stack of blocks, divided by the time of a plain step.
    /// This is the part of a step that caching cannot save. This share and the following are
    /// medians over the rounds, because the speed of a machine changes between rounds.
    reused: f64,
    /// Time of a step that measures the attention received from some queries and the changes of all
    /// blocks, divided by the time of a plain step.
    sampled_profiling: f64,
    /// The same share with all queries.
    exact_profiling: f64,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    adapter: String,
    peak: Peak,
    kernels: Vec<KernelSpeed>,
    step: Option<StepSpeed>,
}

/// Measures and prints.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let model = (!args.kernels).then(|| args.model.place()).transpose()?;
    let gpu = args.gpu.open()?;
    if args.retune {
        gpu.choices().forget()?;
    }
    let mut cx = Stream::new(&gpu, StreamOptions::default());
    let peak = bench::peak(&mut cx)?;
    if !args.json {
        out!("{}: {:.1} GFLOP/s, {:.1} GB/s at most", gpu.adapter_name(), peak.gflops, peak.gigabytes);
    }
    let mut kernels = Vec::new();
    if !args.step {
        bench::kernels(&mut cx, &peak, &mut |speeds| {
            if !args.json {
                print_shape(speeds);
            }
            kernels.extend_from_slice(speeds);
        })?;
    }
    drop(cx);
    let adapter = gpu.adapter_name().to_owned();
    let step = model.map(|(model, files)| step(gpu, &model, &files, args.size)).transpose()?;
    if args.json {
        out!("{}", serde_json::to_string(&Report { adapter, peak, kernels, step })?);
    } else if let Some(step) = step {
        let [width, height] = step.size;
        out!("{}: a step of {} frames of {width}x{height} takes {:.4} s", step.model, step.frames, step.seconds);
        out!(
            "  one that reuses all blocks takes {:.1} % of it (medians of {} rounds)",
            100.0 * step.reused,
            step.rounds
        );
        let more = |share: f64| 100.0 * (share - 1.0);
        let (sampled, exact) = (more(step.sampled_profiling), more(step.exact_profiling));
        out!("  profiling adds {sampled:.0} % with {SAMPLED} queries a head, {exact:.0} % with all");
    }
    Ok(())
}

/// Prints the variants of one shape. A star marks the variant in use.
fn print_shape(speeds: &[KernelSpeed]) {
    if let Some(first) = speeds.first() {
        out!("{} ({})", first.kernel, first.model);
    }
    for speed in speeds {
        let star = if speed.chosen { '*' } else { ' ' };
        out!(
            "  {star} {:13} {:8.1} GFLOP/s {:3.0} % {:10.3} ms",
            speed.variant,
            speed.gflops,
            100.0 * speed.peak_fraction,
            1e3 * speed.seconds
        );
    }
}

/// Measures a step of a model at `size` or the model's own size: a plain step, a step with reuse,
/// and a step with profiling.
fn step(gpu: Gpu, model: &Path, files: &NamedFiles, size: Option<(usize, usize)>) -> anyhow::Result<StepSpeed> {
    let mut request = GenerateRequest::of_files(model, files, "a cat walking on grass")?;
    request.clip.num_inference_steps = STEPS;
    if let Some((width, height)) = size {
        (request.clip.width, request.clip.height) = (width, height);
    }
    let engine = Engine::start(gpu, SUBMIT_BUDGET)?;
    let profiled = |attention| GenerateRequest {
        observe: Observe::default().with_attention(attention).with_changes(),
        ..request.clone()
    };
    // All steps after the first are reused, so the fastest step is a reused one.
    let reuse = StrategyConfig::of(Uniform(StepSchedule { warm_up: 0, last: 0, intervals: Intervals::Uniform(STEPS) }));
    let runs = [
        request.clone(),
        GenerateRequest { strategy: reuse, ..request.clone() },
        profiled(Received::Sampled(SAMPLED)),
        profiled(Received::Exact),
    ];
    let start = Instant::now();
    let mut rounds: Vec<[f64; 4]> = Vec::new();
    while rounds.len() < MIN_ROUNDS || start.elapsed().as_secs_f64() < ROUNDS_SECONDS {
        let mut round = [0.0; 4];
        for (seconds, request) in round.iter_mut().zip(&runs) {
            *seconds = fastest_step(&engine, request)?;
        }
        rounds.push(round);
    }
    let share = |kind: usize| median(rounds.iter().map(|round| round[kind] / round[0]).collect());
    Ok(StepSpeed {
        model: model.display().to_string(),
        size: [request.clip.width, request.clip.height],
        frames: request.clip.num_frames,
        guidance_scale: request.clip.guidance_scale,
        rounds: rounds.len(),
        seconds: rounds.iter().map(|round| round[0]).fold(f64::INFINITY, f64::min),
        reused: share(1),
        sampled_profiling: share(2),
        exact_profiling: share(3),
    })
}

/// The middle value, or the upper of the two middle values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The time of the fastest step of a run, in seconds. The first step and decoding do not count.
fn fastest_step(engine: &Engine, request: &GenerateRequest) -> anyhow::Result<f64> {
    let (mut fastest, mut measured) = (f64::INFINITY, false);
    let run = run_job(engine, request, |done| {
        if done.record.step > 0 {
            fastest = fastest.min(done.record.seconds);
        }
        if done.record.step + 1 == STEPS {
            measured = true;
            engine.control().cancel();
        }
    });
    if measured { Ok(fastest) } else { Ok(run.map(|_| fastest)?) }
}
