//! From projections to the operands of [`attention`](super::attention()): norm across heads, rotary
//! positions, split by heads.

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::matmul::{Activation, Then, matmul};
use super::norm::{check_vector, inverse_rms};
use super::split::{fitting, ranges, row_parts, window};
use super::weight::Weight;

/// Rotations of rotary position embedding (Su et al. 2021) over a grid of tokens, frames slowest
/// and columns fastest.
///
/// Every pair of elements (2i, 2i + 1) of a head belongs to one axis. Frames come first, then rows,
/// then columns. Rows and columns get a third of the pairs each, rounded down, and frames get the
/// rest. Pair k of an axis with p pairs turns by position * 10000^(-k / p), as in Wan's reference
/// implementation.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// `[tokens, head_dim]`: the cosine and the sine of every pair, one pair after another.
    rotations: Tensor,
    /// Frames, rows and columns of tokens.
    grid: [usize; 3],
}

impl RopeTable {
    /// The table of a grid of [frames, rows, columns] tokens.
    ///
    /// # Errors
    /// `head_dim` is no multiple of 4, or an error of the GPU.
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

/// Cosine and sine of every pair of every token. Angles are f64, because f32 would lose digits at
/// large positions.
fn rotations([frames, rows, columns]: [usize; 3], head_dim: usize) -> Vec<f32> {
    let third = head_dim / 2 / 3;
    let pairs = [head_dim / 2 - 2 * third, third, third];
    // The rotations of an axis: position 0, then position 1 ...
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

/// RMSNorm over all heads together.
#[derive(Clone, Copy, Debug)]
pub struct HeadsNorm<'a> {
    /// `[heads * d]`.
    pub weight: &'a Tensor,
    /// Added to the mean of squares.
    pub epsilon: f32,
}

/// The treatment of one column block of a projection.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadsPart<'a> {
    /// A norm of the block's rows, before anything else.
    pub norm: Option<HeadsNorm<'a>>,
    /// Rotations of the block's rows.
    pub rope: Option<&'a RopeTable>,
    /// The result is `[heads, d, n]`, as attention reads keys, with n padded by zeros to a multiple
    /// of 4. If false it is `[heads, n, d]`.
    pub transposed: bool,
}

arguments! {
    /// Arguments of `split_heads.wgsl`.
    SplitHeads => ["split_heads"];
    params SplitHeadsParams {
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
    tensors {
        x @ 1: Read F32,
        output @ 2: ReadWrite F32,
    }
    flagged {
        factors @ 3: Read F32 if "NORM",
        weight @ 4: Read F32 if "NORM",
        rotations @ 5: Read F32 if "ROPE",
    }
}

/// Projects `x` by `w` to `[n, parts * heads * d]`, and splits the result by column blocks and by
/// heads: one tensor for each part. The projection is computed in parts of its rows, because at
/// video sizes the whole would be the largest tensor of all.
///
/// # Errors
/// d is no multiple of 4, weights or rotations do not fit, or an error of the GPU.
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

/// A projection that is being split into heads.
struct HeadsSplit<'a> {
    parts: &'a [HeadsPart<'a>],
    /// Rows of the whole projection, heads of a part, columns of a head.
    extents: [usize; 3],
    outputs: Vec<Tensor>,
}

/// Some rows of a projection.
#[derive(Clone, Copy)]
struct ProjectedRows<'a> {
    /// The rows, `[_, parts * heads * d]`.
    x: &'a Tensor,
    /// Index of the first one in the whole projection, a multiple of 4.
    first: usize,
}

/// The norm's factors of some rows. The factor of a row is the element `first + row * stride`.
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

    /// Splits the rows of the projection from `first` (a multiple of 4) on.
    fn rows(&self, cx: &mut Stream, x: &Tensor, first: usize) -> Result<()> {
        let factors = self.factors(cx, x)?;
        for (index, factors) in factors.iter().enumerate() {
            self.split(cx, index, ProjectedRows { x, first }, factors.as_ref())?;
        }
        Ok(())
    }

    /// The factors of every part. One dispatch makes those of all parts if several are normalised.
    fn factors(&self, cx: &mut Stream, x: &Tensor) -> Result<Vec<Option<Factors>>> {
        let ([_, heads, d], count) = (self.extents, self.parts.len());
        let epsilons: Vec<f32> = self.parts.iter().filter_map(|part| Some(part.norm?.epsilon)).collect();
        let together = match epsilons[..] {
            [first, _, ..] if epsilons.iter().all(|epsilon| *epsilon == first) => {
                let blocks = x.reshape(&[x.rows() * count, heads * d]);
                Some(inverse_rms(cx, &blocks, 0..heads * d, first)?)
            }
            _ => None,
        };
        let of_part = |(index, part): (usize, &HeadsPart)| {
            let Some(HeadsNorm { epsilon, .. }) = part.norm else { return Ok(None) };
            if let Some(values) = &together {
                return Ok(Some(Factors { values: values.clone(), first: index, stride: count }));
            }
            let values = inverse_rms(cx, x, index * heads * d..(index + 1) * heads * d, epsilon)?;
            Ok(Some(Factors { values, first: 0, stride: 1 }))
        };
        self.parts.iter().enumerate().map(of_part).collect()
    }

    /// Splits the column block of a part.
    fn split(&self, cx: &mut Stream, index: usize, projected: ProjectedRows, factors: Option<&Factors>) -> Result<()> {
        /// Cost of an element, in multiply-adds of a matrix product: memory limits the speed.
        const COST: f64 = 32.0;
        let ([n, heads, d], part, out) = (self.extents, &self.parts[index], &self.outputs[index]);
        let (row, head_elements) = (projected.x.columns(), out.len() / heads);
        let kernel = part.kernel();
        let max_binding = cx.gpu().caps().max_binding;
        let affordable = (cx.dispatch_budget() / (COST * (heads * d) as f64)) as usize;
        let most_rows = fitting(max_binding, 4 * row).min(affordable).max(4);
        for rows in ranges(projected.x.rows(), most_rows, 4) {
            let row_in_all = projected.first + rows.start;
            for some in ranges(heads, fitting(max_binding, 4 * head_elements), 1) {
                let (x, x4) = window(projected.x, rows.start * row, rows.len() * row);
                let (output, output4) = window(out, some.start * head_elements, some.len() * head_elements);
                let rope = part.rope.map(|rope| window(&rope.rotations, row_in_all * d, rows.len() * d));
                let row_groups = rows.len().div_ceil(4);
                let params = SplitHeadsParams {
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
                    arguments: &SplitHeads {
                        params,
                        x: &x,
                        output: &output,
                        factors: factors.map(|factors| &factors.values),
                        weight: part.norm.map(|norm| norm.weight),
                        rotations: rope.as_ref().map(|(rotations, _)| rotations),
                    },
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

    /// Checks that weights and rotations fit `n` rows of `heads` heads of `d` columns.
    fn check(&self, [n, heads, d]: [usize; 3]) -> Result<()> {
        if let Some(rope) = self.rope.filter(|rope| rope.rotations.shape() != [n, d]) {
            let message = format!("rotations {:?} for {n} rows of head dimension {d}", rope.rotations.shape());
            return Err(GpuError::shape("split_heads", message));
        }
        self.norm.map_or(Ok(()), |norm| check_vector("split_heads", norm.weight, heads * d))
    }
}

#[cfg(test)]
mod tests;
