//! Normalisation of rows, with f32 statistics over all columns.

use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::{fitting, ranges, window};

/// What follows a LayerNorm.
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
    /// `y * (1 + scale) + shift`, both rows of one `[_, columns]` matrix (adaptive layer norm, Peebles and Xie 2023).
    Modulate {
        /// The matrix.
        rows: &'a Tensor,
        /// Row of the scale.
        scale: usize,
        /// Row of the shift.
        shift: usize,
    },
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    row4: u32,
    n4: u32,
    x4: u32,
    output4: u32,
    scale4: u32,
    shift4: u32,
    epsilon: f32,
}

/// LayerNorm of every row of x (biased variance), then what follows: a new tensor of x's shape.
pub fn layer_norm(cx: &mut Stream, x: &Tensor, epsilon: f32, then: LayerNormThen) -> Result<Tensor> {
    let n = x.columns();
    let mut call = Call { kernel: kernel(cx.gpu()), ..Call::new(x, epsilon)? };
    match then {
        LayerNormThen::Store => {}
        LayerNormThen::Affine { weight, bias } => {
            check_vector("layer_norm", weight, n)?;
            check_vector("layer_norm", bias, n)?;
            call.kernel = call.kernel.flag("WEIGHT").flag("SHIFT");
            call.tensors = vec![(3, weight), (4, bias)];
        }
        LayerNormThen::Modulate { rows, scale, shift } => {
            if rows.columns() != n || rows.rows() <= scale.max(shift) || rows.element_type() != ElementType::F32 {
                let message = format!("rows {scale} and {shift} of {:?} for {n} columns", rows.shape());
                return Err(GpuError::shape("layer_norm", message));
            }
            call.kernel = call.kernel.flag("MODULATED");
            call.tensors = vec![(5, rows)];
            (call.params.scale4, call.params.shift4) = ((scale * n / 4) as u32, (shift * n / 4) as u32);
        }
    }
    call.run_into_rows(cx)
}

/// RMSNorm of every row of x (Zhang and Sennrich 2019): `x * rsqrt(mean(x^2) + epsilon) * weight`, weight `[columns]`; a new
/// tensor of x's shape.
pub fn rms_norm(cx: &mut Stream, x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    check_vector("rms_norm", weight, x.columns())?;
    let kernel = kernel(cx.gpu()).flag("RMS").flag("WEIGHT");
    Call { kernel, tensors: vec![(3, weight)], ..Call::new(x, epsilon)? }.run_into_rows(cx)
}

/// `rsqrt(mean(x^2) + epsilon)` over columns `first .. first + count` of every row of x, as `[1, rows]` (padded to a multiple
/// of 4 with undefined values).
pub fn inverse_rms(cx: &mut Stream, x: &Tensor, [first, count]: [usize; 2], epsilon: f32) -> Result<Tensor> {
    let out = cx.empty("inverse rms", &[1, x.rows().next_multiple_of(4)], ElementType::F32)?;
    let kernel = kernel(cx.gpu()).flag("RMS").flag("INVERSE");
    let call = Call { kernel, columns: [first, count], ..Call::new(x, epsilon)? };
    call.run(cx, &out)?;
    Ok(out)
}

pub(super) fn check_vector(op: &'static str, vector: &Tensor, n: usize) -> Result<()> {
    if vector.len() != n || vector.element_type() != ElementType::F32 {
        return Err(GpuError::shape(op, format!("a vector {:?} for {n} columns", vector.shape())));
    }
    Ok(())
}

/// A row by the lanes of one subgroup where there are subgroups: no barriers.
fn kernel(gpu: &Gpu) -> Kernel {
    match gpu.caps().subgroup_min {
        Some(size) if size >= 8 => Kernel::new("norm").flag("SUBGROUP").set("LANES", size.min(64)),
        _ => Kernel::new("norm").set("LANES", 64),
    }
}

struct Call<'a> {
    kernel: Kernel,
    x: &'a Tensor,
    /// First normalised column, and how many.
    columns: [usize; 2],
    tensors: Vec<(u32, &'a Tensor)>,
    params: Params,
}

impl<'a> Call<'a> {
    fn new(x: &'a Tensor, epsilon: f32) -> Result<Self> {
        let n = x.columns();
        if n == 0 || !n.is_multiple_of(4) || x.element_type() != ElementType::F32 {
            return Err(GpuError::shape("norm", format!("{:?}: rows are f32, a multiple of 4 long", x.shape())));
        }
        let params = Params { epsilon, ..Default::default() };
        Ok(Self { kernel: Kernel::new("norm"), x, columns: [0, n], tensors: Vec::new(), params })
    }

    fn run_into_rows(&self, cx: &mut Stream) -> Result<Tensor> {
        let out = cx.empty("norm", self.x.shape(), ElementType::F32)?;
        self.run(cx, &out)?;
        Ok(out)
    }

    /// Normalises as many rows at a time as a binding and a dispatch may hold.
    fn run(&self, cx: &mut Stream, out: &Tensor) -> Result<()> {
        /// What an element costs, in multiply-adds of a matrix product: it is memory that counts.
        const COST: f64 = 16.0;
        let row = self.x.columns();
        let [first, count] = self.columns;
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
            let mut tensors = vec![(1, &x), (2, &y)];
            tensors.extend(&self.tensors);
            let params = Params {
                rows: rows.len() as u32,
                row4: (row / 4) as u32,
                n4: (count / 4) as u32,
                x4: x4 + (first / 4) as u32,
                output4,
                ..self.params
            };
            cx.dispatch(&Dispatch {
                kernel: &self.kernel,
                tensors: &tensors,
                params: bytemuck::bytes_of(&params),
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

    /// The CPU twin: normalised rows in f64, before what follows.
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
            // Around 300, what an uncorrected mean loses would show.
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
        let mut cx = Stream::new(&gpu, StreamOptions { budget: std::time::Duration::ZERO, ..Default::default() });
        check(&mut cx, 23, 100, 1.0);
    }
}
