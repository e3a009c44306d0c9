//! Made-up captures with everything a capture can hold, for tests of the panes: a foreground square
//! that moves, blocks that attend to it more or less, times and changes of a plausible shape.

use crate::caching::{
    BranchPlan, Cell, ForwardCost, Intervals, StepPlan, StepSchedule, StrategyConfig, StrategyInputs, Uniform,
};
use crate::engine::capture::{BlockRecord, KernelRecord, RunInfo, StepRecord};
use crate::engine::{Capture, ClipSettings, Frames, MaskRecord, Outcome, Seconds};

/// A kind of run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Without reuse.
    Off,
    /// Every second step after the warm-up.
    Uniform,
}

const STEPS: usize = 16;
const BLOCKS: usize = 8;
const GRID: [usize; 3] = [5, 8, 8];

/// A finished run of 16 steps, 8 blocks and 5 x 8 x 8 tokens.
pub fn capture(kind: Kind) -> Capture {
    let strategy = match kind {
        Kind::Off => StrategyConfig::off(),
        Kind::Uniform => {
            StrategyConfig::of(Uniform(StepSchedule { warm_up: 3, last: 1, intervals: Intervals::Uniform(2) }))
        }
    };
    let inputs = StrategyInputs { steps: STEPS, blocks: BLOCKS, signal_changes: Vec::new() };
    let plans = strategy.build(&inputs).ok().and_then(|built| built.preview()).unwrap_or_default();
    let mut capture = Capture { run: run(strategy, plans.clone()), ..Capture::default() };
    for (step, plan) in plans.into_iter().enumerate() {
        capture.steps.push(record(step, plan));
    }
    capture.masks.push(MaskRecord { estimator: "motion".into(), confidence: 0.87, tokens: mask() });
    capture.warnings.push("16 steps are few for caching: each differs much from the last; try 20 or more".into());
    capture.clip = Some(clip(64, 17, if kind == Kind::Off { 0 } else { 6 }));
    let denoise = capture.steps.iter().map(|step| step.seconds).sum();
    let seconds = Seconds { load: 0.4, text: 0.2, denoise, decode: 0.9, total: denoise + 1.5 };
    capture.outcome = Some(Outcome { seconds, peak_memory: 412 << 20, error: None });
    capture
}

fn run(strategy: StrategyConfig, expected: Vec<StepPlan>) -> RunInfo {
    RunInfo {
        program: "ditscope".into(),
        adapter: "Example GPU".into(),
        model: "demo-model".into(),
        prompt: "a cat walking on grass".into(),
        clip: ClipSettings {
            width: 64,
            height: 64,
            num_frames: 17,
            num_inference_steps: STEPS,
            guidance_scale: 4.0,
            flow_shift: Some(3.0),
            seed: 0,
            fps: 8,
        },
        scheduler: "unipc".into(),
        sigmas: (0..=STEPS).map(|step| 1.0 - step as f64 / STEPS as f64).collect(),
        strategy,
        expected,
        blocks: BLOCKS,
        token_grid: GRID,
        latent_shape: [16, 5, 16, 16],
        cost: Some(ForwardCost::even(4e9, 1e9, BLOCKS)),
        ..RunInfo::default()
    }
}

/// The block whose cross-attention is recorded.
const PAID_BLOCK: usize = 5;

fn inside(frame: usize, y: usize, x: usize) -> bool {
    (2..6).contains(&y) && (frame..frame + 4).contains(&x)
}

fn mask() -> Vec<bool> {
    let [frames, height, width] = GRID;
    (0..frames * height * width).map(|i| inside(i / (height * width), i / width % height, i % width)).collect()
}

/// Attention received: early blocks look everywhere, later blocks more and more at the square, the
/// last block away from it.
fn received(step: usize, block: usize) -> Vec<f32> {
    let pull = (block as f32 / 3.0 - 0.4) * (0.6 + step as f32 / STEPS as f32);
    let pull = if block == BLOCKS - 1 { -0.6 } else { pull };
    let raw: Vec<f32> = mask()
        .iter()
        .enumerate()
        .map(|(i, foreground)| {
            let ripple = ((i * 37 + block * 101 + step * 13) % 29) as f32 / 29.0;
            0.4 + ripple + if *foreground { pull.max(-0.3) } else { 0.0 }
        })
        .collect();
    let mean = raw.iter().sum::<f32>() / raw.len() as f32;
    raw.iter().map(|value| value / mean).collect()
}

/// The share of cross-attention for the subject: a third inside the square, little elsewhere.
fn paid(step: usize) -> Vec<f32> {
    let share = |(i, foreground): (usize, &bool)| {
        let ripple = ((i * 17 + step * 7) % 11) as f32 / 110.0;
        if *foreground { 0.33 + ripple } else { 0.03 + ripple / 2.0 }
    };
    mask().iter().enumerate().map(share).collect()
}

fn record(step: usize, plan: StepPlan) -> StepRecord {
    let blocks = |branch: &BranchPlan, shift: usize| -> Vec<BlockRecord> {
        let cells = branch.cells(BLOCKS).into_iter().enumerate();
        let one = |(block, cell): (usize, Cell)| {
            let ran = cell != Cell::Reused;
            let early = 0.5 / (1.0 + step as f32) + if step + 1 == STEPS { 0.2 } else { 0.02 };
            BlockRecord {
                cell,
                change: (ran && step > 0).then_some(early * (1.0 + block as f32 / 6.0)),
                received: ran.then(|| received(step + shift, block)),
                paid: (ran && block == PAID_BLOCK).then(|| paid(step)),
                seconds: ran.then_some(0.011 + 0.001 * ((block * 5 + step) % 3) as f32),
            }
        };
        cells.map(one).collect()
    };
    let computed = plan.cond.computed(BLOCKS) as f64;
    let change = 0.35 / (1.0 + step as f64) + if step + 1 == STEPS { 0.12 } else { 0.03 };
    let kernel = |name: &str, share: f64, calls| KernelRecord {
        kernel: name.into(),
        seconds: share * computed * 0.024,
        flops: share * computed * 8e9,
        calls,
    };
    StepRecord {
        step,
        seconds: 0.02 + 0.026 * computed,
        cond: blocks(&plan.cond, 0),
        uncond: blocks(&plan.uncond, 3),
        plan: Some(plan),
        prediction_change: (step > 0).then_some(change),
        relative_change: (step > 0).then_some(change * 1.2),
        residual_change: (step > 0).then_some(change * 0.8),
        magnitude_ratio: (step > 0).then_some(1.0 - change * 0.1),
        preview: Some(clip(16, 5, 60usize.saturating_sub(step * 4))),
        kernels: vec![
            kernel("matmul_tiled", 0.52, 96),
            kernel("attention_flash", 0.31, 16),
            kernel("layer_norm", 0.09, 24),
            kernel("rope", 0.05, 16),
            kernel("elementwise", 0.03, 64),
        ],
        memory: 388 << 20,
        delta_memory: (computed as u64) << 20,
        state: None,
    }
}

/// A sandy square on green, moving to the right, under `noise` of 255.
fn clip(side: usize, frames: usize, noise: usize) -> Frames {
    let frame = |t: usize| {
        let cell = |value: usize| value * GRID[1] / side;
        let pixel = |i: usize| {
            let (y, x) = (i / side, i % side);
            let base = if inside(t * GRID[0] / frames, cell(y), cell(x)) {
                [214, 150, 70]
            } else {
                [52, 120 + y * 60 / side, 60]
            };
            let ripple = (i * 7919 + t * 104_729) % (noise + 1);
            base.map(|value| (value + ripple).saturating_sub(noise / 2).min(255) as u8)
        };
        (0..side * side).flat_map(pixel).collect()
    };
    Frames { width: side, height: side, frames: (0..frames).map(frame).collect() }
}
