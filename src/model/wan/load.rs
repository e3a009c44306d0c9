//! Loads a checkpoint's tensors as weights on the GPU.

use std::borrow::Cow;

use crate::gpu::{ElementType, Gpu, Tensor};
use crate::model::ModelError;
use crate::ops::{HostWeight, Weight, vector};
use crate::weights::{Checkpoint, DType, Scale, TensorView, WeightsError};

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
    let plain = views.iter().all(|view| view.additions.is_empty());
    let factors: Option<Vec<f32>> = views.iter().map(factor).collect();
    match factors {
        Some(factors) if plain && views.iter().all(|view| is_fp8(view.dtype)) => {
            let alike = views.iter().zip(&factors).all(|(view, f)| (view.dtype, *f) == (views[0].dtype, factors[0]));
            if !alike {
                return rescaled(views, &factors);
            }
        }
        _ if views.iter().all(|view| is_small(view.dtype)) => return halves(views),
        _ => {}
    }
    let parts = views.iter().map(host_weight).collect::<Result<Vec<_>, _>>()?;
    let HostWeight { element_type, scale, .. } = parts[0];
    if parts.iter().all(|part| part.element_type == element_type && part.scale == scale) {
        let bytes = parts.iter().map(|part| &*part.bytes).collect::<Vec<_>>().concat();
        return Ok(HostWeight { bytes: Cow::Owned(bytes), element_type, scale });
    }
    let values = views.iter().map(TensorView::to_f32).collect::<Result<Vec<_>, _>>()?.concat();
    Ok(HostWeight::from_f32(&values))
}

fn is_fp8(dtype: DType) -> bool {
    matches!(dtype, DType::F8E4M3 | DType::F8E5M2)
}

/// Whether the elements have 8 and fewer bits.
fn is_small(dtype: DType) -> bool {
    is_fp8(dtype) || matches!(dtype, DType::I8 | DType::Packed(_))
}

/// The factor of all elements. `None` if elements have different factors.
fn factor(view: &TensorView) -> Option<f32> {
    view.scale.map_or(Some(1.0), Scale::as_uniform)
}

/// Joins 8-bit floats with different scales in f16 with the largest scale. The 11 bits of f16
/// represent the 3 or 4 significant bits of an 8-bit float well after rescaling, and exactly with
/// that scale.
fn rescaled(views: &[TensorView], factors: &[f32]) -> Result<HostWeight<'static>, ModelError> {
    let scale = factors.iter().map(|factor| factor.abs()).fold(f32::MIN_POSITIVE, f32::max);
    let mut bytes = Vec::new();
    for (view, factor) in views.iter().zip(factors) {
        for value in (TensorView { scale: None, ..*view }).to_f32()? {
            bytes.extend(half::f16::from_f32(value * (factor / scale)).to_le_bytes());
        }
    }
    Ok(HostWeight { bytes: Cow::Owned(bytes), element_type: ElementType::F16, scale })
}

/// Decodes tensors of 8 and fewer bits with their scales and joins them in f16.
///
/// A power of two as the common scale brings the largest value to 256 to 512. The 11 significant
/// bits of f16 then hold every value down to 2^-22 of the largest to half a unit in their last
/// place, which is at most 2^-11 of the value.
fn halves(views: &[TensorView]) -> Result<HostWeight<'static>, ModelError> {
    let values = views.iter().map(TensorView::to_f32).collect::<Result<Vec<_>, _>>()?;
    let largest = values.iter().flatten().filter(|value| value.is_finite()).fold(0f32, |most, v| most.max(v.abs()));
    let exponent = if largest > 0.0 { (largest.log2().floor() as i32 - 8).clamp(-126, 119) } else { 0 };
    let [scale, inverse] = [exponent, -exponent].map(|exponent| 2f32.powi(exponent));
    let mut bytes = Vec::with_capacity(2 * values.iter().map(Vec::len).sum::<usize>());
    for value in values.iter().flatten() {
        bytes.extend(half::f16::from_f32(value * inverse).to_le_bytes());
    }
    Ok(HostWeight { bytes: Cow::Owned(bytes), element_type: ElementType::F16, scale })
}

/// A tensor in the form in which the GPU stores it.
///
/// 32- and 16-bit floats keep their type. An f32 tensor whose values all fit in bf16 becomes bf16,
/// which halves its memory; some published checkpoints have such tensors. 8-bit floats with one
/// scale or none become bf16, which represents them exactly, and keep the scale. All other elements
/// of 8 and fewer bits are decoded and become f16.
pub fn host_weight<'a>(view: &TensorView<'a>) -> Result<HostWeight<'a>, ModelError> {
    if !view.additions.is_empty() {
        return with_additions(view);
    }
    let Some(scale) = factor(view) else {
        return if is_small(view.dtype) { halves(&[*view]) } else { Ok(HostWeight::from_f32(&view.to_f32()?)) };
    };
    let stored = |element_type| HostWeight { bytes: Cow::Borrowed(view.bytes), element_type, scale };
    Ok(match view.dtype {
        DType::F32 if fits_bf16(view.bytes) => {
            let halves = view.bytes.as_chunks::<4>().0.iter().flat_map(|value| [value[2], value[3]]).collect();
            HostWeight { bytes: Cow::Owned(halves), element_type: ElementType::BF16, scale }
        }
        DType::F32 => stored(ElementType::F32),
        DType::F16 => stored(ElementType::F16),
        DType::BF16 => stored(ElementType::BF16),
        dtype if is_fp8(dtype) => {
            let unscaled = TensorView { scale: None, ..*view }.to_f32()?;
            let wide: Vec<half::bf16> = unscaled.into_iter().map(half::bf16::from_f32).collect();
            HostWeight {
                bytes: Cow::Owned(bytemuck::cast_slice(&wide).to_vec()),
                element_type: ElementType::BF16,
                scale,
            }
        }
        dtype if is_small(dtype) => halves(&[*view])?,
        _ => HostWeight::from_f32(&view.to_f32()?),
    })
}

/// A tensor with its additions, which are added in f32. The result has the type of the tensor, or
/// f16 for elements of 8 and fewer bits.
fn with_additions(view: &TensorView) -> Result<HostWeight<'static>, ModelError> {
    let values = view.to_f32()?;
    let stored = |bytes, element_type| HostWeight { bytes: Cow::Owned(bytes), element_type, scale: 1.0 };
    Ok(match view.dtype {
        DType::F16 => {
            stored(values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(), ElementType::F16)
        }
        DType::BF16 => {
            stored(values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(), ElementType::BF16)
        }
        dtype if is_small(dtype) => halves(&[*view])?,
        _ => HostWeight::from_f32(&values),
    })
}

/// Bytes of one element of a tensor on the GPU, as [`host_weight`] stores it. `beginning` are the
/// first elements, which tell whether f32 values fit in bf16.
pub fn bytes_on_gpu(dtype: DType, beginning: &[u8]) -> u64 {
    match dtype {
        DType::F16 | DType::BF16 => 2,
        dtype if is_small(dtype) => 2,
        DType::F32 if fits_bf16(beginning) => 2,
        _ => 4,
    }
}

/// Whether all little-endian f32 values are bf16 values, which means that their lower halves are
/// zero.
pub fn fits_bf16(values: &[u8]) -> bool {
    values.as_chunks::<4>().0.iter().all(|value| value[..2] == [0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Packing;

    fn view<'a>(dtype: DType, bytes: &'a [u8], scale: Option<&'a Scale>) -> TensorView<'a> {
        TensorView { name: "w", shape: &[3], dtype, bytes, scale, additions: &[] }
    }

    #[test]
    fn values_of_bf16_take_half_the_memory() {
        for (values, wanted) in [([1.5, -0.375, 0.0], ElementType::BF16), ([1.5, 0.1, 0.0], ElementType::F32)] {
            let bytes: Vec<u8> = values.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
            let kept = host_weight(&view(DType::F32, &bytes, None)).unwrap();
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
        let scales = [3.1e-3, 0.4, 0.07].map(Scale::uniform);
        let parts = [0, 1, 2].map(|i| view(DType::F8E4M3, &bytes, Some(&scales[i])));
        let kept = joined(&parts).unwrap();
        assert_eq!((kept.element_type, kept.scale), (ElementType::F16, 0.4));
        assert_close(&kept, &parts.iter().flat_map(|part| part.to_f32().unwrap()).collect::<Vec<_>>());
        let same = joined(&[parts[0], parts[0]]).unwrap();
        assert_eq!((same.element_type, same.scale, same.bytes.len()), (ElementType::BF16, 3.1e-3, 12));
    }

    fn assert_close(kept: &HostWeight, wanted: &[f32]) {
        let found = kept.bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32() * kept.scale);
        for (found, wanted) in found.zip(wanted) {
            assert!((found - wanted).abs() <= wanted.abs() / 2048.0, "{found} {wanted}");
        }
    }

    /// Packed blocks of different formats, tiny and huge scales among them, are joined in f16.
    #[test]
    fn packed_weights_become_halves() {
        for scale in [1e-4f32, 0.03, 1000.0] {
            let mut block = half::f16::from_f32(scale).to_le_bytes().to_vec();
            block.extend((0..32u8).map(|i| i.wrapping_mul(37)));
            let q8 = TensorView { shape: &[1, 32], ..view(DType::Packed(Packing::Q8_0), &block, None) };
            let q4 = TensorView { dtype: DType::Packed(Packing::Q4_0), bytes: &block[..18], ..q8 };
            let kept = joined(&[q8, q4]).unwrap();
            assert_eq!((kept.element_type, kept.bytes.len()), (ElementType::F16, 128));
            assert_close(&kept, &[q8.to_f32().unwrap(), q4.to_f32().unwrap()].concat());
            assert_close(&host_weight(&q8).unwrap(), &q8.to_f32().unwrap());
        }
        let zeros = TensorView { shape: &[1, 32], ..view(DType::Packed(Packing::Q8_0), &[0; 34], None) };
        assert_eq!(host_weight(&zeros).unwrap().scale, 1.0);
    }
}
