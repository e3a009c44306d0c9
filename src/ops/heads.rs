//! From projections to the layouts of [`attention`](super::attention): norm across heads, rotary positions, split by heads.

use crate::gpu::{Dispatch, ElementType, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::matmul::{Activation, Then, matmul};
use super::norm::{check_vector, inverse_rms};
use super::split::{fitting, ranges, row_parts, window};
use super::weight::Weight;

/// Rotations of rotary position embedding (Su et al. 2021) over a grid of tokens, frames slowest and columns fastest.
///
/// The pairs (2i, 2i + 1) of a head belong to an axis each: rows and columns get a third of them, rounded down, frames the rest
/// and come first. Pair k of an axis with p pairs turns by position * 10000^(-k / p), as in Wan's reference implementation.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// `[tokens, head_dim]`: cosine and sine of every pair in turn.
    rotations: Tensor,
    grid: [usize; 3],
}

impl RopeTable {
    /// The table of a grid of [frames, rows, columns] tokens; `head_dim` is a multiple of 4.
    pub fn new(cx: &mut Stream, grid: [usize; 3], head_dim: usize) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(4) {
            return Err(GpuError::shape("rope", format!("head dimension {head_dim} is no multiple of 4")));
        }
        let values = rotations(grid, head_dim);
        let shape = [grid.iter().product(), head_dim];
        Ok(Self { rotations: cx.upload("rope", &values, &shape)?, grid })
    }

    /// Frames, rows and columns of tokens.
    pub fn grid(&self) -> [usize; 3] {
        self.grid
    }

    /// Tokens of the grid.
    pub fn tokens(&self) -> usize {
        self.rotations.rows()
    }
}

/// Cosine and sine, in turn, of every pair of every token. Angles are f64: f32 would lose digits at large positions.
fn rotations([frames, rows, columns]: [usize; 3], head_dim: usize) -> Vec<f32> {
    let third = head_dim / 2 / 3;
    let pairs = [head_dim / 2 - 2 * third, third, third];
    // For each axis the rotations of position 0, then of position 1 ...
    let axis = |positions: usize, pairs: usize| -> Vec<f32> {
        let angles = (0..positions)
            .flat_map(|position| (0..pairs).map(move |k| position as f64 * 10_000f64.powf(-(k as f64) / pairs as f64)));
        angles.flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect()
    };
    let tables = [axis(frames, pairs[0]), axis(rows, pairs[1]), axis(columns, pairs[2])];
    let mut out = Vec::with_capacity(frames * rows * columns * head_dim);
    for frame in 0..frames {
        for row in 0..rows {
            for column in 0..columns {
                for ((table, pairs), position) in tables.iter().zip(pairs).zip([frame, row, column]) {
                    out.extend(&table[2 * pairs * position..][..2 * pairs]);
                }
            }
        }
    }
    out
}

/// What becomes of one column block of a projection.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadsPart<'a> {
    /// RMSNorm over the whole block, all heads together, before anything else: weight `[heads * d]` and epsilon.
    pub norm: Option<(&'a Tensor, f32)>,
    /// Rotations of the block's rows.
    pub rope: Option<&'a RopeTable>,
    /// `[heads, d, n]`, n padded by zeros to a multiple of 4, as keys are read, instead of `[heads, n, d]`.
    pub transposed: bool,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    n: u32,
    n4: u32,
    first_row: u32,
    row_groups: u32,
    first_head: u32,
    heads: u32,
    d4: u32,
    x4: u32,
    x_row4: u32,
    rope4: u32,
    output4: u32,
    factor_first: u32,
    factor_stride: u32,
}

/// The projection `x w`, `[n, parts * heads * d]`, by its column blocks, and these by heads: one tensor a part. The projection itself is
/// made in parts of its rows: at video sizes it would be the largest tensor of all. Fails unless d is a multiple of 4 and weights and
/// rotations fit.
pub fn project_heads(
    cx: &mut Stream,
    x: &Tensor,
    w: &Weight,
    heads: usize,
    parts: &[HeadsPart],
) -> Result<Vec<Tensor>> {
    let split = HeadsSplit::new(cx, [x.rows(), w.n()], heads, parts)?;
    let x = x.reshape(&[x.rows(), x.columns()]);
    for rows in row_parts(cx.gpu(), x.rows(), w.n()) {
        let projected = matmul(cx, &x.slice(rows.start, rows.len()), w, Activation::None, Then::Store)?;
        split.rows(cx, &projected, rows.start)?;
    }
    Ok(split.outputs)
}

/// A projection on its way into heads.
struct HeadsSplit<'a> {
    parts: &'a [HeadsPart<'a>],
    /// Rows of the whole projection, heads of a part, columns of a head.
    extents: [usize; 3],
    outputs: Vec<Tensor>,
}

/// The norm's factors of some rows: that of a row is the element `first + row * stride`.
struct Factors {
    values: Tensor,
    first: usize,
    stride: usize,
}

impl<'a> HeadsSplit<'a> {
    /// For a projection `[n, columns]`.
    fn new(cx: &mut Stream, [n, columns]: [usize; 2], heads: usize, parts: &'a [HeadsPart<'a>]) -> Result<Self> {
        let d = columns / (parts.len() * heads).max(1);
        if n == 0 || d == 0 || !d.is_multiple_of(4) || d * heads * parts.len() != columns {
            let message = format!("[{n}, {columns}] into {} parts of {heads} heads", parts.len());
            return Err(GpuError::shape("split_heads", message));
        }
        for part in parts {
            part.check([n, heads, d])?;
        }
        let shape = |part: &HeadsPart| if part.transposed { [heads, d, n.next_multiple_of(4)] } else { [heads, n, d] };
        let outputs =
            parts.iter().map(|part| cx.empty("heads", &shape(part), ElementType::F32)).collect::<Result<_>>()?;
        Ok(Self { parts, extents: [n, heads, d], outputs })
    }

    /// Splits rows of the projection, those from `first_row` (a multiple of 4) on.
    fn rows(&self, cx: &mut Stream, projected: &Tensor, first_row: usize) -> Result<()> {
        let factors = self.factors(cx, projected)?;
        for (index, factors) in factors.iter().enumerate() {
            self.split(cx, index, (projected, first_row), factors.as_ref())?;
        }
        Ok(())
    }

    /// The factors of every part: of all parts in one go where more than one is normalised.
    fn factors(&self, cx: &mut Stream, x: &Tensor) -> Result<Vec<Option<Factors>>> {
        let ([_, heads, d], count) = (self.extents, self.parts.len());
        let epsilons: Vec<f32> = self.parts.iter().filter_map(|part| Some(part.norm?.1)).collect();
        let together = match epsilons[..] {
            [first, _, ..] if epsilons.iter().all(|epsilon| *epsilon == first) => {
                let blocks = x.reshape(&[x.rows() * count, heads * d]);
                Some(inverse_rms(cx, &blocks, [0, heads * d], first)?)
            }
            _ => None,
        };
        let of_part = |(index, part): (usize, &HeadsPart)| {
            let Some((_, epsilon)) = part.norm else { return Ok(None) };
            if let Some(values) = &together {
                return Ok(Some(Factors { values: values.clone(), first: index, stride: count }));
            }
            let values = inverse_rms(cx, x, [index * heads * d, heads * d], epsilon)?;
            Ok(Some(Factors { values, first: 0, stride: 1 }))
        };
        self.parts.iter().enumerate().map(of_part).collect()
    }

    /// Splits the column block of a part.
    fn split(
        &self,
        cx: &mut Stream,
        index: usize,
        (x, first_row): (&Tensor, usize),
        factors: Option<&Factors>,
    ) -> Result<()> {
        /// What an element costs, in multiply-adds of a matrix product: it is memory that counts.
        const COST: f64 = 32.0;
        let ([n, heads, d], part, out) = (self.extents, &self.parts[index], &self.outputs[index]);
        let (row, head_elements) = (x.columns(), out.len() / heads);
        let kernel = part.kernel();
        let max_binding = cx.gpu().caps().max_binding;
        let affordable = (cx.dispatch_budget() / (COST * (heads * d) as f64)) as usize;
        let most_rows = fitting(max_binding, 4 * row).min(affordable).max(4);
        for rows in ranges(x.rows(), most_rows, 4) {
            let row_in_all = first_row + rows.start;
            for some in ranges(heads, fitting(max_binding, 4 * head_elements), 1) {
                let (x, x4) = window(x, rows.start * row, rows.len() * row);
                let (output, output4) = window(out, some.start * head_elements, some.len() * head_elements);
                let rope = part.rope.map(|rope| window(&rope.rotations, row_in_all * d, rows.len() * d));
                let mut tensors = vec![(1, &x), (2, &output)];
                if let (Some(factors), Some((weight, _))) = (factors, part.norm) {
                    tensors.extend([(3, &factors.values), (4, weight)]);
                }
                tensors.extend(rope.as_ref().map(|(rotations, _)| (5, rotations)));
                let row_groups = rows.len().div_ceil(4);
                let params = Params {
                    n: n as u32,
                    n4: n.div_ceil(4) as u32,
                    first_row: row_in_all as u32,
                    row_groups: row_groups as u32,
                    first_head: some.start as u32,
                    heads: some.len() as u32,
                    d4: (d / 4) as u32,
                    x4: x4 + (index * heads * d / 4) as u32,
                    x_row4: (row / 4) as u32,
                    rope4: rope.as_ref().map_or(0, |(_, start)| *start),
                    output4,
                    factor_first: factors.map_or(0, |f| (f.first + rows.start * f.stride) as u32),
                    factor_stride: factors.map_or(0, |f| f.stride as u32),
                };
                cx.dispatch(&Dispatch {
                    kernel: &kernel,
                    tensors: &tensors,
                    params: bytemuck::bytes_of(&params),
                    groups: fold_groups((row_groups * some.len() * d / 4).div_ceil(64)),
                    flops: COST * (rows.len() * some.len() * d) as f64,
                })?;
            }
        }
        Ok(())
    }
}

impl HeadsPart<'_> {
    fn kernel(&self) -> Kernel {
        Kernel::new("split_heads")
            .flag_if(self.norm.is_some(), "NORM")
            .flag_if(self.rope.is_some(), "ROPE")
            .flag_if(self.transposed, "TRANSPOSED")
    }

    /// Whether weights and rotations fit `n` rows of some heads of `d` columns.
    fn check(&self, [n, heads, d]: [usize; 3]) -> Result<()> {
        if let Some(rope) = self.rope.filter(|rope| rope.rotations.shape() != [n, d]) {
            let message = format!("rotations {:?} for {n} rows of head dimension {d}", rope.rotations.shape());
            return Err(GpuError::shape("split_heads", message));
        }
        self.norm.map_or(Ok(()), |(weight, _)| check_vector("split_heads", weight, heads * d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::StreamOptions;
    use crate::ops::HostWeight;
    use crate::ops::testing::*;

    /// Norm and rotation of a block [n, heads * d], in f64, by the formulas: the CPU twin.
    fn split_twin(
        block: &[f64],
        grid: [usize; 3],
        d: usize,
        heads: usize,
        norm: Option<&[f32]>,
        rope: bool,
    ) -> Vec<f64> {
        let dim = heads * d;
        let mut out = block.to_vec();
        for (token, row) in out.chunks_mut(dim).enumerate() {
            if let Some(weight) = norm {
                let mean = row.iter().map(|v| v * v).sum::<f64>() / dim as f64;
                row.iter_mut().zip(weight).for_each(|(v, w)| *v *= f64::from(*w) / (mean + 1e-6).sqrt());
            }
            if rope {
                let position = [token / (grid[1] * grid[2]), token / grid[2] % grid[1], token % grid[2]];
                for pair in 0..dim / 2 {
                    let (third, i) = (d / 6, pair % (d / 2));
                    let frames = d / 2 - 2 * third;
                    let (axis, k, pairs) = match i {
                        _ if i < frames => (0, i, frames),
                        _ if i < frames + third => (1, i - frames, third),
                        _ => (2, i - frames - third, third),
                    };
                    let angle = position[axis] as f64 / 10_000f64.powf(2.0 * k as f64 / (2 * pairs) as f64);
                    let (a, b) = (row[2 * pair], row[2 * pair + 1]);
                    row[2 * pair] = a * angle.cos() - b * angle.sin();
                    row[2 * pair + 1] = a * angle.sin() + b * angle.cos();
                }
            }
        }
        out
    }

    /// A projection by heads, taken over in parts of so many rows.
    fn split_heads(cx: &mut Stream, x: &Tensor, heads: usize, parts: &[HeadsPart], rows: usize) -> Result<Vec<Tensor>> {
        let split = HeadsSplit::new(cx, [x.rows(), x.columns()], heads, parts)?;
        for first in (0..x.rows()).step_by(rows) {
            // A copy, as a part of a projection is a tensor of its own.
            let some = cx.copy_of(&x.slice(first, rows.min(x.rows() - first)))?;
            split.rows(cx, &some, first)?;
        }
        Ok(split.outputs)
    }

    /// Query, key and value blocks of one projection, with and without norm and rotation.
    fn check(cx: &mut Stream, grid: [usize; 3], heads: usize, d: usize) {
        let (n, dim) = (grid.iter().product::<usize>(), heads * d);
        let n4 = n.next_multiple_of(4);
        let (x, values) = random_tensor(cx, 1, &[n, 3 * dim]);
        let (weight, w) = random_tensor(cx, 2, &[dim]);
        let rope = RopeTable::new(cx, grid, d).unwrap();
        let parts = [
            HeadsPart { norm: Some((&weight, 1e-6)), rope: Some(&rope), transposed: false },
            HeadsPart { norm: Some((&weight, 1e-6)), rope: Some(&rope), transposed: true },
            HeadsPart::default(),
        ];
        let whole = split_heads(cx, &x, heads, &parts, n).unwrap();
        let in_parts = split_heads(cx, &x, heads, &parts, n.div_ceil(3).next_multiple_of(4)).unwrap();
        for (i, (got, part)) in whole.iter().zip(parts).enumerate() {
            assert_eq!(cx.read(got).unwrap(), cx.read(&in_parts[i]).unwrap(), "rows in parts, part {i}");
            let block: Vec<f64> =
                values.chunks(3 * dim).flat_map(|row| row[i * dim..][..dim].iter().map(|v| f64::from(*v))).collect();
            let norm = part.norm.map(|_| w.as_slice());
            let block = split_twin(&block, grid, d, heads, norm, part.rope.is_some());
            let mut want = vec![0.0; if part.transposed { heads * d * n4 } else { n * dim }];
            for (at, value) in block.iter().enumerate() {
                let (row, head, column) = (at / dim, at % dim / d, at % d);
                let index =
                    if part.transposed { (head * d + column) * n4 + row } else { (head * n + row) * d + column };
                want[index] = *value as f32;
            }
            let what = format!("part {i} of {grid:?} tokens, {heads} heads of {d}");
            assert_close(&cx.read(got).unwrap(), &want, 5e-7, &what);
        }
        // Keys and values, as of a text: one part that is normalised, its factors made by themselves.
        let pair = HeadsSplit::new(cx, [n, 3 * dim], heads, &parts).unwrap();
        let alone = [parts[0], HeadsPart::default(), HeadsPart::default()];
        let alone = HeadsSplit { parts: &alone, ..pair };
        alone.rows(cx, &x, 0).unwrap();
        assert_eq!(cx.read(&alone.outputs[0]).unwrap(), cx.read(&whole[0]).unwrap(), "factors of one part alone");
    }

    #[test]
    fn heads_agree_with_the_twin() {
        let (full, turn) = gpu();
        drop(turn);
        let (base, _turn) = base_gpu();
        for gpu in [full, base] {
            let mut cx = stream(&gpu);
            for (grid, heads, d) in [([1, 1, 1], 1, 4), ([3, 5, 7], 3, 32), ([2, 3, 50], 2, 128), ([1, 2, 3], 5, 40)] {
                check(&mut cx, grid, heads, d);
            }
        }
    }

    #[test]
    fn heads_and_rows_are_split_at_the_limits() {
        let (_, _turn) = gpu();
        // Four rows of x are 5,760 bytes, the keys of a head 4,160.
        let gpu = narrow_gpu(6_100);
        for budget in [std::time::Duration::ZERO, StreamOptions::default().budget] {
            check(&mut Stream::new(&gpu, StreamOptions { budget, ..Default::default() }), [1, 5, 5], 3, 40);
        }
    }

    /// A projection that no binding holds is made in parts.
    #[test]
    fn projections_are_made_in_parts() {
        let (_, _turn) = gpu();
        let ([n, k], heads, d) = ([150, 8], 4, 8);
        let project = |max_binding| {
            let gpu = narrow_gpu(max_binding);
            let mut cx = stream(&gpu);
            let (x, _) = random_tensor(&mut cx, 1, &[n, k]);
            let host = HostWeight::from_f32(&random(2, 3 * heads * d * k));
            let w = Weight::linear(&gpu, "w", &host, [3 * heads * d, k], None).unwrap();
            let (weight, _) = random_tensor(&mut cx, 3, &[heads * d]);
            let rope = RopeTable::new(&mut cx, [6, 5, 5], d).unwrap();
            let normed = HeadsPart { norm: Some((&weight, 1e-6)), rope: Some(&rope), transposed: false };
            let parts = [normed, HeadsPart { transposed: true, ..normed }, HeadsPart::default()];
            let heads = project_heads(&mut cx, &x, &w, heads, &parts).unwrap();
            heads.iter().map(|part| cx.read(part).unwrap()).collect::<Vec<_>>()
        };
        // The projection takes 57,600 bytes; sixteen rows of it 6,144, a head of keys 4,864.
        assert_eq!(project(Some(9_216)), project(None));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let x = cx.zeros("x", &[6, 24], ElementType::F32).unwrap();
        let rope = RopeTable::new(&mut cx, [1, 2, 3], 4).unwrap();
        assert_eq!(rope.tokens(), 6);
        split_heads(&mut cx, &x, 2, &[HeadsPart { rope: Some(&rope), ..Default::default() }; 3], 6).unwrap();
        let wrong = [
            (2, vec![HeadsPart::default(); 2]),
            (0, vec![HeadsPart::default()]),
            (2, vec![]),
            (1, vec![HeadsPart { rope: Some(&rope), ..Default::default() }]),
            (1, vec![HeadsPart { norm: Some((&x, 1e-6)), ..Default::default() }]),
        ];
        for (heads, parts) in wrong {
            assert!(
                matches!(split_heads(&mut cx, &x, heads, &parts, 6), Err(GpuError::Shape { .. })),
                "{heads} {parts:?}"
            );
        }
    }
}
