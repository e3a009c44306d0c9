//! Matrix products, with the operations that can be fused behind them.

use std::ops::Range;

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Kernel, Result, Stream, Tensor};
use crate::weights::DType;

use super::packed::is_packed;
use super::selftest;
use super::split::ranges;
use super::tune::{self, Choice, Named, extent_class};
use super::weight::{Columns, Weight};

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

/// The operation after a product `y = activation(x w + bias)`.
#[derive(Clone, Copy, Debug, Default)]
pub enum Then<'a> {
    /// Nothing: a new tensor.
    #[default]
    Store,
    /// `y * other`, elementwise: a new tensor. `other` has the product's shape.
    Times(&'a Tensor),
    /// `residual += y`, in place.
    AddTo(&'a Tensor),
    /// `residual += gate * y`, in place. The gate is row `row` of an `[_, n]` matrix.
    AddGated {
        /// The tensor that is added to.
        residual: &'a Tensor,
        /// The matrix whose rows are gates.
        gates: &'a Tensor,
        /// The row.
        row: usize,
    },
}

arguments! {
    /// Arguments of a matrix product, as in `shaders/lib/product_store.wgsl`.
    Product => ["matmul_tile", "matmul_subgroup", "matmul_rows"] without "CONV";
    params ProductParams {
        m: u32,
        n4: u32,
        k4: u32,
        gate4: u32,
        scale: f32,
        after: u32,
        group4: u32,
        y_n4: u32,
        y_column4: u32,
    }
    tensors {
        x @ 1: Read F32,
        weights @ 2: Read Weight,
        y_out @ 3: ReadWrite F32,
    }
    replaceable {
        bias @ 4: Read F32 else weights,
        gate @ 5: Read F32 else weights,
        gated_by @ 6: Read F32 else weights,
    }
    constants {
        BIAS = after::BIAS,
        GELU = after::GELU,
        SILU = after::SILU,
        GATED_BY = after::GATED_BY,
        GATE = after::GATE,
        RESIDUAL = after::RESIDUAL,
    }
}

/// Bits of the parameter `after`, as in `shaders/lib/product_store.wgsl`.
pub(super) mod after {
    pub const BIAS: u32 = 1;
    pub const GELU: u32 = 2;
    pub const SILU: u32 = 4;
    pub const GATED_BY: u32 = 8;
    pub const GATE: u32 = 16;
    pub const RESIDUAL: u32 = 32;
}

/// The bits for the bias of a weight and for an activation.
pub(super) fn after_bits(w: &Weight, activation: Activation) -> u32 {
    let bias = if w.bias.is_some() { after::BIAS } else { 0 };
    bias | match activation {
        Activation::None => 0,
        Activation::Gelu => after::GELU,
        Activation::Silu => after::SILU,
    }
}

/// A way to compute a product. All variants give the same result up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Tiles in workgroup memory. A workgroup computes `16 * rows` x 64 results.
    Tile {
        /// Rows of a thread.
        rows: u32,
    },
    /// One subgroup of 8 lanes. The lanes share operands by broadcast.
    Subgroup {
        /// Groups of 8 rows.
        row_groups: u32,
        /// Groups of four columns of a lane.
        lane_columns: u32,
    },
    /// One subgroup of 8 lanes. A lane computes whole rows: for few columns.
    Rows {
        /// Rows of a lane.
        rows: u32,
        /// Groups of four columns.
        columns4: u32,
    },
}

impl Variant {
    /// Every variant that the device can run.
    pub fn available(gpu: &Gpu) -> Vec<Self> {
        let mut all = Vec::new();
        if gpu.caps().subgroup_min.is_some_and(|size| size >= 8) {
            all.extend(
                [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)]
                    .map(|(row_groups, lane_columns)| Self::Subgroup { row_groups, lane_columns }),
            );
            all.extend([(8, 1), (4, 2), (4, 3), (4, 4)].map(|(rows, columns4)| Self::Rows { rows, columns4 }));
        }
        all.extend([4, 8].map(|rows| Self::Tile { rows }));
        all
    }

    /// The variants for weights of a type that the device can run. Of packed types, only those that
    /// are worth measuring on some kind of device: each compiles for every type.
    pub(super) fn available_for(gpu: &Gpu, weights: DType) -> Vec<Self> {
        let mut all = Self::available(gpu);
        let ships = |variant: &Self| matches!(variant, Self::Tile { .. } | Self::Subgroup { lane_columns: 2, .. });
        all.retain(|variant| !is_packed(weights) || ships(variant));
        all
    }

    /// The variants worth measuring on this kind of device, the likeliest first.
    pub(super) fn candidates(gpu: &Gpu) -> Vec<Self> {
        let [small, large] = [1, 2].map(|row_groups| Self::Subgroup { row_groups, lane_columns: 2 });
        tune::candidates(gpu, [large, small], [4, 8].map(|rows| Self::Tile { rows }), small)
    }

    /// The kernel of a product with weights of this type. `shaders/lib/weight_TYPE.wgsl` reads
    /// them.
    pub(super) fn kernel(self, weights: DType) -> Kernel {
        let kernel = match self {
            Self::Tile { rows } => Kernel::new("matmul_tile").set("TM", rows),
            Self::Subgroup { row_groups, lane_columns } => {
                Kernel::new("matmul_subgroup").set("ROW_GROUPS", row_groups).set("LANE_COLUMNS", lane_columns)
            }
            Self::Rows { rows, columns4 } => Kernel::new("matmul_rows").set("ROWS", rows).set("COLUMNS4", columns4),
        };
        kernel.set("FORMAT", weights.name().to_lowercase())
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

    /// Most rows of a `[_, k] x [k, n]` product that one dispatch computes. Bindings of rows of
    /// `widest` elements and the submit's budget limit them.
    fn most_rows(self, cx: &Stream, [k, n]: [usize; 2], widest: usize) -> usize {
        let bindable = (cx.gpu().caps().max_binding / (4 * widest) as u64) as usize;
        let affordable = (cx.dispatch_budget() / (2.0 * k as f64 * n as f64)) as usize;
        bindable.min(affordable).min(65_535 * self.tile()[0]).max(self.row_step())
    }

    /// Parts of a product have a multiple of this many rows, so that every part begins at a
    /// multiple of 256 bytes.
    fn row_step(self) -> usize {
        self.tile()[0].max(16)
    }

    /// Rows and groups of four columns that a workgroup computes.
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

/// The product `x w` with bias, activation and the operation after it. `x` is `[.., k]` f32. The
/// result is `[.., n]` f32; the in-place forms return the residual.
///
/// # Errors
/// Shapes do not fit, the weights exceed the largest binding, or an error of the GPU.
pub fn matmul(cx: &mut Stream, x: &Tensor, w: &Weight, activation: Activation, then: Then) -> Result<Tensor> {
    /// Most rows that variants are measured on: enough to fill a GPU, few enough for a slow
    /// variant.
    const MEASURED: usize = 2048;
    let gpu = cx.gpu().clone();
    let candidates = Variant::candidates(&gpu);
    let sample = x.reshape(&[x.rows(), x.columns()]).slice(0, x.rows().min(MEASURED));
    compute(cx, x, w, activation, then, &|cx, part| {
        let run = |cx: &mut Stream, variant| {
            let alone = Weight { parts: vec![part.clone()], bias: None };
            matmul_with(cx, variant, &sample, &alone, Activation::None, Then::Store).map(drop)
        };
        let available = Variant::available_for(&gpu, part.dtype);
        product_choice(&available, &candidates, x.rows(), part).decide(cx, run)
    })
}

fn product_test<'a>(weights: DType) -> tune::Test<'a, Variant> {
    Box::new(move |cx, variant| selftest::product(cx, variant, weights))
}

/// A variant that is right on this device, for weights of a type.
///
/// # Errors
/// There is none, or an error of the GPU.
pub(super) fn passing(cx: &mut Stream, weights: DType) -> Result<Variant> {
    let (available, candidates) = (Variant::available_for(cx.gpu(), weights), Variant::candidates(cx.gpu()));
    Choice {
        class: String::new(),
        kernel: format!("matmul {weights}"),
        test: product_test(weights),
        available: &available,
        candidates: &candidates,
        flops: 0.0,
    }
    .first_passing(cx)
}

/// The choice among variants in [`matmul`], for `m` rows.
pub(super) fn product_choice<'a>(
    available: &'a [Variant],
    candidates: &'a [Variant],
    m: usize,
    part: &Columns,
) -> Choice<'a, Variant> {
    let [rows, k, n] = [m, part.extents[0], part.extents[1]].map(extent_class);
    Choice {
        class: format!("matmul {} {rows}x{k}x{n}", part.dtype),
        kernel: format!("matmul {}", part.dtype),
        test: product_test(part.dtype),
        available,
        candidates,
        flops: 2.0 * m as f64 * part.extents[0] as f64 * part.extents[1] as f64,
    }
}

/// [`matmul`] by a given variant.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_with(
    cx: &mut Stream,
    variant: Variant,
    x: &Tensor,
    w: &Weight,
    activation: Activation,
    then: Then,
) -> Result<Tensor> {
    compute(cx, x, w, activation, then, &|_, _| Ok(variant))
}

/// [`matmul`] with a variant for each part of the weight.
fn compute(
    cx: &mut Stream,
    x: &Tensor,
    w: &Weight,
    activation: Activation,
    then: Then,
    variant: &dyn Fn(&mut Stream, &Columns) -> Result<Variant>,
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
    let mut params = ProductParams { y_n4: w.n() as u32 / 4, after: after_bits(w, activation), ..Default::default() };
    let (mut gate, mut factors) = (None, None);
    match then {
        Then::Store => {}
        Then::Times(other) => {
            params.after |= after::GATED_BY;
            factors = Some(other);
        }
        Then::AddTo(_) => params.after |= after::RESIDUAL,
        Then::AddGated { gates, row, .. } => {
            params.after |= after::RESIDUAL | after::GATE;
            params.gate4 = (row * w.n() / 4) as u32;
            gate = Some(gates);
        }
    }
    for part in &w.parts {
        let call = Call { params, x, part, out: &out, bias: w.bias.as_ref(), gate, factors };
        let variant = variant(cx, part)?;
        call.run(cx, variant)?;
        params.y_column4 += part.extents[1] as u32 / 4;
    }
    Ok(out)
}

/// The product with some columns of a weight.
struct Call<'a> {
    params: ProductParams,
    x: &'a Tensor,
    part: &'a Columns,
    /// All columns of the result.
    out: &'a Tensor,
    bias: Option<&'a Tensor>,
    gate: Option<&'a Tensor>,
    /// Of the result's shape.
    factors: Option<&'a Tensor>,
}

impl Call<'_> {
    fn run(&self, cx: &mut Stream, variant: Variant) -> Result<()> {
        let (m, [k, n]) = (self.x.rows(), self.part.extents);
        let widest = self.out.columns().max(k);
        let rows_of =
            |tensor: &Tensor, rows: &Range<usize>| tensor.reshape(&[m, tensor.len() / m]).slice(rows.start, rows.len());
        let kernel = variant.kernel(self.part.dtype);
        for rows in ranges(m, variant.most_rows(cx, [k, n], widest), variant.row_step()) {
            let factors = self.factors.map(|other| rows_of(other, &rows));
            let params = ProductParams {
                m: rows.len() as u32,
                n4: n as u32 / 4,
                k4: k as u32 / 4,
                scale: self.part.scale,
                group4: self.part.group4,
                ..self.params
            };
            cx.dispatch(&Dispatch {
                kernel: &kernel,
                arguments: &Product {
                    params,
                    x: &rows_of(self.x, &rows),
                    weights: &self.part.matrix,
                    y_out: &rows_of(self.out, &rows),
                    bias: self.bias,
                    gate: self.gate,
                    gated_by: factors.as_ref(),
                },
                groups: variant.groups(rows.len(), n / 4),
                flops: 2.0 * rows.len() as f64 * k as f64 * n as f64,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
