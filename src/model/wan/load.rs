//! Loads a checkpoint's tensors as weights on the GPU.

use std::borrow::Cow;

use crate::gpu::{ElementType, Gpu, Tensor};
use crate::model::ModelError;
use crate::ops::{HostWeight, Weight, vector};
use crate::weights::{self, Checkpoint, TensorView, WeightsError};

/// Uploads the tensors of one checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Loader<'a> {
    /// The device that gets the weights.
    pub gpu: &'a Gpu,
    /// The checkpoint, with diffusers' names.
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

    /// Several Linear layers with the same input, joined to one layer whose outputs lie side by
    /// side.
    pub fn linears(&self, names: &[String]) -> Result<Weight, ModelError> {
        let views = names.iter().map(|name| self.view(&format!("{name}.weight"))).collect::<Result<Vec<_>, _>>()?;
        let (mut rows, mut columns) = (0, 0);
        let mut bias = Vec::new();
        for (name, view) in names.iter().zip(&views) {
            // All axes after the first form the inner extent, because a convolution over whole
            // patches is a Linear layer too.
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

/// Joins tensors one after another. Tensors of one type keep it, tensors of different types become
/// f32.
fn joined<'a>(views: &[TensorView<'a>]) -> Result<HostWeight<'a>, ModelError> {
    if let [view] = views {
        return host_weight(view);
    }
    let parts = views.iter().map(host_weight).collect::<Result<Vec<_>, _>>()?;
    let HostWeight { element_type, scale, .. } = parts[0];
    if parts.iter().any(|part| part.element_type != element_type) {
        let values = views.iter().map(TensorView::to_f32).collect::<Result<Vec<_>, _>>()?.concat();
        return Ok(HostWeight::from_f32(&values));
    }
    if parts.iter().all(|part| part.scale == scale) {
        let bytes = parts.iter().map(|part| &*part.bytes).collect::<Vec<_>>().concat();
        return Ok(HostWeight { bytes: Cow::Owned(bytes), element_type, scale });
    }
    // 8-bit floats with different scales become f16 with the largest scale. The 11 bits of f16
    // represent the 3 or 4 significant bits of an 8-bit float well after rescaling.
    let scale = parts.iter().map(|part| part.scale.abs()).fold(f32::MIN_POSITIVE, f32::max);
    let mut halves = Vec::new();
    for (view, part) in views.iter().zip(&parts) {
        let unscaled = TensorView { scale: None, ..*view }.to_f32()?;
        halves.extend(unscaled.into_iter().map(|value| half::f16::from_f32(value * (part.scale / scale))));
    }
    Ok(HostWeight { bytes: Cow::Owned(bytemuck::cast_slice(&halves).to_vec()), element_type: ElementType::F16, scale })
}

/// A tensor in the form in which the GPU stores it.
///
/// 32- and 16-bit floats keep their type. An f32 tensor whose values all fit in bf16 becomes bf16,
/// which halves its memory; some published checkpoints have such tensors. 8-bit floats become bf16,
/// which represents them exactly, and keep their scale.
pub fn host_weight<'a>(view: &TensorView<'a>) -> Result<HostWeight<'a>, ModelError> {
    let scale = view.scale.unwrap_or(1.0);
    let stored = |element_type| HostWeight { bytes: Cow::Borrowed(view.bytes), element_type, scale };
    Ok(match view.dtype {
        weights::DType::F32 if fits_bf16(view.bytes) => {
            let halves = view.bytes.as_chunks::<4>().0.iter().flat_map(|value| [value[2], value[3]]).collect();
            HostWeight { bytes: Cow::Owned(halves), element_type: ElementType::BF16, scale }
        }
        weights::DType::F32 => stored(ElementType::F32),
        weights::DType::F16 => stored(ElementType::F16),
        weights::DType::BF16 => stored(ElementType::BF16),
        weights::DType::F8E4M3 | weights::DType::F8E5M2 => {
            let unscaled = TensorView { scale: None, ..*view }.to_f32()?;
            let wide: Vec<half::bf16> = unscaled.into_iter().map(half::bf16::from_f32).collect();
            HostWeight {
                bytes: Cow::Owned(bytemuck::cast_slice(&wide).to_vec()),
                element_type: ElementType::BF16,
                scale,
            }
        }
        _ => HostWeight::from_f32(&view.to_f32()?),
    })
}

/// Whether all little-endian f32 values are bf16 values, which means that their lower halves are
/// zero.
pub fn fits_bf16(values: &[u8]) -> bool {
    values.as_chunks::<4>().0.iter().all(|value| value[..2] == [0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(dtype: weights::DType, bytes: &[u8], scale: Option<f32>) -> TensorView<'_> {
        TensorView { name: "w", shape: &[3], dtype, bytes, scale }
    }

    #[test]
    fn values_of_bf16_take_half_the_memory() {
        for (values, wanted) in [([1.5, -0.375, 0.0], ElementType::BF16), ([1.5, 0.1, 0.0], ElementType::F32)] {
            let bytes: Vec<u8> = values.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
            let kept = host_weight(&view(weights::DType::F32, &bytes, None)).unwrap();
            assert_eq!(kept.element_type, wanted);
            if wanted == ElementType::BF16 {
                let back = kept.bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32());
                assert_eq!(back.collect::<Vec<_>>(), values);
            }
        }
    }

    /// Joined 8-bit floats stay in 16 bits for any scales.
    #[test]
    fn joined_scales_are_kept_in_halves() {
        // In e4m3 these bytes are 1.0, -1.75 and the largest value, 448.
        let bytes = [0x38, 0xbe, 0x7e];
        let parts = [3.1e-3, 0.4, 0.07].map(|scale| view(weights::DType::F8E4M3, &bytes, Some(scale)));
        let kept = joined(&parts).unwrap();
        assert_eq!((kept.element_type, kept.scale), (ElementType::F16, 0.4));
        let found = kept.bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32() * kept.scale);
        let wanted = parts.iter().flat_map(|part| part.to_f32().unwrap());
        for (found, wanted) in found.zip(wanted) {
            assert!((found - wanted).abs() <= 5e-4 * wanted.abs(), "{found} {wanted}");
        }
        let same = joined(&[parts[0], parts[0]]).unwrap();
        assert_eq!((same.element_type, same.scale, same.bytes.len()), (ElementType::BF16, 3.1e-3, 12));
    }
}
