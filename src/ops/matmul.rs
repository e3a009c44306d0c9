//! Matrix products with everything that can be fused behind them.

use std::ops::Range;

use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Kernel, Result, Stream, Tensor};

use super::Weight;
use super::split::ranges;
use super::tune::{self, Choice, Named, extent_class};

/// Activation applied to a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// None.
    #[default]
    None,
    /// GELU, tanh approximation.
    Gelu,
    /// SiLU.
    Silu,
}

/// What follows a product: `y = activation(x w + bias)`, then one of these.
#[derive(Clone, Copy, Debug, Default)]
pub enum Then<'a> {
    /// Nothing: a new tensor.
    #[default]
    Store,
    /// `y * other`, elementwise, a new tensor; `other` has the product's shape.
    Times(&'a Tensor),
    /// `residual += y`, in place.
    AddTo(&'a Tensor),
    /// `residual += gate * y`, in place; the gate is row `row` of an `[_, n]` matrix.
    AddGated {
        /// Added to in place.
        residual: &'a Tensor,
        /// Matrix whose rows are gates.
        gates: &'a Tensor,
        /// The row.
        row: usize,
    },
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    n4: u32,
    k4: u32,
    gate4: u32,
    scale: f32,
    after: u32,
}

/// Bits of `params.after`, as in `shaders/lib/product_store.wgsl`.
pub(super) mod after {
    pub const BIAS: u32 = 1;
    pub const GELU: u32 = 2;
    pub const SILU: u32 = 4;
    pub const GATED_BY: u32 = 8;
    pub const GATE: u32 = 16;
    pub const RESIDUAL: u32 = 32;
}

/// The bits of a weight's bias and an activation.
pub(super) fn after_bits(w: &Weight, activation: Activation) -> u32 {
    let bias = if w.bias.is_some() { after::BIAS } else { 0 };
    bias | match activation {
        Activation::None => 0,
        Activation::Gelu => after::GELU,
        Activation::Silu => after::SILU,
    }
}

/// How a product is computed. All variants give the same result up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Tiles in workgroup memory, `16 * rows` x 64 results a workgroup.
    Tile {
        /// Rows a thread.
        rows: u32,
    },
    /// One subgroup of 8 lanes, operands spread by broadcast.
    Subgroup {
        /// Groups of 8 rows.
        row_groups: u32,
        /// Groups of four columns a lane.
        lane_columns: u32,
    },
    /// One subgroup of 8 lanes, whole rows a lane: for few columns.
    Rows {
        /// Rows a lane.
        rows: u32,
        /// Groups of four columns.
        columns4: u32,
    },
}

impl Variant {
    /// Every variant that the device can run.
    pub fn available(gpu: &Gpu) -> Vec<Self> {
        let mut all = vec![Self::Tile { rows: 4 }, Self::Tile { rows: 8 }];
        if gpu.caps().subgroup_min.is_some_and(|size| size >= 8) {
            all.extend(
                [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)]
                    .map(|(row_groups, lane_columns)| Self::Subgroup { row_groups, lane_columns }),
            );
            all.extend([(8, 1), (4, 2), (4, 3), (4, 4)].map(|(rows, columns4)| Self::Rows { rows, columns4 }));
        }
        all
    }

    /// Those worth measuring on this kind of device, the likeliest first.
    pub(super) fn candidates(gpu: &Gpu) -> Vec<Self> {
        let [small, large] = [1, 2].map(|row_groups| Self::Subgroup { row_groups, lane_columns: 2 });
        tune::candidates(gpu, [large, small], [4, 8].map(|rows| Self::Tile { rows }), small)
    }

    /// The kernel of a product with weights of this type.
    pub(super) fn kernel(self, weights: ElementType) -> Kernel {
        let kernel = match self {
            Self::Tile { rows } => Kernel::new("matmul_tile").set("TM", rows),
            Self::Subgroup { row_groups, lane_columns } => {
                Kernel::new("matmul_subgroup").set("ROW_GROUPS", row_groups).set("LANE_COLUMNS", lane_columns)
            }
            Self::Rows { rows, columns4 } => Kernel::new("matmul_rows").set("ROWS", rows).set("COLUMNS4", columns4),
        };
        kernel.flag(match weights {
            ElementType::F32 => "WEIGHT_F32",
            ElementType::F16 => "WEIGHT_F16",
            ElementType::BF16 => "WEIGHT_BF16",
        })
    }

    /// Workgroups for a result of `m` rows and `n4` groups of four columns.
    pub(super) fn groups(self, m: usize, n4: usize) -> [u32; 3] {
        let [rows, columns4] = self.tile();
        let (along_rows, along_columns) = (m.div_ceil(rows) as u32, n4.div_ceil(columns4) as u32);
        match self {
            Self::Tile { .. } => [along_columns, along_rows, 1],
            Self::Subgroup { .. } | Self::Rows { .. } => [along_rows, along_columns, 1],
        }
    }

    /// Rows of a `[_, k] x [k, n]` product that one dispatch may make, and what their number is a multiple of, so that every part
    /// begins at a multiple of 256 bytes: bindings and the submit's budget limit them.
    fn most_rows(self, cx: &Stream, [k, n]: [usize; 2]) -> (usize, usize) {
        let step = self.tile()[0].max(16);
        let bindable = (cx.gpu().caps().max_binding / (4 * k.max(n)) as u64) as usize;
        let affordable = (cx.dispatch_budget() / (2.0 * k as f64 * n as f64)) as usize;
        (bindable.min(affordable).min(65_535 * self.tile()[0]).max(step), step)
    }

    /// Rows and groups of four columns that a workgroup makes.
    pub(super) fn tile(self) -> [usize; 2] {
        match self {
            Self::Tile { rows } => [16 * rows as usize, 16],
            Self::Subgroup { row_groups, lane_columns } => [8 * row_groups as usize, 8 * lane_columns as usize],
            Self::Rows { rows, columns4 } => [8 * rows as usize, columns4 as usize],
        }
    }
}

impl Named for Variant {
    fn name(self) -> String {
        self.to_string()
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tile { rows } => write!(f, "tile {rows}"),
            Self::Subgroup { row_groups, lane_columns } => write!(f, "subgroup {row_groups}x{lane_columns}"),
            Self::Rows { rows, columns4 } => write!(f, "rows {rows}x{columns4}"),
        }
    }
}

/// The product `x w` with bias, activation and what follows. `x` is `[.., k]` f32; the result is `[.., n]` f32 (for the in-place
/// forms, the residual).
pub fn matmul(cx: &mut Stream, x: &Tensor, w: &Weight, activation: Activation, then: Then) -> Result<Tensor> {
    /// Rows that variants are measured on, at most: enough to fill a GPU, few enough for a slow variant.
    const MEASURED: usize = 2048;
    let gpu = cx.gpu().clone();
    let (available, candidates) = (Variant::available(&gpu), Variant::candidates(&gpu));
    let sample = x.reshape(&[x.rows(), x.columns()]).slice(0, x.rows().min(MEASURED));
    let variant = product_choice(&available, &candidates, x.rows(), w)
        .decide(cx, |cx, variant| matmul_with(cx, variant, &sample, w, Activation::None, Then::Store).map(drop))?;
    matmul_with(cx, variant, x, w, activation, then)
}

/// What [`matmul`] chooses among for `m` rows.
pub(super) fn product_choice<'a>(
    available: &'a [Variant],
    candidates: &'a [Variant],
    m: usize,
    w: &Weight,
) -> Choice<'a, Variant> {
    let [rows, k, n] = [m, w.k(), w.n()].map(extent_class);
    Choice {
        class: format!("matmul {:?} {rows}x{k}x{n}", w.matrix.element_type()),
        available,
        candidates,
        flops: 2.0 * m as f64 * w.k() as f64 * w.n() as f64,
    }
}

/// [`matmul`] by a given variant.
pub fn matmul_with(
    cx: &mut Stream,
    variant: Variant,
    x: &Tensor,
    w: &Weight,
    activation: Activation,
    then: Then,
) -> Result<Tensor> {
    let mut shape = x.shape().to_vec();
    if x.columns() != w.k() || x.element_type() != ElementType::F32 {
        return Err(GpuError::shape("matmul", format!("{shape:?} times [{}, {}]", w.k(), w.n())));
    }
    *shape.last_mut().expect("a matrix has columns") = w.n();
    let out = match then {
        Then::Store | Then::Times(_) => cx.empty("product", &shape, ElementType::F32)?,
        Then::AddTo(residual) | Then::AddGated { residual, .. } => residual.clone(),
    };
    if out.shape() != shape {
        return Err(GpuError::shape("matmul", format!("residual {:?} for a product {shape:?}", out.shape())));
    }
    let [m, k, n] = [x.rows(), w.k(), w.n()];
    let part =
        |tensor: &Tensor, rows: &Range<usize>| tensor.reshape(&[m, tensor.len() / m]).slice(rows.start, rows.len());
    // What does not follow is not read: the weights stand in for it.
    let (mut gates, mut gate_row) = (&w.matrix, 0);
    let mut bits = after_bits(w, activation);
    match then {
        Then::Store => {}
        Then::Times(_) => bits |= after::GATED_BY,
        Then::AddTo(_) => bits |= after::RESIDUAL,
        Then::AddGated { gates: matrix, row, .. } => {
            bits |= after::RESIDUAL | after::GATE;
            (gates, gate_row) = (matrix, row);
        }
    }
    let kernel = variant.kernel(w.matrix.element_type());
    let (most, step) = variant.most_rows(cx, [k, n]);
    for rows in ranges(m, most, step) {
        let times = if let Then::Times(other) = then { part(other, &rows) } else { w.matrix.clone() };
        let params = Params {
            m: rows.len() as u32,
            n4: n as u32 / 4,
            k4: k as u32 / 4,
            gate4: (gate_row * n / 4) as u32,
            scale: w.scale,
            after: bits,
        };
        cx.dispatch(&Dispatch {
            kernel: &kernel,
            tensors: &[
                (1, &part(x, &rows)),
                (2, &w.matrix),
                (3, &part(&out, &rows)),
                (4, w.bias.as_ref().unwrap_or(&w.matrix)),
                (5, gates),
                (6, &times),
            ],
            params: bytemuck::bytes_of(&params),
            groups: variant.groups(rows.len(), n / 4),
            flops: 2.0 * rows.len() as f64 * k as f64 * n as f64,
        })?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{GpuOptions, StreamOptions};
    use crate::ops::HostWeight;
    use crate::ops::testing::*;

    /// The CPU twin: `activation(x w scale + bias)`, in f64.
    fn product_twin(
        x: &[f32],
        w: &[f32],
        bias: Option<&[f32]>,
        n: usize,
        scale: f64,
        activation: Activation,
    ) -> Vec<f64> {
        let k = w.len() / n;
        let mut out = Vec::new();
        for row in x.chunks(k) {
            for column in 0..n {
                let sum: f64 = (0..k).map(|i| f64::from(row[i]) * f64::from(w[column * k + i])).sum();
                let y = sum * scale + bias.map_or(0.0, |bias| f64::from(bias[column]));
                out.push(match activation {
                    Activation::None => y,
                    Activation::Gelu => {
                        0.5 * y * (1.0 + (0.797_884_560_802_865_4 * (y + 0.044_715 * y.powi(3))).tanh())
                    }
                    Activation::Silu => y / (1.0 + (-y).exp()),
                });
            }
        }
        out
    }

    /// Every activation and everything that may follow, with and without bias; m and n are no multiples of any tile.
    fn check(cx: &mut Stream, variant: Variant, element_type: ElementType) {
        let [m, k, n] = [37, 20, 76];
        let gpu = cx.gpu().clone();
        let (x, values) = random_tensor(cx, 1, &[m, k]);
        let weights: Vec<f32> = random(2, n * k).iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect();
        let bytes: Vec<u8> = match element_type {
            ElementType::F32 => bytemuck::cast_slice(&weights).to_vec(),
            ElementType::F16 => weights.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            ElementType::BF16 => weights.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        };
        let host = HostWeight { bytes: bytes.into(), element_type, scale: 0.5 };
        let bias_values = random(3, n);
        let (factors, f) = random_tensor(cx, 4, &[m, n]);
        let (gates, g) = random_tensor(cx, 5, &[3, n]);
        for bias in [None, Some(bias_values.as_slice())] {
            let w = Weight::linear(&gpu, "w", &host, [n, k], bias).unwrap();
            for activation in [Activation::None, Activation::Gelu, Activation::Silu] {
                let want = product_twin(&values, &weights, bias, n, 0.5, activation);
                let (residual, r) = random_tensor(cx, 6, &[m, n]);
                let mut compare = |then: Then, what: &str, want: &mut dyn Iterator<Item = f64>| {
                    let got = matmul_with(cx, variant, &x, &w, activation, then).unwrap();
                    let want: Vec<f32> = want.map(|v| v as f32).collect();
                    let what = format!("{variant} {element_type:?} {activation:?} {what}, bias {}", bias.is_some());
                    assert_close(&cx.read(&got).unwrap(), &want, 2e-6, &what);
                };
                compare(Then::Store, "stored", &mut want.iter().copied());
                let times = &mut want.iter().zip(&f).map(|(y, f)| y * f64::from(*f));
                compare(Then::Times(&factors), "times", times);
                let sums = &mut want.iter().zip(&r).map(|(y, r)| y + f64::from(*r));
                compare(Then::AddTo(&residual), "added", sums);
            }
            let want = product_twin(&values, &weights, bias, n, 0.5, Activation::None);
            let (residual, r) = random_tensor(cx, 7, &[m, n]);
            let then = Then::AddGated { residual: &residual, gates: &gates, row: 2 };
            let got = matmul_with(cx, variant, &x, &w, Activation::None, then).unwrap();
            let gate = |i: usize| f64::from(g[2 * n + i % n]);
            let sums = want.iter().zip(&r).enumerate().map(|(i, (y, r))| (gate(i) * y + f64::from(*r)) as f32);
            assert_close(&cx.read(&got).unwrap(), &sums.collect::<Vec<_>>(), 2e-6, &format!("{variant} gated"));
        }
    }

    #[test]
    fn whatever_follows_agrees_with_the_twin() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        // The tiles compile slowly on CPU drivers: one of them, below.
        for variant in Variant::available(&gpu).into_iter().filter(|variant| !matches!(variant, Variant::Tile { .. })) {
            check(&mut cx, variant, ElementType::BF16);
        }
        check(&mut cx, Variant::candidates(&gpu)[0], ElementType::F16);
        check(&mut cx, Variant::candidates(&gpu)[0], ElementType::F32);
    }

    #[test]
    fn whatever_follows_a_tile_agrees_with_the_twin() {
        let (gpu, _turn) = base_gpu();
        check(&mut stream(&gpu), Variant::Tile { rows: 4 }, ElementType::F32);
    }

    /// Products that neither fit a binding nor a submit are made in parts, with the same bits.
    #[test]
    fn rows_are_split_at_the_limits() {
        let (_, _turn) = gpu();
        let [m, k, n] = [150, 64, 36];
        let product = |max_binding, budget| {
            let gpu = narrow_gpu(max_binding);
            let mut cx = Stream::new(&gpu, StreamOptions { budget, ..Default::default() });
            let (x, _) = random_tensor(&mut cx, 1, &[3, m / 3, k]);
            let host = HostWeight::from_f32(&random(2, n * k));
            let w = Weight::linear(&gpu, "w", &host, [n, k], Some(&random(3, n))).unwrap();
            let [factors, residual] = [4, 5].map(|seed| random_tensor(&mut cx, seed, &[3, m / 3, n]).0);
            let (gates, _) = random_tensor(&mut cx, 6, &[3, n]);
            let gated = Then::AddGated { residual: &residual, gates: &gates, row: 2 };
            [Then::Store, Then::Times(&factors), Then::AddTo(&residual), gated].map(|then| {
                let variant = Variant::candidates(&gpu)[0];
                let product = matmul_with(&mut cx, variant, &x, &w, Activation::None, then).unwrap();
                cx.read(&product).unwrap()
            })
        };
        let whole = product(None, StreamOptions::default().budget);
        // The weights are 9,216 bytes, 32 rows of x 8,192.
        assert_eq!(product(Some(9_216), StreamOptions::default().budget), whole, "bindings");
        assert_eq!(product(None, std::time::Duration::ZERO), whole, "submits");
    }

    /// Choices made by measuring give what the rule gives, and the same one in the next process.
    #[test]
    fn tuned_products_are_right_and_stay_the_same() {
        let (_, _turn) = gpu();
        let folder = tempfile::tempdir().unwrap();
        let choices = Some(folder.path().join("kernels.json"));
        let mut results = Vec::new();
        for choices in [None, choices.clone(), choices] {
            let gpu = Gpu::open(&GpuOptions { choices, checked_shaders: true, ..Default::default() }).unwrap();
            let mut cx = stream(&gpu);
            let (x, _) = random_tensor(&mut cx, 1, &[96, 256]);
            let w = Weight::linear(&gpu, "w", &HostWeight::from_f32(&random(2, 256 * 256)), [256, 256], None).unwrap();
            let got = matmul(&mut cx, &x, &w, Activation::None, Then::Store).unwrap();
            results.push(cx.read(&got).unwrap());
        }
        assert!(folder.path().join("kernels.json").is_file(), "a choice was made");
        assert_close(&results[1], &results[0], 1e-6, "tuned against the rule");
        assert_eq!(results[1], results[2], "two processes");
    }
}
