//! Wan2.1's transformer at work on one clip.

use std::ops::Range;

use crate::gpu::{GpuError, Stream, Tensor};
use crate::model::ModelError;
use crate::model::family::{AttentionWatch, Pass, Run, RunSetup};
use crate::ops::RopeTable;

use super::patches::Patches;
use super::transformer::{self, Start, TextContext, TimeEmbeddings, WanTransformer};

type Result<T> = std::result::Result<T, ModelError>;

/// What all steps of a clip share, and the step that was started last.
pub(super) struct WanRun<'a> {
    model: &'a WanTransformer,
    patches: Patches,
    rope: RopeTable,
    times: TimeEmbeddings,
    /// One a branch.
    contexts: Vec<TextContext>,
    start: Option<Start>,
}

impl<'a> WanRun<'a> {
    pub(super) fn new(cx: &mut Stream, model: &'a WanTransformer, setup: &RunSetup) -> Result<Self> {
        let [_, frames, height, width] = setup.geometry.latent_shape;
        let patches = Patches::new([frames, height, width], model.config().patch_size)?;
        let times = model.prepare_times(cx, setup.timesteps)?;
        let rope = model.rope(cx, &patches)?;
        let contexts = setup.conditions.iter().map(|features| model.prepare_text(cx, &features.values));
        let contexts = contexts.collect::<Result<_>>()?;
        Ok(Self { model, patches, rope, times, contexts, start: None })
    }

    fn start(&self) -> Result<&Start> {
        self.start.as_ref().ok_or_else(|| GpuError::shape("transformer", "no step was started").into())
    }
}

impl Run for WanRun<'_> {
    fn signals(&self, cx: &mut Stream, projected: bool) -> Result<Vec<Vec<f32>>> {
        self.times.signals(cx, projected)
    }

    fn condition_rows(&self, branch: usize) -> usize {
        self.contexts.get(branch).map_or(0, TextContext::rows)
    }

    fn start_step(&mut self, cx: &mut Stream, step: usize, latents: &[f32]) -> Result<()> {
        self.start = Some(self.model.start(cx, latents, &self.patches, &self.times, step)?);
        Ok(())
    }

    fn begin(&self, cx: &mut Stream, branch: usize) -> Result<Pass> {
        Ok(Pass { branch, state: self.model.begin(cx, self.start()?)? })
    }

    fn run_blocks(
        &self,
        cx: &mut Stream,
        pass: &Pass,
        blocks: Range<usize>,
        watch: Option<&mut AttentionWatch>,
    ) -> Result<()> {
        let context = self.contexts.get(pass.branch);
        let context = context.ok_or_else(|| GpuError::shape("transformer", format!("no branch {}", pass.branch)))?;
        let pass = transformer::Pass { context, rope: &self.rope, start: self.start()?, x: &pass.state };
        self.model.run_blocks(cx, &pass, blocks, watch)
    }

    fn finish(&self, cx: &mut Stream, pass: &Pass) -> Result<Tensor> {
        self.model.finish(cx, self.start()?, &pass.state)
    }

    fn end_step(&mut self) {
        self.start = None;
    }

    fn velocity(&self, values: &[f32]) -> Result<Vec<f32>> {
        self.model.velocity(&self.patches, values)
    }
}
