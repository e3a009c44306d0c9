//! From a checkpoint's tensors to weights on the GPU.

use std::borrow::Cow;

use crate::gpu::{DType, Gpu, Tensor};
use crate::model::ModelError;
use crate::ops::{HostWeight, Weight, vector};
use crate::weights::{self, Checkpoint, TensorView, WeightsError};

/// Uploads the tensors of one checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Loader<'a> {
    /// Where to.
    pub gpu: &'a Gpu,
    /// Where from, under diffusers' names.
    pub checkpoint: &'a Checkpoint,
}

impl<'a> Loader<'a> {
    /// A tensor's elements in f32.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        Ok(self.view(name)?.to_f32()?)
    }

    /// A tensor's elements as an f32 vector on the GPU, padded to a multiple of 4.
    pub fn vector(&self, name: &str) -> Result<Tensor, ModelError> {
        let values = self.values(name)?;
        Ok(vector(self.gpu, name, &values, values.len().next_multiple_of(4))?)
    }

    /// The Linear layer `name`, with its bias if it has one.
    pub fn linear(&self, name: &str) -> Result<Weight, ModelError> {
        self.linears(&[name.to_owned()])
    }

    /// Several Linear layers with the same input as one: their outputs side by side.
    pub fn linears(&self, names: &[String]) -> Result<Weight, ModelError> {
        let views = names.iter().map(|name| self.view(&format!("{name}.weight"))).collect::<Result<Vec<_>, _>>()?;
        let (mut rows, mut columns) = (0, 0);
        let mut bias = Vec::new();
        for (name, view) in names.iter().zip(&views) {
            // Everything behind the first axis is the inner extent: a convolution over whole patches is a Linear layer too.
            let (&outputs, inputs) = view.shape.split_first().unwrap_or((&0, &[]));
            rows += outputs;
            columns = inputs.iter().product();
            if let Some(tensor) = self.checkpoint.get(&format!("{name}.bias")) {
                bias.extend(tensor.to_f32()?);
            }
        }
        let source = joined(&views)?;
        let bias = (!bias.is_empty()).then_some(bias);
        let weight = Weight::linear(self.gpu, &names[0], &source, [rows, columns], bias.as_deref())?;
        views.iter().for_each(|view| self.checkpoint.rest(view.name));
        Ok(weight)
    }

    fn view(&self, name: &str) -> Result<TensorView<'a>, ModelError> {
        self.checkpoint.get(name).ok_or_else(|| {
            WeightsError::MissingTensor { name: name.into(), path: self.checkpoint.path().into() }.into()
        })
    }
}

/// Tensors one behind the other, in the type that they share; in f32 where they differ.
fn joined<'a>(views: &[TensorView<'a>]) -> Result<HostWeight<'a>, ModelError> {
    if let [view] = views {
        return host_weight(view);
    }
    let same = views.iter().all(|view| view.dtype == views[0].dtype && view.scale == views[0].scale);
    if !same {
        let mut all = Vec::new();
        for view in views {
            all.extend(view.to_f32()?);
        }
        return Ok(HostWeight::from_f32(&all));
    }
    let parts = views.iter().map(host_weight).collect::<Result<Vec<_>, _>>()?;
    let bytes = parts.iter().map(|part| &*part.bytes).collect::<Vec<_>>().concat();
    Ok(HostWeight { bytes: Cow::Owned(bytes), dtype: parts[0].dtype, scale: parts[0].scale })
}

/// A tensor as the GPU keeps it: 32- and 16-bit floats as they are; 8-bit floats widened to bf16, which holds them exactly, with
/// their scale beside them.
pub fn host_weight<'a>(view: &TensorView<'a>) -> Result<HostWeight<'a>, ModelError> {
    let scale = view.scale.unwrap_or(1.0);
    let stored = |dtype| HostWeight { bytes: Cow::Borrowed(view.bytes), dtype, scale };
    Ok(match view.dtype {
        weights::DType::F32 => stored(DType::F32),
        weights::DType::F16 => stored(DType::F16),
        weights::DType::BF16 => stored(DType::BF16),
        weights::DType::F8E4M3 | weights::DType::F8E5M2 => {
            let unscaled = TensorView { scale: None, ..*view }.to_f32()?;
            let wide: Vec<half::bf16> = unscaled.into_iter().map(half::bf16::from_f32).collect();
            HostWeight { bytes: Cow::Owned(bytemuck::cast_slice(&wide).to_vec()), dtype: DType::BF16, scale }
        }
        _ => HostWeight::from_f32(&view.to_f32()?),
    })
}
