//! From projections to the layouts of [`attention`](super::attention): norm across heads, rotary positions, split by heads.

use crate::gpu::{DType, Dispatch, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::norm::{check_vector, inverse_rms};
use super::split::{fitting, ranges, window};

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
}

/// Splits a projection `[n, parts * heads * d]` f32 into its column blocks, and these by heads: one tensor a part. Fails unless d
/// is a multiple of 4 and weights and rotations fit.
pub fn split_heads(cx: &mut Stream, x: &Tensor, heads: usize, parts: &[HeadsPart]) -> Result<Vec<Tensor>> {
    let d = x.columns() / (parts.len() * heads).max(1);
    if x.is_empty()
        || d == 0
        || !d.is_multiple_of(4)
        || d * heads * parts.len() != x.columns()
        || x.dtype() != DType::F32
    {
        let message = format!("{:?} into {} parts of {heads} heads", x.shape(), parts.len());
        return Err(GpuError::shape("split_heads", message));
    }
    parts.iter().enumerate().map(|(i, part)| part.split(cx, x, i * heads * d, [heads, d])).collect()
}

impl HeadsPart<'_> {
    /// Splits the block of x from column `first`.
    fn split(&self, cx: &mut Stream, x: &Tensor, first: usize, [heads, d]: [usize; 2]) -> Result<Tensor> {
        /// What an element costs, in multiply-adds of a matrix product: it is memory that counts.
        const COST: f64 = 32.0;
        let (n, row) = (x.rows(), x.columns());
        let n4 = n.next_multiple_of(4);
        let shape = if self.transposed { [heads, d, n4] } else { [heads, n, d] };
        let out = cx.empty("heads", &shape, DType::F32)?;
        let head_elements = out.len() / heads;
        let factors = self.factors(cx, x, [first, heads * d])?;
        if let Some(rope) = self.rope.filter(|rope| rope.rotations.shape() != [n, d]) {
            let message = format!("rotations {:?} for {n} rows of head dimension {d}", rope.rotations.shape());
            return Err(GpuError::shape("split_heads", message));
        }
        let kernel = Kernel::new("split_heads")
            .flag_if(self.norm.is_some(), "NORM")
            .flag_if(self.rope.is_some(), "ROPE")
            .flag_if(self.transposed, "TRANSPOSED");
        let max_binding = cx.gpu().caps().max_binding;
        let affordable = (cx.dispatch_budget() / (COST * (heads * d) as f64)) as usize;
        let most_rows = fitting(max_binding, 4 * row).min(affordable).max(4);
        for rows in ranges(n, most_rows, 4) {
            for some in ranges(heads, fitting(max_binding, 4 * head_elements), 1) {
                let (x, x4) = window(x, rows.start * row, rows.len() * row);
                let (output, output4) = window(&out, some.start * head_elements, some.len() * head_elements);
                let rope = self.rope.map(|rope| window(&rope.rotations, rows.start * d, rows.len() * d));
                let mut tensors = vec![(1, &x), (2, &output)];
                if let (Some(factors), Some((weight, _))) = (&factors, self.norm) {
                    tensors.extend([(3, factors), (4, weight)]);
                }
                tensors.extend(rope.as_ref().map(|(rotations, _)| (5, rotations)));
                let row_groups = rows.len().div_ceil(4);
                let params = Params {
                    n: n as u32,
                    n4: (n4 / 4) as u32,
                    first_row: rows.start as u32,
                    row_groups: row_groups as u32,
                    first_head: some.start as u32,
                    heads: some.len() as u32,
                    d4: (d / 4) as u32,
                    x4: x4 + (first / 4) as u32,
                    x_row4: (row / 4) as u32,
                    rope4: rope.as_ref().map_or(0, |(_, start)| *start),
                    output4,
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
        Ok(out)
    }

    /// The norm's factor of every row.
    fn factors(&self, cx: &mut Stream, x: &Tensor, columns: [usize; 2]) -> Result<Option<Tensor>> {
        let Some((weight, epsilon)) = self.norm else {
            return Ok(None);
        };
        check_vector("split_heads", weight, columns[1])?;
        inverse_rms(cx, x, columns, epsilon).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, GpuOptions, StreamOptions};
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
        for (i, (got, part)) in split_heads(cx, &x, heads, &parts).unwrap().iter().zip(parts).enumerate() {
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
        let options =
            GpuOptions { poison: true, checked_shaders: true, max_binding: Some(6_100), ..Default::default() };
        let gpu = Gpu::open(&options).unwrap();
        for budget in [std::time::Duration::ZERO, StreamOptions::default().budget] {
            check(&mut Stream::new(&gpu, StreamOptions { budget, ..Default::default() }), [1, 5, 5], 3, 40);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let x = cx.zeros("x", &[6, 24], DType::F32).unwrap();
        let rope = RopeTable::new(&mut cx, [1, 2, 3], 4).unwrap();
        assert_eq!(rope.tokens(), 6);
        split_heads(&mut cx, &x, 2, &[HeadsPart { rope: Some(&rope), ..Default::default() }; 3]).unwrap();
        let wrong = [
            (2, vec![HeadsPart::default(); 2]),
            (0, vec![HeadsPart::default()]),
            (2, vec![]),
            (1, vec![HeadsPart { rope: Some(&rope), ..Default::default() }]),
            (1, vec![HeadsPart { norm: Some((&x, 1e-6)), ..Default::default() }]),
        ];
        for (heads, parts) in wrong {
            assert!(
                matches!(split_heads(&mut cx, &x, heads, &parts), Err(GpuError::Shape { .. })),
                "{heads} {parts:?}"
            );
        }
    }
}
