//! How much two tensors differ, reduced to two numbers on the GPU.

use crate::gpu::{DType, Dispatch, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::{fitting, ranges, window};

/// Elements that one workgroup sums; `THREADS * TURNS * 4` of the shader.
const PART: usize = 4096;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    a4: u32,
    b4: u32,
    first_pair: u32,
}

/// `[sum |a - b|, sum |b|]` over all elements, `[2]` f32: their quotient is the relative change from `b` to `a`. Sums are trees of a
/// fixed form, so they are the same on every run.
///
/// # Errors
/// Tensors of different sizes, without elements or not f32.
pub fn change(cx: &mut Stream, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let out = cx.empty("change", &[2], DType::F32)?;
    change_into(cx, a, b, &out, 0)?;
    Ok(out)
}

/// [`change`], written to elements `2 slot` and `2 slot + 1` of `out`: many changes, read back at once.
///
/// # Errors
/// As [`change`], or a slot that `out` does not have.
pub fn change_into(cx: &mut Stream, a: &Tensor, b: &Tensor, out: &Tensor, slot: usize) -> Result<()> {
    let floats = [a, b, out].iter().all(|tensor| tensor.dtype() == DType::F32);
    if a.len() != b.len() || a.is_empty() || !floats || 2 * (slot + 1) > out.len() {
        let message = format!("{:?} against {:?} into slot {slot} of {:?}", a.shape(), b.shape(), out.shape());
        return Err(GpuError::shape("change", message));
    }
    let count = a.len();
    let pairs = cx.empty("change, parts", &[count.div_ceil(PART), 2], DType::F32)?;
    let bindable = fitting(cx.gpu().caps().max_binding, 4);
    let first = Kernel::new("change");
    let mut start = 0;
    while start < count {
        let most = bindable.min((cx.dispatch_budget() / 4.0) as usize).max(PART);
        let Some(some) = ranges(count - start, most, PART).next() else { break };
        let (some_a, a4) = window(a, start, some.len());
        let (some_b, b4) = window(b, start, some.len());
        let params = Params { count: some.len() as u32, a4, b4, first_pair: (start / PART) as u32 };
        cx.dispatch(&Dispatch {
            kernel: &first,
            tensors: &[(1, &some_a), (2, &some_b), (3, &pairs)],
            params: bytemuck::bytes_of(&params),
            groups: fold_groups(some.len().div_ceil(PART)),
            flops: 4.0 * some.len() as f64,
        })?;
        start += some.len();
    }
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("change").flag("LAST"),
        tensors: &[(1, &pairs), (2, out)],
        params: bytemuck::bytes_of(&[pairs.rows() as u32, slot as u32]),
        groups: [1, 1, 1],
        flops: 2.0 * pairs.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, GpuOptions};
    use crate::ops::testing::*;

    /// CPU twin, in f64.
    fn change_cpu(a: &[f32], b: &[f32]) -> [f32; 2] {
        let difference: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum();
        [difference as f32, b.iter().map(|b| f64::from(b.abs())).sum::<f64>() as f32]
    }

    fn check(cx: &mut Stream, count: usize) {
        let (a, a_values) = random_tensor(cx, 1, &[count]);
        let (b, b_values) = random_tensor(cx, 2, &[count]);
        let got = change(cx, &a, &b).unwrap();
        let got = cx.read(&got).unwrap();
        assert_close(&got, &change_cpu(&a_values, &b_values), 1e-6, &format!("{count} elements"));
        let again = change(cx, &a, &b).unwrap();
        assert_eq!(cx.read(&again).unwrap(), got, "{count} elements, again");
    }

    #[test]
    fn change_agrees_with_the_twin_on_both_tiers() {
        for open in [gpu, base_gpu] {
            let (gpu, _turn) = open();
            let mut cx = stream(&gpu);
            for count in [1, 3, 4, 257, 4096, 4097, 50_003, 1_000_001] {
                check(&mut cx, count);
            }
        }
    }

    /// Bindings of 64 KiB: many dispatches, each continuing the parts of the one before.
    #[test]
    fn change_is_split_at_the_limits() {
        let (_, _turn) = gpu();
        let options =
            GpuOptions { poison: true, checked_shaders: true, max_binding: Some(65_536), ..Default::default() };
        let mut cx = stream(&Gpu::open(&options).unwrap());
        check(&mut cx, 100_003);
        check(&mut cx, 65_536);
    }

    /// More than 65,535 workgroups are folded over two dimensions; no binding here is that large, so six stand for them.
    #[test]
    fn folded_workgroups_sum_the_right_parts() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let count = 4 * PART + 17;
        let (a, a_values) = random_tensor(&mut cx, 1, &[count]);
        let (b, b_values) = random_tensor(&mut cx, 2, &[count]);
        let pairs = cx.empty("pairs", &[5, 2], DType::F32).unwrap();
        let params = Params { count: count as u32, a4: 0, b4: 0, first_pair: 0 };
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("change"),
            tensors: &[(1, &a), (2, &b), (3, &pairs)],
            params: bytemuck::bytes_of(&params),
            groups: [2, 3, 1],
            flops: 1.0,
        })
        .unwrap();
        let parts = a_values.chunks(PART).zip(b_values.chunks(PART));
        let want: Vec<f32> = parts.flat_map(|(a, b)| change_cpu(a, b)).collect();
        assert_close(&cx.read(&pairs).unwrap(), &want, 1e-6, "folded");
    }

    #[test]
    fn changes_of_many_tensors_share_one_result() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let out = cx.zeros("out", &[5, 2], DType::F32).unwrap();
        let mut want = vec![0.0; 10];
        for slot in [3, 0, 4] {
            let (a, a_values) = random_tensor(&mut cx, slot as u64, &[37, 12]);
            let (b, b_values) = random_tensor(&mut cx, 9, &[37, 12]);
            change_into(&mut cx, &a, &b, &out, slot).unwrap();
            want[2 * slot..2 * slot + 2].copy_from_slice(&change_cpu(&a_values, &b_values));
        }
        assert_close(&cx.read(&out).unwrap(), &want, 1e-6, "slots");
    }

    #[test]
    fn wrong_shapes_are_refused_and_nan_is_not_hidden() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let mut tensor = |shape: &[usize]| cx.zeros("zeros", shape, DType::F32).unwrap();
        let (a, b, none, out) = (tensor(&[8]), tensor(&[4]), tensor(&[0]), tensor(&[3, 2]));
        for (x, y, slot) in [(&a, &b, 0), (&none, &none, 0), (&a, &a, 3)] {
            assert!(matches!(change_into(&mut cx, x, y, &out, slot), Err(GpuError::Shape { .. })), "{slot}");
        }
        let nan = cx.upload("nan", &[1.0, f32::NAN, 0.0], &[3]).unwrap();
        let got = change(&mut cx, &nan, &nan).unwrap();
        assert!(cx.read(&got).unwrap().iter().all(|x| x.is_nan()));
    }
}
