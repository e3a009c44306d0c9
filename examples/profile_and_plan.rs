//! Profiles the demo model on one prompt, and plans half the work from the profile.
//!
//! `cargo run --release --example profile_and_plan -- [STEPS]`

use std::time::Duration;

use ditscope::caching::{Goal, PlannedStep};
use ditscope::engine::{Engine, GenerateRequest};
use ditscope::gpu::{Gpu, GpuOptions};
use ditscope::study::{Cancel, ProfileStudy, Session, StudyEvent};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut request = GenerateRequest::of_model("assets/demo-model".as_ref(), "")?;
    if let Some(steps) = std::env::args().nth(1) {
        request.clip.num_inference_steps = steps.parse()?;
    }
    (request.clip.width, request.clip.height, request.clip.num_frames) = (48, 32, 5);
    let engine = Engine::start(Gpu::open(&GpuOptions::default())?, Duration::from_millis(100))?;
    // Another thread may call `cancel.cancel()` at any time; what was measured until then is kept.
    let cancel = Cancel::default();
    let session = Session::new(&engine, &cancel, |event| match event {
        StudyEvent::Progress(progress) => println!("{}: run {}", progress.phase, progress.runs_done + 1),
        StudyEvent::Warning(text) => eprintln!("warning: {text}"),
        _ => {}
    });
    let study = ProfileStudy::new(request, vec!["a cat walking on grass".into()]);
    let profile = study.run(&session)?.profile;
    let sigmas = profile.calibration.as_ref().map(|known| known.sigmas.clone()).ok_or("no calibration")?;
    let evidence = profile.evidence(sigmas);
    let best = evidence.plans()?.choose(Goal::Speedup(2.0))?;
    let mark = |step: &PlannedStep| if matches!(step, PlannedStep::Compute(_)) { '#' } else { '.' };
    println!("{}", best.planned.steps.iter().map(mark).collect::<String>());
    println!("expected PSNR to the clip without reuse: {:.1?} dB", best.psnr);
    Ok(())
}
