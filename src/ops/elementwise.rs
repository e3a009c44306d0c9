//! Small operations on every element.

use std::ops::Range;

use crate::gpu::{Dispatch, ElementType, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::{fitting, ranges, window};

/// Invocations of a workgroup in these kernels.
const GROUP: usize = 64;

/// `stack + matrices[i]` for every `i` of `indices`: `[indices, stack's extents]`. A matrix is added to every slice of the stack; the two
/// differ in the first extent only.
pub fn add_rows(cx: &mut Stream, stack: &Tensor, matrices: &Tensor, indices: Range<usize>) -> Result<Tensor> {
    let period: usize = stack.shape()[1..].iter().product();
    let fits = stack.shape()[1..] == matrices.shape()[1..] && indices.end <= matrices.shape()[0];
    if !fits || !period.is_multiple_of(4) || period == 0 {
        let message = format!("{indices:?} of {:?} onto {:?}", matrices.shape(), stack.shape());
        return Err(GpuError::shape("add_rows", message));
    }
    let shape: Vec<usize> = std::iter::once(indices.len()).chain(stack.shape().iter().copied()).collect();
    let out = cx.empty("sums", &shape, ElementType::F32)?;
    let (matrices, first4) = window(matrices, indices.start * period, indices.len() * period);
    let params = [out.len(), stack.len(), period].map(|n| n as u32 / 4);
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("add_rows"),
        tensors: &[(1, stack), (2, &matrices), (3, &out)],
        params: bytemuck::bytes_of(&[params[0], params[1], params[2], first4]),
        groups: fold_groups((out.len() / 4).div_ceil(GROUP)),
        flops: out.len() as f64,
    })?;
    Ok(out)
}

/// Rows 0, `stride`, `2 stride` and so on of a matrix.
pub fn sample_rows(cx: &mut Stream, matrix: &Tensor, stride: usize) -> Result<Tensor> {
    let (rows, columns) = (matrix.rows().div_ceil(stride.max(1)), matrix.columns());
    if stride == 0 || !columns.is_multiple_of(4) || columns == 0 || matrix.element_type() != ElementType::F32 {
        return Err(GpuError::shape("sample_rows", format!("every {stride}th row of {:?}", matrix.shape())));
    }
    let sample = cx.empty("sample", &[rows, columns], ElementType::F32)?;
    let most = fitting(cx.gpu().caps().max_binding, size_of::<f32>() * columns * stride);
    for some in ranges(rows, most, 1) {
        let spanned = (some.len() - 1) * stride + 1;
        let (x, x4) = window(matrix, some.start * stride * columns, spanned * columns);
        let (y, y4) = window(&sample, some.start * columns, some.len() * columns);
        let params = [some.len() * columns / 4, columns / 4, stride * columns / 4].map(|n| n as u32);
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("sample_rows"),
            tensors: &[(1, &x), (2, &y)],
            params: bytemuck::bytes_of(&[params[0], params[1], params[2], x4, y4]),
            groups: fold_groups((some.len() * columns / 4).div_ceil(GROUP)),
            flops: (some.len() * columns) as f64,
        })?;
    }
    Ok(sample)
}

/// `x / (1 + exp(-x))`.
pub fn silu(cx: &mut Stream, x: &Tensor) -> Result<Tensor> {
    if !x.len().is_multiple_of(4) {
        return Err(GpuError::shape("silu", format!("{:?}", x.shape())));
    }
    let out = cx.empty("silu", x.shape(), ElementType::F32)?;
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("activate"),
        tensors: &[(1, x), (2, &out)],
        params: bytemuck::bytes_of(&(x.len() as u32 / 4)),
        groups: fold_groups((x.len() / 4).div_ceil(GROUP)),
        flops: 4.0 * x.len() as f64,
    })?;
    Ok(out)
}

/// `before = after - before`, in place on `before`: what was done to a tensor since it was copied.
pub fn subtract_from(cx: &mut Stream, after: &Tensor, before: &Tensor) -> Result<()> {
    combine(cx, [(after, 1.0), (after, 0.0)], (before, -1.0))
}

/// `y += sum of weight * x`, in place on `y`.
pub fn add_scaled(cx: &mut Stream, y: &Tensor, terms: &[(&Tensor, f32)]) -> Result<()> {
    terms.chunks(2).try_for_each(|pair| combine(cx, [pair[0], *pair.get(1).unwrap_or(&(pair[0].0, 0.0))], (y, 1.0)))
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct CombineParams {
    count4: u32,
    first4: [u32; 3],
    weights: [f32; 3],
}

/// `y = sum of weight * x + y_weight * y`.
fn combine(cx: &mut Stream, xs: [(&Tensor, f32); 2], (y, y_weight): (&Tensor, f32)) -> Result<()> {
    for (x, _) in xs {
        let fits = x.shape() == y.shape()
            && x.len().is_multiple_of(4)
            && x.element_type() == ElementType::F32
            && y.element_type() == ElementType::F32;
        if !fits || x.shares_memory(y) {
            return Err(GpuError::shape("combine", format!("{:?} with {:?}", x.shape(), y.shape())));
        }
    }
    let most = fitting(cx.gpu().caps().max_binding, size_of::<f32>());
    for range in ranges(y.len(), most, 4) {
        let [(a, a4), (b, b4), (y, y4)] = [xs[0].0, xs[1].0, y].map(|t| window(t, range.start, range.len()));
        let count4 = range.len() as u32 / 4;
        let params = CombineParams { count4, first4: [a4, b4, y4], weights: [xs[0].1, xs[1].1, y_weight] };
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("combine"),
            tensors: &[(1, &a), (2, &b), (3, &y)],
            params: bytemuck::bytes_of(&params),
            groups: fold_groups((count4 as usize).div_ceil(GROUP)),
            flops: 5.0 * range.len() as f64,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::*;

    #[test]
    fn add_rows_adds_every_matrix_to_every_slice() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let (a, av) = random_tensor(&mut cx, 1, &[3, 6, 20]);
        let (b, bv) = random_tensor(&mut cx, 2, &[5, 6, 20]);
        for indices in [1..2, 2..5, 0..5] {
            let sums = add_rows(&mut cx, &a, &b, indices.clone()).unwrap();
            assert_eq!(sums.shape(), [indices.len(), 3, 6, 20]);
            let matrices = indices.map(|index| &bv[index * 120..][..120]);
            let want: Vec<f32> = matrices
                .flat_map(|matrix| av.iter().zip(matrix.iter().cycle()).map(|(a, b)| a + b).collect::<Vec<_>>())
                .collect();
            assert_eq!(cx.read(&sums).unwrap(), want);
        }
        assert!(add_rows(&mut cx, &a, &b, 4..6).is_err());
        assert!(add_rows(&mut cx, &a, &b.reshape(&[5, 20, 6]), 0..1).is_err());
    }

    #[test]
    fn sampled_rows_are_evenly_spread_and_split_at_the_binding_limit() {
        let (_, _turn) = gpu();
        for max_binding in [None, Some(2048)] {
            let mut cx = stream(&narrow_gpu(max_binding));
            let (x, values) = random_tensor(&mut cx, 1, &[37, 36]);
            for stride in [1, 2, 5, 37, 40] {
                let sample = sample_rows(&mut cx, &x, stride).unwrap();
                let want: Vec<f32> = values.chunks(36).step_by(stride).flatten().copied().collect();
                assert_eq!(sample.shape(), [37_usize.div_ceil(stride), 36]);
                assert_eq!(cx.read(&sample).unwrap(), want, "every {stride}th");
            }
            assert!(
                sample_rows(&mut cx, &x, 0).is_err() && sample_rows(&mut cx, &x.reshape(&[36 * 37, 1]), 2).is_err()
            );
        }
    }

    #[test]
    fn combinations_are_in_place_and_split_at_the_binding_limit() {
        let (_, _turn) = gpu();
        for max_binding in [None, Some(2048)] {
            let mut cx = stream(&narrow_gpu(max_binding));
            let (x, xs) = random_tensor(&mut cx, 1, &[37, 36]);
            let (y, ys) = random_tensor(&mut cx, 2, &[37, 36]);
            let (z, zs) = random_tensor(&mut cx, 3, &[37, 36]);
            add_scaled(&mut cx, &y, &[(&x, -0.25), (&z, 2.0), (&x, 0.5)]).unwrap();
            let want: Vec<f32> = xs.iter().zip(&ys).zip(&zs).map(|((x, y), z)| y + 0.25 * x + 2.0 * z).collect();
            assert_close(&cx.read(&y).unwrap(), &want, 1e-7, "add_scaled");
            subtract_from(&mut cx, &x, &y).unwrap();
            let want: Vec<f32> = xs.iter().zip(&want).map(|(x, y)| x - y).collect();
            assert_close(&cx.read(&y).unwrap(), &want, 1e-7, "subtract_from");
            assert_eq!(cx.read(&x).unwrap(), xs);
            assert!(add_scaled(&mut cx, &x, &[(&x, 1.0)]).is_err(), "in place on itself");
        }
    }

    #[test]
    fn silu_is_the_formula_even_for_large_values() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let mut values: Vec<f32> = random(3, 1020).iter().map(|v| v * 10.0).collect();
        values.extend([0.0, 1e4, -1e4, -200.0]);
        let x = cx.upload("x", &values, &[values.len()]).unwrap();
        let y = silu(&mut cx, &x).unwrap();
        let want: Vec<f32> = values.iter().map(|&v| (f64::from(v) / (1.0 + (-f64::from(v)).exp())) as f32).collect();
        assert_close(&cx.read(&y).unwrap(), &want, 1e-6, "silu");
    }
}
