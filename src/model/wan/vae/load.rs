//! Loads the weights of the autoencoder from a checkpoint with diffusers' names.

use std::ops::Range;

use crate::gpu::{self, Gpu, Tensor};
use crate::model::ModelError;
use crate::model::wan::load::host_weight;
use crate::ops::{self, Conv, Weight};
use crate::weights::Checkpoint;

/// Uploads the tensors of one checkpoint to one device.
pub(super) struct ConvLoader<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) checkpoint: &'a Checkpoint,
}

impl ConvLoader<'_> {
    /// The weight `NAME.weight` `[outputs, inputs, kernel..]` and its bias `NAME.bias`, for the
    /// output channels `part`. `kernel` is the kernel in the checkpoint's shape, where 2-D
    /// convolutions have no time.
    pub(super) fn conv(
        &self,
        name: &str,
        geometry: &Conv,
        kernel: &[usize],
        channels: [usize; 2],
        part: Range<usize>,
    ) -> Result<Weight, ModelError> {
        let name_of = |what: &str| format!("{name}.{what}");
        let shape: Vec<usize> = channels.iter().chain(kernel).copied().collect();
        let weight = self.checkpoint.require(&name_of("weight"), &shape)?;
        let bias = self.checkpoint.require(&name_of("bias"), &channels[..1])?.to_f32()?;
        let loaded = geometry.weight(self.gpu, name, &host_weight(&weight)?, channels, part, Some(&bias))?;
        self.checkpoint.rest(weight.name);
        Ok(loaded)
    }

    /// A causal 3 x 3 x 3 convolution.
    pub(super) fn cube(&self, name: &str, outputs: usize, inputs: usize) -> Result<Weight, ModelError> {
        self.conv(name, &Conv::causal(0), &[3; 3], [outputs, inputs], 0..outputs)
    }

    /// A 1 x 1 x 1 convolution.
    pub(super) fn point(&self, name: &str, outputs: usize, inputs: usize) -> Result<Weight, ModelError> {
        self.conv(name, &Conv::POINT, &[1; 3], [outputs, inputs], 0..outputs)
    }

    /// A channel norm's gamma `[channels, 1, ..]` times the square root of the number of channels,
    /// padded to a multiple of 4.
    pub(super) fn gamma(&self, name: &str, channels: usize, ones: usize) -> Result<Tensor, ModelError> {
        let mut shape = vec![channels];
        shape.resize(1 + ones, 1);
        let mut gamma = self.checkpoint.require(name, &shape)?.to_f32()?;
        gamma.iter_mut().for_each(|value| *value *= (channels as f32).sqrt());
        let padded: gpu::Result<Tensor> = ops::vector(self.gpu, name, &gamma, channels.next_multiple_of(4));
        Ok(padded?)
    }
}
