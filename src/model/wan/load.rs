//! Loads a checkpoint's tensors as weights on the GPU.

use std::borrow::Cow;

use crate::gpu::{Gpu, Tensor};
use crate::model::ModelError;
use crate::ops::{Factors, HostWeight, Weight, is_packed, packed_bytes, vector};
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
        let (mut rows, mut columns) = (Vec::new(), 0);
        let mut bias = Vec::new();
        for (name, view) in names.iter().zip(&views) {
            // All axes after the first form the inner extent, because a convolution over whole
            // patches is a Linear layer too.
            let (&outputs, inputs) = view.shape.split_first().unwrap_or((&0, &[]));
            rows.push(outputs);
            columns = inputs.iter().product();
            if let Some(tensor) = self.checkpoint.get(&format!("{name}.bias")) {
                bias.extend(tensor.to_f32()?);
            }
        }
        let (sources, rows) = joined(&views, &rows, columns)?;
        let bias = (!bias.is_empty()).then_some(bias);
        let weight = Weight::joined(self.gpu, &names[0], &sources, &rows, columns, bias.as_deref())?;
        views.iter().for_each(|view| self.checkpoint.rest(view.name));
        Ok(weight)
    }

    fn view(&self, name: &str) -> Result<TensorView<'a>, ModelError> {
        self.checkpoint.get(name).ok_or_else(|| {
            WeightsError::MissingTensor { name: name.into(), path: self.checkpoint.path().into() }.into()
        })
    }
}

/// Matrices `[n, k]` of Linear layers for the GPU, and the `n` of each. Neighbours that are stored
/// alike become one. `rows` are the `n` of the tensors.
fn joined<'a>(
    views: &[TensorView<'a>],
    rows: &[usize],
    k: usize,
) -> Result<(Vec<HostWeight<'a>>, Vec<usize>), ModelError> {
    // Columns come in groups of four.
    if rows.iter().rev().skip(1).any(|rows| !rows.is_multiple_of(4)) {
        let values = views.iter().map(TensorView::to_f32).collect::<Result<Vec<_>, _>>()?.concat();
        return Ok((vec![HostWeight::from_f32(&values)], vec![rows.iter().sum()]));
    }
    let mut parts: Vec<(HostWeight, usize)> = Vec::new();
    for (view, &n) in views.iter().zip(rows) {
        let next = match packed(view, [n, k]) {
            Some(packed) => packed,
            None => host_weight(view)?,
        };
        match parts.last_mut() {
            Some((last, of_last)) if alike(last, &next) => {
                append(last, &next, [*of_last, n]);
                *of_last += n;
            }
            _ => parts.push((next, n)),
        }
    }
    Ok(parts.into_iter().unzip())
}

/// Whether two matrices may be stored as one.
fn alike(a: &HostWeight, b: &HostWeight) -> bool {
    let group = |weight: &HostWeight| weight.factors.as_ref().map(|factors| factors.group);
    (a.dtype, a.scale, group(a)) == (b.dtype, b.scale, group(b))
}

/// Appends the rows of a matrix to another one, with their scales.
fn append(to: &mut HostWeight, other: &HostWeight, rows: [usize; 2]) {
    to.bytes.to_mut().extend_from_slice(&other.bytes);
    if let (Some(to), Some(other)) = (&mut to.factors, &other.factors) {
        let [a, b] = rows;
        let groups = (to.values.len() + other.values.len()) / (a + b).max(1);
        let both = |group| [&to.values[group * a..][..a], &other.values[group * b..][..b]].concat();
        to.values = (0..groups).flat_map(both).collect();
    }
}

/// The factor of all elements. `None` if elements have different factors.
fn factor(view: &TensorView) -> Option<f32> {
    view.scale.map_or(Some(1.0), Scale::as_uniform)
}

/// The matrix `[n, k]` of a tensor as it is stored, if the GPU can unpack it.
fn packed<'a>(view: &TensorView<'a>, [n, k]: [usize; 2]) -> Option<HostWeight<'a>> {
    packed_size(view, [n, k])?;
    let factors = match (view.dtype, view.scale) {
        (DType::Packed(_), _) => None,
        (_, None) => Some(Factors { group: k, values: vec![1.0; n] }),
        (_, Some(scale)) => {
            let (group, values) = scale.by_groups([n, k]);
            Some(Factors { group, values })
        }
    };
    Some(HostWeight { factors, ..HostWeight::floats(Cow::Borrowed(view.bytes), view.dtype) })
}

/// Bytes on the GPU of a matrix `[n, k]` that stays packed. `None` if it does not: its type has
/// more than 8 bits, something is added to it, or its extents do not fit the blocks of its type.
fn packed_size(view: &TensorView, [n, k]: [usize; 2]) -> Option<u64> {
    let group = view.scale.map_or(k, |scale| scale.group(k));
    let suited = view.additions.is_empty() && (group == k || group.is_multiple_of(4));
    let scaled = view.scale.is_some() && matches!(view.dtype, DType::Packed(_));
    (suited && !scaled).then(|| packed_bytes(view.dtype, [k, n], k.div_ceil(group.max(1))))?
}

/// Decodes a tensor of 8 and fewer bits with its scales to f16.
///
/// A power of two as the common scale brings the largest value to 256 to 512. The 11 significant
/// bits of f16 then hold every value down to 2^-22 of the largest to half a unit in their last
/// place, which is at most 2^-11 of the value.
fn halves(view: &TensorView) -> Result<HostWeight<'static>, ModelError> {
    let values = view.to_f32()?;
    let largest = values.iter().filter(|value| value.is_finite()).fold(0f32, |most, v| most.max(v.abs()));
    let exponent = if largest > 0.0 { (largest.log2().floor() as i32 - 8).clamp(-126, 119) } else { 0 };
    let [scale, inverse] = [exponent, -exponent].map(|exponent| 2f32.powi(exponent));
    let bytes: Vec<u8> = values.iter().flat_map(|value| half::f16::from_f32(value * inverse).to_le_bytes()).collect();
    Ok(HostWeight::floats(bytes.into(), DType::F16).scaled(scale))
}

/// A tensor in floats, as convolutions take it, and Linear layers that do not stay packed.
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
        return if is_packed(view.dtype) { halves(view) } else { Ok(HostWeight::from_f32(&view.to_f32()?)) };
    };
    let stored = || HostWeight::floats(Cow::Borrowed(view.bytes), view.dtype).scaled(scale);
    Ok(match view.dtype {
        DType::F32 if fits_bf16(view.bytes) => {
            let halves: Vec<u8> = view.bytes.as_chunks::<4>().0.iter().flat_map(|value| [value[2], value[3]]).collect();
            HostWeight::floats(halves.into(), DType::BF16).scaled(scale)
        }
        DType::F32 | DType::F16 | DType::BF16 => stored(),
        DType::F8E4M3 | DType::F8E5M2 => {
            let unscaled = TensorView { scale: None, ..*view }.to_f32()?;
            HostWeight::floats(bf16_bytes(&unscaled).into(), DType::BF16).scaled(scale)
        }
        dtype if is_packed(dtype) => halves(view)?,
        _ => HostWeight::from_f32(&view.to_f32()?),
    })
}

fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect()
}

/// A tensor with its additions, which are added in f32. The result has the type of the tensor, or
/// f16 for elements of 8 and fewer bits.
fn with_additions(view: &TensorView) -> Result<HostWeight<'static>, ModelError> {
    if is_packed(view.dtype) {
        return halves(view);
    }
    let values = view.to_f32()?;
    Ok(match view.dtype {
        DType::F16 => {
            let bytes: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
            HostWeight::floats(bytes.into(), DType::F16)
        }
        DType::BF16 => HostWeight::floats(bf16_bytes(&values).into(), DType::BF16),
        _ => HostWeight::from_f32(&values),
    })
}

/// Bytes on the GPU of the weight of a Linear layer. The first values of an f32 tensor tell whether
/// its values fit in bf16.
pub fn linear_bytes(view: &TensorView) -> u64 {
    let (&n, inputs) = view.shape.split_first().unwrap_or((&0, &[]));
    packed_size(view, [n, inputs.iter().product()]).unwrap_or_else(|| float_bytes(view))
}

/// Bytes on the GPU of a tensor as [`host_weight`] stores it.
pub fn float_bytes(view: &TensorView) -> u64 {
    const BEGINNING: usize = 4096;
    let size = match view.dtype {
        DType::F16 | DType::BF16 => 2,
        dtype if is_packed(dtype) => 2,
        DType::F32 if fits_bf16(&view.bytes[..view.bytes.len().min(BEGINNING)]) => 2,
        _ => 4,
    };
    view.elements() as u64 * size
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

    fn view<'a>(dtype: DType, shape: &'a [usize], bytes: &'a [u8], scale: Option<&'a Scale>) -> TensorView<'a> {
        TensorView { name: "w", shape, dtype, bytes, scale, additions: &[] }
    }

    #[test]
    fn values_of_bf16_take_half_the_memory() {
        for (values, wanted) in [([1.5, -0.375, 0.0], DType::BF16), ([1.5, 0.1, 0.0], DType::F32)] {
            let bytes: Vec<u8> = values.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
            let kept = host_weight(&view(DType::F32, &[3], &bytes, None)).unwrap();
            assert_eq!(kept.dtype, wanted);
            if wanted == DType::BF16 {
                let back = kept.bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32());
                assert_eq!(back.collect::<Vec<_>>(), values);
            }
        }
    }

    /// q, k and v of a GGUF file: v has more bits than its neighbours.
    #[test]
    fn layers_are_joined_by_their_types() {
        let (q4, q6) = (vec![1; 4 * 144], vec![2; 4 * 210]);
        let q = view(DType::Packed(Packing::Q4K), &[4, 256], &q4, None);
        let v = view(DType::Packed(Packing::Q6K), &[4, 256], &q6, None);
        let (parts, rows) = joined(&[q, q, v], &[4, 4, 4], 256).unwrap();
        assert_eq!(rows, [8, 4]);
        assert_eq!((parts[0].dtype, parts[1].dtype), (q.dtype, v.dtype));
        assert_eq!(&*parts[0].bytes, [&q4[..], &q4].concat());
        assert_eq!(linear_bytes(&q) + linear_bytes(&v), 4 * (148 + 210));
    }

    /// fp8 keeps a scale for each column, whatever scales the layers have.
    #[test]
    fn scales_are_joined() {
        // In e4m3 these bytes are 1.0, -1.75, the largest value (448) and 0.
        let bytes = [0x38, 0xbe, 0x7e, 0].repeat(4);
        let scales = [3.1e-3, 0.4].map(Scale::uniform);
        let parts = [0, 1].map(|i| view(DType::F8E4M3, &[4, 4], &bytes, Some(&scales[i])));
        let (joined, rows) = joined(&parts, &[4, 4], 4).unwrap();
        assert_eq!((joined.len(), &rows[..], joined[0].bytes.len()), (1, &[8][..], 32));
        let values = [vec![3.1e-3; 4], vec![0.4; 4]].concat();
        assert_eq!(joined[0].factors, Some(Factors { group: 4, values }));
    }

    /// A file may say that a layer has no outputs.
    #[test]
    fn an_empty_layer_is_joined() {
        let bytes = [0x38; 16];
        let empty = view(DType::F8E4M3, &[0, 4], &[], None);
        let full = view(DType::F8E4M3, &[4, 4], &bytes, None);
        for parts in [[empty, full], [full, empty]] {
            let rows = parts.map(|part| part.shape[0]);
            let (joined, _) = joined(&parts, &rows, 4).unwrap();
            assert_eq!(joined[0].factors, Some(Factors { group: 4, values: vec![1.0; 4] }));
        }
    }

    /// What cannot stay packed becomes f16: columns that end within a block, convolutions, and
    /// weights with something added. Tiny and huge scales keep their values.
    #[test]
    fn others_become_halves() {
        for scale in [1e-4f32, 0.03, 1000.0] {
            let mut block = half::f16::from_f32(scale).to_le_bytes().to_vec();
            block.extend((0..32u8).map(|i| i.wrapping_mul(37)));
            let q8 = view(DType::Packed(Packing::Q8_0), &[2, 16], &block, None);
            let (kept, _) = joined(&[q8], &[2], 16).unwrap();
            assert_eq!((kept[0].dtype, kept[0].bytes.len(), linear_bytes(&q8)), (DType::F16, 64, 64));
            assert_close(&kept[0], &q8.to_f32().unwrap());
        }
        let zeros = view(DType::Packed(Packing::Q8_0), &[1, 32], &[0; 34], None);
        assert_eq!(host_weight(&zeros).unwrap().scale, 1.0);
    }

    fn assert_close(kept: &HostWeight, wanted: &[f32]) {
        let found = kept.bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32() * kept.scale);
        for (found, wanted) in found.zip(wanted) {
            assert!((found - wanted).abs() <= wanted.abs() / 2048.0, "{found} {wanted}");
        }
    }
}
