//! Normalisation of rows, with f32 statistics over all columns.

use std::ops::Range;

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::{fitting, ranges, window};

/// The operation after a LayerNorm.
#[derive(Clone, Copy, Debug, Default)]
pub enum LayerNormThen<'a> {
    /// Nothing.
    #[default]
    Store,
    /// `y * weight + bias`, both `[columns]`.
    Affine {
        /// Factors.
        weight: &'a Tensor,
        /// Summands.
        bias: &'a Tensor,
    },
    /// `y * (1 + scale) + shift`, both rows of one `[_, columns]` matrix (adaptive layer norm,
    /// Peebles and Xie 2023).
    Modulate {
        /// The matrix.
        rows: &'a Tensor,
        /// Row of the scale.
        scale: usize,
        /// Row of the shift.
        shift: usize,
    },
}

arguments! {
    /// Arguments of `norm.wgsl`.
    Norm => ["norm"];
    params NormParams {
        rows: u32,
        row4: u32,
        n4: u32,
        x4: u32,
        output4: u32,
        scale4: u32,
        shift4: u32,
        epsilon: f32,
    }
    tensors {
        x @ 1: Read F32,
        output @ 2: ReadWrite F32,
    }
    flagged {
        weight @ 3: Read F32 if "WEIGHT",
        shift @ 4: Read F32 if "SHIFT",
        modulation @ 5: Read F32 if "MODULATED",
    }
}

/// LayerNorm of every row of x (biased variance), and the operation after it. The result is a new
/// tensor of x's shape.
///
/// # Errors
/// Rows whose length is no multiple of 4, vectors that do not fit them, or an error of the GPU.
pub fn layer_norm(cx: &mut Stream, x: &Tensor, epsilon: f32, then: LayerNormThen) -> Result<Tensor> {
    let n = x.columns();
    let mut call = Call::new(cx.gpu(), x, epsilon)?;
    match then {
        LayerNormThen::Store => {}
        LayerNormThen::Affine { weight, bias } => {
            check_vector("layer_norm", weight, n)?;
            check_vector("layer_norm", bias, n)?;
            call.kernel = call.kernel.flag("WEIGHT").flag("SHIFT");
            (call.weight, call.shift) = (Some(weight), Some(bias));
        }
        LayerNormThen::Modulate { rows, scale, shift } => {
            if rows.columns() != n || rows.rows() <= scale.max(shift) || rows.element_type() != ElementType::F32 {
                let message = format!("rows {scale} and {shift} of {:?} for {n} columns", rows.shape());
                return Err(GpuError::shape("layer_norm", message));
            }
            call.kernel = call.kernel.flag("MODULATED");
            call.modulation = Some(rows);
            (call.params.scale4, call.params.shift4) = ((scale * n / 4) as u32, (shift * n / 4) as u32);
        }
    }
    call.run_into_rows(cx)
}

/// RMSNorm of every row of x (Zhang and Sennrich 2019): `x * rsqrt(mean(x^2) + epsilon) * weight`,
/// with a weight `[columns]`. The result is a new tensor of x's shape.
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm(cx: &mut Stream, x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    check_vector("rms_norm", weight, x.columns())?;
    let mut call = Call::new(cx.gpu(), x, epsilon)?;
    call.kernel = call.kernel.flag("RMS").flag("WEIGHT");
    call.weight = Some(weight);
    call.run_into_rows(cx)
}

/// `rsqrt(mean(x^2) + epsilon)` over some `columns` of every row of x, as `[1, rows]`. The rows are
/// padded to a multiple of 4 with undefined values.
///
/// # Errors
/// As [`layer_norm`].
pub fn inverse_rms(cx: &mut Stream, x: &Tensor, columns: Range<usize>, epsilon: f32) -> Result<Tensor> {
    let out = cx.empty("inverse rms", &[1, x.rows().next_multiple_of(4)], ElementType::F32)?;
    let mut call = Call::new(cx.gpu(), x, epsilon)?;
    call.kernel = call.kernel.flag("RMS").flag("INVERSE");
    call.columns = columns;
    call.run(cx, &out)?;
    Ok(out)
}

pub(super) fn check_vector(op: &'static str, vector: &Tensor, n: usize) -> Result<()> {
    if vector.len() != n || vector.element_type() != ElementType::F32 {
        return Err(GpuError::shape(op, format!("a vector {:?} for {n} columns", vector.shape())));
    }
    Ok(())
}

/// Devices with subgroups sum a row by the lanes of one subgroup, without barriers.
fn kernel(gpu: &Gpu) -> Kernel {
    match gpu.caps().subgroup_min {
        Some(size) if size >= 8 => Kernel::new("norm").flag("SUBGROUP").set("LANES", size.min(64)),
        _ => Kernel::new("norm").set("LANES", 64),
    }
}

/// A norm of all rows of a tensor.
struct Call<'a> {
    kernel: Kernel,
    x: &'a Tensor,
    /// The columns that are normalised.
    columns: Range<usize>,
    weight: Option<&'a Tensor>,
    shift: Option<&'a Tensor>,
    modulation: Option<&'a Tensor>,
    params: NormParams,
}

impl<'a> Call<'a> {
    /// A LayerNorm of all columns, with nothing that follows.
    fn new(gpu: &Gpu, x: &'a Tensor, epsilon: f32) -> Result<Self> {
        let n = x.columns();
        if n == 0 || !n.is_multiple_of(4) || x.element_type() != ElementType::F32 {
            return Err(GpuError::shape("norm", format!("{:?}: rows are f32, a multiple of 4 long", x.shape())));
        }
        let params = NormParams { epsilon, ..Default::default() };
        let (weight, shift, modulation) = (None, None, None);
        Ok(Self { kernel: kernel(gpu), x, columns: 0..n, weight, shift, modulation, params })
    }

    fn run_into_rows(&self, cx: &mut Stream) -> Result<Tensor> {
        let out = cx.empty("norm", self.x.shape(), ElementType::F32)?;
        self.run(cx, &out)?;
        Ok(out)
    }

    /// Normalises in parts of as many rows as a binding and a dispatch may hold.
    fn run(&self, cx: &mut Stream, out: &Tensor) -> Result<()> {
        /// Cost of an element, in multiply-adds of a matrix product: memory limits the speed.
        const COST: f64 = 16.0;
        let row = self.x.columns();
        let (first, count) = (self.columns.start, self.columns.len());
        let affordable = (cx.dispatch_budget() / (COST * count as f64)) as usize;
        let most = fitting(cx.gpu().caps().max_binding, 4 * row).min(affordable.max(1));
        for rows in ranges(self.x.rows(), most, 4) {
            let (x, x4) = window(self.x, rows.start * row, rows.len() * row);
            let whole_rows = out.len() == self.x.len();
            let (y, output4) = if whole_rows {
                window(out, rows.start * row, rows.len() * row)
            } else {
                (out.clone(), rows.start as u32)
            };
            let params = NormParams {
                rows: rows.len() as u32,
                row4: (row / 4) as u32,
                n4: (count / 4) as u32,
                x4: x4 + (first / 4) as u32,
                output4,
                ..self.params
            };
            let Self { weight, shift, modulation, .. } = *self;
            cx.dispatch(&Dispatch {
                kernel: &self.kernel,
                arguments: &Norm { params, x: &x, output: &y, weight, shift, modulation },
                groups: fold_groups(rows.len()),
                flops: COST * (rows.len() * count) as f64,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::StreamOptions;
    use crate::ops::testing::*;

    /// The CPU twin: normalised rows in f64, before anything that follows.
    fn norm_twin(x: &[f32], n: usize, epsilon: f64, centred: bool) -> Vec<f64> {
        let row_twin = |row: &[f32]| {
            let mean = if centred { row.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64 } else { 0.0 };
            let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n as f64;
            row.iter().map(move |v| (f64::from(*v) - mean) / (variance + epsilon).sqrt()).collect::<Vec<_>>()
        };
        x.chunks(n).flat_map(row_twin).collect()
    }

    /// Every form of norm on one tensor whose values lie around `mean`.
    fn check(cx: &mut Stream, rows: usize, n: usize, mean: f32) {
        let epsilon = 1e-6;
        let values: Vec<f32> = random(1, rows * n).iter().map(|v| v + mean).collect();
        let x = cx.upload("x", &values, &[rows, n]).unwrap();
        let (weight, w) = random_tensor(cx, 2, &[n]);
        let (bias, b) = random_tensor(cx, 3, &[n]);
        let (table, t) = random_tensor(cx, 4, &[3, n]);
        let what = |form: &str| format!("{form}, {rows} x {n} around {mean}");
        let centred = norm_twin(&values, n, f64::from(epsilon), true);
        let with = |y: &[f64], then: &dyn Fn(f64, usize) -> f64| -> Vec<f32> {
            y.iter().enumerate().map(|(i, y)| then(*y, i % n) as f32).collect()
        };
        type Twin<'a> = &'a dyn Fn(f64, usize) -> f64;
        let forms: [(LayerNormThen, Twin); 3] = [
            (LayerNormThen::Store, &|y, _| y),
            (LayerNormThen::Affine { weight: &weight, bias: &bias }, &|y, i| y * f64::from(w[i]) + f64::from(b[i])),
            (LayerNormThen::Modulate { rows: &table, scale: 2, shift: 1 }, &|y, i| {
                y * (1.0 + f64::from(t[2 * n + i])) + f64::from(t[n + i])
            }),
        ];
        for (then, twin) in forms {
            let got = layer_norm(cx, &x, epsilon, then).unwrap();
            assert_eq!(got.shape(), x.shape());
            assert_close(&cx.read(&got).unwrap(), &with(&centred, twin), 1e-6, &what(&format!("{then:?}")));
        }
        let plain = norm_twin(&values, n, f64::from(epsilon), false);
        let got = rms_norm(cx, &x, &weight, epsilon).unwrap();
        assert_close(&cx.read(&got).unwrap(), &with(&plain, &|y, i| y * f64::from(w[i])), 1e-6, &what("rms"));
    }

    #[test]
    fn norms_agree_with_the_twin() {
        let (full, turn) = gpu();
        drop(turn);
        let (base, _turn) = base_gpu();
        for gpu in [full, base] {
            let mut cx = stream(&gpu);
            // Values around 300 would show the rounding error of an uncorrected mean.
            for (rows, n, mean) in [(1, 4, 0.0), (3, 36, 0.5), (17, 192, -2.0), (5, 1536, 0.1), (4, 260, 300.0)] {
                check(&mut cx, rows, n, mean);
            }
        }
    }

    #[test]
    fn more_rows_than_workgroups_in_a_dimension() {
        let (gpu, _turn) = gpu();
        check(&mut stream(&gpu), 65_537, 4, 0.0);
    }

    #[test]
    fn rows_are_split_at_the_limits() {
        let (_, _turn) = gpu();
        let gpu = narrow_gpu(2_000);
        let mut cx = Stream::new(&gpu, StreamOptions::default().with_budget(std::time::Duration::ZERO));
        check(&mut cx, 23, 100, 1.0);
    }
}
