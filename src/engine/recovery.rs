//! A job whose device is lost goes on with a new device of the same adapter.
//!
//! Drivers reset a GPU that hangs, a laptop that sleeps loses its device, and so does a driver that
//! is updated. The steps that are done are replayed as those of an interrupted run (`replay.rs`),
//! so the clip is the same.

use std::sync::Arc;
use std::time::Duration;

use crate::gpu::{Gpu, GpuError};

use super::kept::Kept;
use super::outbox::Outbox;
use super::{Control, EngineError, Event, GenerateRequest, Generated, generate};

/// Runs a request to its end. If the device is lost, `gpu` becomes a new device of the same
/// adapter, on which the job goes on. A device that is lost a second time before another step is
/// done ends the job.
///
/// # Errors
/// The errors of the job.
pub(super) fn run(
    gpu: &mut Gpu,
    mut request: GenerateRequest,
    submit_budget: Duration,
    control: &Arc<Control>,
    outbox: &Outbox,
    kept: &mut Kept,
) -> Result<Generated, EngineError> {
    let mut lost_after = None;
    loop {
        let result = generate::run(gpu, &request, submit_budget, control, outbox, kept);
        let lost = match &result {
            Ok(_) | Err(EngineError::Cancelled) => None,
            Err(_) => gpu.loss(),
        };
        let Some(reason) = lost else { return result };
        let steps = outbox.steps();
        let again = lost_after.replace(steps) == Some(steps);
        let Some(new) = (!again).then(|| gpu.reopen().ok()).flatten() else {
            return Err(GpuError::Lost(reason).into());
        };
        kept.forget_transformer(gpu);
        *gpu = new;
        outbox.send(Event::Warning(format!(
            "The GPU device was lost after {steps} steps ({reason}). The run goes on with a new device."
        )))?;
        let done = outbox.again();
        if steps > 0 {
            request.earlier = Some(Arc::new(done));
        }
    }
}
