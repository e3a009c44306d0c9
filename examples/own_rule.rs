//! A caching rule of one's own: the file says all about the rule, and one line registers it.
//!
//! `cargo run --release --example own_rule -- [STEPS]`

use std::time::Duration;

use ditscope::caching::{
    About, CacheError, Fixed, Group, Needs, Rule, Setting, Shape, StepPlan, Strategy, StrategyConfig, StrategyInputs,
    Tuning, register,
};
use ditscope::engine::{Engine, GenerateRequest};
use ditscope::gpu::{Gpu, GpuOptions};

/// Computes the first steps, and then every other step.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct HeadStart {
    first: usize,
}

impl Rule for HeadStart {
    const ABOUT: About = About {
        key: "head-start",
        label: "Head start",
        summary: "Computes the first steps, and then every other step.",
        source: "",
        group: Group::Control,
        needs: Needs::Nothing,
    };

    fn defaults(steps: usize) -> Self {
        Self { first: steps / 4 }
    }

    fn settings(&self, shape: Shape) -> Vec<Setting<Self>> {
        let words = ("first", "first steps", "Steps at the start that are computed");
        vec![Setting::count(words, 0..=shape.steps, |rule: &mut Self| &mut rule.first)]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        let computed: Vec<bool> = (0..inputs.steps).map(|step| step < self.first || step % 2 == 0).collect();
        Ok(Box::new(Fixed(StepPlan::stack(&computed, inputs.blocks))))
    }

    fn tuning(&self) -> Tuning {
        Tuning::Fixed("its work is always about half")
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // From here on `--strategy head-start`, the window and captures know the rule.
    register::<HeadStart>()?;
    let steps = std::env::args().nth(1).map_or(Ok(20), |steps| steps.parse())?;
    let mut request = GenerateRequest::of_model("assets/demo-model".as_ref(), "a cat walking on grass")?;
    (request.clip.num_inference_steps, request.strategy) = (steps, StrategyConfig::of(HeadStart::defaults(steps)));
    let engine = Engine::start(Gpu::open(&GpuOptions::default())?, Duration::from_millis(100))?;
    engine.generate(request)?;
    println!("{:.1} s of denoising", engine.wait()?.seconds.denoise);
    Ok(())
}
