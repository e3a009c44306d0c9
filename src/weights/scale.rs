//! Scales of weights in 8 bits: which tensors are scales, and which elements they multiply.
//!
//! A Linear weight `X.weight` in fp8 or in whole numbers of 8 bits may have its scales beside it,
//! as `X.scale_weight` (ComfyUI's scaled files), `X.weight_scale` or `X.weight_scale_inv`. All
//! three multiply: W = stored * scale. There is one scale for the whole tensor, one for each row,
//! or one for each block of rows and columns. `X.scale_input` and similar tensors serve fp8
//! arithmetic, and are not needed because the program computes with decoded weights.

use super::checkpoint::Stored;
use super::error::shown;
use super::{DType, WeightsError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Factors of the elements of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// The factors, row-major.
    values: Vec<f32>,
    /// Number of factors in a row of factors.
    columns: usize,
    /// Extents of the block of elements that shares a factor: rows and columns.
    block: [usize; 2],
}

impl Scale {
    /// One factor for all elements.
    pub fn uniform(value: f32) -> Self {
        Self { values: vec![value], columns: 1, block: [usize::MAX; 2] }
    }

    /// The factor, if it is the same for all elements.
    pub fn as_uniform(&self) -> Option<f32> {
        if let [value] = self.values[..] { Some(value) } else { None }
    }

    /// Number of neighbouring elements of a row of `width` elements that share a factor.
    pub fn group(&self, width: usize) -> usize {
        self.block[1].min(width).max(1)
    }

    /// The factors of a `[rows, width]` matrix with one in each row for every `group` columns:
    /// `group`, and `[width / group (rounded up), rows]` factors, row-major.
    pub fn by_groups(&self, [rows, width]: [usize; 2]) -> (usize, Vec<f32>) {
        let group = self.group(width);
        let factor =
            |row: usize, column| self.values.get(row / self.block[0] * self.columns + column).copied().unwrap_or(1.0);
        let groups = (0..width.div_ceil(group)).flat_map(|column| (0..rows).map(move |row| factor(row, column)));
        (group, groups.collect())
    }

    /// Multiplies rows of `width` elements that begin with row `first`.
    pub(super) fn apply(&self, values: &mut [f32], first: usize, width: usize) {
        for (row, values) in values.chunks_mut(width.max(1)).enumerate() {
            let factors = self.values.get((first + row) / self.block[0] * self.columns..).unwrap_or_default();
            for (values, factor) in values.chunks_mut(self.block[1].min(width.max(1))).zip(factors) {
                values.iter_mut().for_each(|value| *value *= factor);
            }
        }
    }

    /// The factors `values` of the shape `scales` for a weight of the shape `weight`. `None` if
    /// they fit in no known way.
    fn new(values: Vec<f32>, scales: &[usize], weight: &[usize]) -> Option<Self> {
        if values.len() == 1 {
            return Some(Self { values, columns: 1, block: [usize::MAX; 2] });
        }
        let (&rows, rest) = weight.split_first()?;
        let width = rest.iter().product::<usize>();
        let (of_rows, of_columns) = match *scales {
            [of_rows] => (of_rows, 1),
            [of_rows, of_columns] => (of_rows, of_columns),
            _ => return None,
        };
        let block = [extent(rows, of_rows)?, extent(width, of_columns)?];
        Some(Self { values, columns: of_columns, block })
    }
}

/// The extent of a block when `count` blocks cover `size` elements.
fn extent(size: usize, count: usize) -> Option<usize> {
    /// The usual extents. They come first, because the last block may be incomplete.
    const USUAL: [usize; 4] = [128, 64, 32, 16];
    if count == 0 {
        return None;
    }
    let usual = USUAL.into_iter().find(|extent| size.div_ceil(*extent) == count);
    usual.or_else(|| size.is_multiple_of(count).then_some(size / count).filter(|extent| *extent > 0))
}

/// Last words of the names of scales.
const SCALES: [&str; 3] = ["scale_weight", "weight_scale", "weight_scale_inv"];
/// Last words of the names of tensors that decoded weights do not need.
const IGNORED: [&str; 5] = ["scaled_fp8", "scale_input", "input_scale", "scale_output", "comfy_quant"];

fn last_word(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

/// The name of the weight that a scale belongs to.
fn weight_of(scale: &str) -> String {
    match scale.rsplit_once('.') {
        Some((stem, _)) => format!("{stem}.weight"),
        None => "weight".into(),
    }
}

fn takes_scales(dtype: DType) -> bool {
    matches!(dtype, DType::F8E4M3 | DType::F8E5M2) || dtype.name() == "I8"
}

/// Moves the scales out of the list and into the tensors that they belong to. Whole numbers of 8
/// bits with scales become [`DType::I8`].
///
/// # Errors
/// [`WeightsError::MissingTensor`] for a scale without its weight. [`WeightsError::Unsupported`]
/// for scales of a shape that fits in no known way, for two scales of one weight that differ, and
/// for a small tensor of floats beside a weight in 8 bits that has no known name.
/// [`WeightsError::Malformed`] for scales that are not finite.
pub(super) fn fold(path: &Path, tensors: &mut BTreeMap<String, Stored>) -> Result<(), WeightsError> {
    let mut scales: BTreeMap<String, (String, Scale)> = BTreeMap::new();
    for (name, stored) in tensors.iter().filter(|(name, _)| SCALES.contains(&last_word(name))) {
        let weight = weight_of(name);
        let target = tensors
            .get(&weight)
            .ok_or_else(|| WeightsError::MissingTensor { name: shown(&weight), path: path.into() })?;
        let scale = read(path, name, stored, target)?;
        if let Some((other, first)) = scales.insert(weight, (name.clone(), scale.clone()))
            && first != scale
        {
            let what = format!("{} and {} contradict each other; which one is right?", shown(&other), shown(name));
            return Err(WeightsError::unsupported(path, what));
        }
    }
    tensors.retain(|name, _| !SCALES.contains(&last_word(name)) && !IGNORED.contains(&last_word(name)));
    refuse_unknown(path, tensors)?;
    for (name, (_, scale)) in scales {
        if let Some(stored) = tensors.get_mut(&name) {
            stored.scale = Some(Arc::new(scale));
            if stored.dtype.name() == "I8" {
                stored.dtype = DType::I8;
            }
        }
    }
    Ok(())
}

fn read(path: &Path, name: &str, stored: &Stored, weight: &Stored) -> Result<Scale, WeightsError> {
    let values = stored.view(name).to_f32()?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(WeightsError::malformed(path, format!("the scale {} is not a finite number", shown(name))));
    }
    Scale::new(values, &stored.shape, &weight.shape).ok_or_else(|| {
        let what = format!(
            "the scale {} {:?} fits the weight {:?} neither as a whole nor by rows nor by blocks",
            shown(name),
            stored.shape,
            weight.shape
        );
        WeightsError::unsupported(path, what)
    })
}

/// Refuses floats beside a weight in 8 bits that may be scales under an unknown name. Without them
/// the weight would be noise.
fn refuse_unknown(path: &Path, tensors: &BTreeMap<String, Stored>) -> Result<(), WeightsError> {
    for (weight, stored) in tensors.iter().filter(|(_, stored)| takes_scales(stored.dtype)) {
        let Some(stem) = weight.strip_suffix("weight") else { continue };
        let beside = tensors.range(stem.to_owned()..).take_while(|(name, _)| name.starts_with(stem));
        let unknown = beside.filter(|(name, other)| {
            let own = name[stem.len()..].split('.').next().unwrap_or_default();
            let known = **name == *weight || own == "bias" || own.contains("lora") || name[stem.len()..].contains('.');
            let few = other.shape.iter().product::<usize>() <= stored.shape.iter().product::<usize>() / 16 + 1;
            let float = matches!(other.dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16);
            !known && few && float
        });
        if let Some((name, _)) = unknown.into_iter().next() {
            let what = format!(
                "the tensor {} beside the {} weight {} may be its scale, but its name is not known; known are {}",
                shown(name),
                stored.dtype,
                shown(weight),
                SCALES.join(", ")
            );
            return Err(WeightsError::unsupported(path, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(scale: &Scale, rows: usize, width: usize) -> Vec<f32> {
        let mut values = vec![1.0; rows * width];
        scale.apply(&mut values, 0, width);
        values
    }

    #[test]
    fn one_for_all_for_rows_and_for_blocks() {
        let of = |values: &[f32], scales: &[usize], weight: &[usize]| Scale::new(values.to_vec(), scales, weight);
        assert_eq!(scaled(&of(&[3.0], &[], &[2, 2]).unwrap(), 2, 2), [3.0; 4]);
        let rows = of(&[2.0, 5.0], &[2, 1], &[2, 3]).unwrap();
        assert_eq!(scaled(&rows, 2, 3), [2.0, 2.0, 2.0, 5.0, 5.0, 5.0]);
        assert_eq!(of(&[2.0, 5.0], &[2], &[2, 3]).unwrap(), rows);
        let blocks = of(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &[2, 4]).unwrap();
        assert_eq!(scaled(&blocks, 2, 4), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        let mut second = vec![1.0; 4];
        blocks.apply(&mut second, 1, 4);
        assert_eq!(second, [3.0, 3.0, 4.0, 4.0], "rows may begin anywhere");
        // 128 x 128 blocks, of which the last ones are incomplete.
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &[130, 200]).unwrap().block, [128, 128]);
        assert_eq!(of(&[1.0; 6], &[3, 2], &[3, 10]).unwrap().block, [1, 5]);
        let odd = of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &[255, 300]).unwrap();
        assert_eq!((odd.block, scaled(&odd, 255, 300)[129 * 300 + 299]), ([128, 128], 6.0));
        assert!(of(&[1.0; 4], &[4], &[3, 4]).is_none());
        assert!(of(&[1.0; 8], &[2, 2, 2], &[8, 8]).is_none());
    }
}
