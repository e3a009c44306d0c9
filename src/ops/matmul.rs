//! Matrix products with everything that can be fused behind them.

use crate::gpu::{DType, Dispatch, GpuError, Kernel, Result, Stream, Tensor};

use super::Weight;

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
    pub fn available(gpu: &crate::gpu::Gpu) -> Vec<Self> {
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

    /// The variant that measured best on this kind of device: broadcasts where loads are dear, tiles elsewhere.
    fn preferred(gpu: &crate::gpu::Gpu) -> Self {
        let broadcast = Self::Subgroup { row_groups: 2, lane_columns: 2 };
        if gpu.caps().cpu && Self::available(gpu).contains(&broadcast) { broadcast } else { Self::Tile { rows: 4 } }
    }

    /// The kernel of a product with `w`, bias included.
    pub(super) fn kernel(self, w: &Weight, activation: Activation) -> Kernel {
        let kernel = match self {
            Self::Tile { rows } => Kernel::new("matmul_tile").set("TM", rows),
            Self::Subgroup { row_groups, lane_columns } => {
                Kernel::new("matmul_subgroup").set("ROW_GROUPS", row_groups).set("LANE_COLUMNS", lane_columns)
            }
            Self::Rows { rows, columns4 } => Kernel::new("matmul_rows").set("ROWS", rows).set("COLUMNS4", columns4),
        };
        kernel
            .flag(match w.matrix.dtype() {
                DType::F32 => "WEIGHT_F32",
                DType::F16 => "WEIGHT_F16",
                DType::BF16 => "WEIGHT_BF16",
            })
            .flag_if(w.bias.is_some(), "BIAS")
            .flag_if(activation == Activation::Gelu, "GELU")
            .flag_if(activation == Activation::Silu, "SILU")
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

/// The product `x w` with bias, activation and what follows. `x` is `[.., k]` f32; the result is `[.., n]` f32 (for the in-place
/// forms, the residual).
pub fn matmul(cx: &mut Stream, x: &Tensor, w: &Weight, activation: Activation, then: Then) -> Result<Tensor> {
    matmul_with(cx, Variant::preferred(cx.gpu()), x, w, activation, then)
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
    if x.columns() != w.k() || x.dtype() != DType::F32 {
        return Err(GpuError::shape("matmul", format!("{shape:?} times [{}, {}]", w.k(), w.n())));
    }
    *shape.last_mut().expect("a matrix has columns") = w.n();
    let out = match then {
        Then::Store | Then::Times(_) => cx.empty("product", &shape, DType::F32)?,
        Then::AddTo(residual) | Then::AddGated { residual, .. } => residual.clone(),
    };
    if out.shape() != shape {
        return Err(GpuError::shape("matmul", format!("residual {:?} for a product {shape:?}", out.shape())));
    }
    let mut kernel = variant.kernel(w, activation);
    let mut tensors = vec![(1, x), (2, &w.matrix), (3, &out)];
    tensors.extend(w.bias.as_ref().map(|bias| (4, bias)));
    let mut gate_row = 0;
    match then {
        Then::Store => {}
        Then::Times(other) => {
            kernel = kernel.flag("GATED_BY");
            tensors.push((6, other));
        }
        Then::AddTo(_) => kernel = kernel.flag("RESIDUAL"),
        Then::AddGated { gates, row, .. } => {
            kernel = kernel.flag("RESIDUAL").flag("GATE");
            tensors.push((5, gates));
            gate_row = row;
        }
    }
    let [m, k, n] = [x.rows(), w.k(), w.n()];
    let params =
        Params { m: m as u32, n4: n as u32 / 4, k4: k as u32 / 4, gate4: (gate_row * n / 4) as u32, scale: w.scale };
    let [tile_rows, tile_columns] = variant.tile();
    cx.dispatch(&Dispatch {
        kernel: &kernel,
        tensors: &tensors,
        params: bytemuck::bytes_of(&params),
        groups: [(n / 4).div_ceil(tile_columns) as u32, m.div_ceil(tile_rows) as u32, 1],
        flops: 2.0 * m as f64 * k as f64 * n as f64,
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::HostWeight;
    use crate::ops::testing::*;

    #[test]
    #[ignore]
    fn speed() {
        let gpu = crate::gpu::Gpu::open(&Default::default()).unwrap();
        let mut cx = stream(&gpu);
        for [m, k, n] in [[384, 1024, 1024], [80, 192, 768], [320, 192, 576]] {
            let (x, _) = random_tensor(&mut cx, 1, &[m, k]);
            let wv: Vec<f32> = random(2, k * n);
            let bf: Vec<half::bf16> = wv.iter().map(|v| half::bf16::from_f32(*v)).collect();
            let hw = HostWeight {
                bytes: bytemuck::cast_slice::<_, u8>(&bf).to_vec().into(),
                dtype: DType::BF16,
                scale: 1.0,
            };
            for (hw, name) in [(HostWeight::from_f32(&wv), "f32"), (hw, "bf16")] {
                let w = Weight::linear(&gpu, "w", &hw, [n, k], None).unwrap();
                for v in Variant::available(&gpu) {
                    matmul_with(&mut cx, v, &x, &w, Activation::None, Then::Store).unwrap();
                    cx.finish().unwrap();
                    let reps = (2e9 / (2.0 * (m * k * n) as f64)).ceil() as usize;
                    let t = std::time::Instant::now();
                    for _ in 0..reps {
                        matmul_with(&mut cx, v, &x, &w, Activation::None, Then::Store).unwrap();
                    }
                    cx.finish().unwrap();
                    println!(
                        "{m}x{k}x{n} {name} {v:?}: {:.1} GFLOP/s",
                        reps as f64 * 2.0 * (m * k * n) as f64 / t.elapsed().as_secs_f64() / 1e9
                    );
                }
            }
        }
    }
}
