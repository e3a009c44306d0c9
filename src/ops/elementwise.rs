//! Small operations on every element.

use std::ops::Range;

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::{fitting, ranges, window};

/// Invocations of a workgroup in these kernels.
const GROUP: usize = 64;

arguments! {
    /// Arguments of `add_rows.wgsl`.
    AddRows => ["add_rows"];
    params AddRowsParams {
        count4: u32,
        stack4: u32,
        period4: u32,
        first4: u32,
    }
    tensors {
        a @ 1: Read F32,
        b @ 2: Read F32,
        y @ 3: ReadWrite F32,
    }
}

arguments! {
    /// Arguments of `sample_rows.wgsl`.
    SampleRows => ["sample_rows"];
    params SampleRowsParams {
        count4: u32,
        columns4: u32,
        stride4: u32,
        x4: u32,
        y4: u32,
    }
    tensors {
        x @ 1: Read F32,
        y @ 2: ReadWrite F32,
    }
}

arguments! {
    /// Arguments of `activate.wgsl`.
    Activate => ["activate"];
    params ActivateParams {
        count4: u32,
    }
    tensors {
        x @ 1: Read F32,
        y @ 2: ReadWrite F32,
    }
}

arguments! {
    /// Arguments of `combine.wgsl`.
    Combine => ["combine"];
    params CombineParams {
        count4: u32,
        a4: u32,
        b4: u32,
        y4: u32,
        a_weight: f32,
        b_weight: f32,
        y_weight: f32,
    }
    tensors {
        a @ 1: Read F32,
        b @ 2: Read F32,
        y @ 3: ReadWrite F32,
    }
}

/// `stack + matrices[i]` for every `i` of `indices`: `[indices, stack's extents]`. Every slice of
/// the stack gets the matrix added, so all extents but the first must agree.
///
/// # Errors
/// Shapes that do not fit, an index that does not exist, or an error of the GPU.
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
    let [count4, stack4, period4] = [out.len(), stack.len(), period].map(|n| n as u32 / 4);
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("add_rows"),
        arguments: &AddRows {
            params: AddRowsParams { count4, stack4, period4, first4 },
            a: stack,
            b: &matrices,
            y: &out,
        },
        groups: fold_groups((out.len() / 4).div_ceil(GROUP)),
        flops: out.len() as f64,
    })?;
    Ok(out)
}

/// Rows 0, `stride`, `2 stride` and so on of a matrix.
///
/// # Errors
/// A stride of 0, rows that are no multiple of 4 long, or an error of the GPU.
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
        let count = some.len() * columns;
        let [count4, columns4, stride4] = [count, columns, stride * columns].map(|n| n as u32 / 4);
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("sample_rows"),
            arguments: &SampleRows { params: SampleRowsParams { count4, columns4, stride4, x4, y4 }, x: &x, y: &y },
            groups: fold_groups((count / 4).div_ceil(GROUP)),
            flops: count as f64,
        })?;
    }
    Ok(sample)
}

/// `x / (1 + exp(-x))`.
///
/// # Errors
/// A number of elements that is no multiple of 4, or an error of the GPU.
pub fn silu(cx: &mut Stream, x: &Tensor) -> Result<Tensor> {
    if !x.len().is_multiple_of(4) {
        return Err(GpuError::shape("silu", format!("{:?}", x.shape())));
    }
    let out = cx.empty("silu", x.shape(), ElementType::F32)?;
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("activate"),
        arguments: &Activate { params: ActivateParams { count4: x.len() as u32 / 4 }, x, y: &out },
        groups: fold_groups((x.len() / 4).div_ceil(GROUP)),
        flops: 4.0 * x.len() as f64,
    })?;
    Ok(out)
}

/// A tensor and its factor in a sum.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// The tensor, f32.
    pub tensor: &'a Tensor,
    /// Its factor.
    pub weight: f32,
}

/// `before = after - before`, in place on `before`: the change of a tensor since it was copied.
///
/// # Errors
/// As [`add_scaled`].
pub fn subtract_from(cx: &mut Stream, after: &Tensor, before: &Tensor) -> Result<()> {
    let term = |weight| Term { tensor: after, weight };
    combine(cx, [term(1.0), term(0.0)], Term { tensor: before, weight: -1.0 })
}

/// `y += sum of weight * tensor` over the terms, in place on `y`.
///
/// # Errors
/// Tensors of other shapes or types than `y`, a term that shares memory with `y`, or an error of
/// the GPU.
pub fn add_scaled(cx: &mut Stream, y: &Tensor, terms: &[Term]) -> Result<()> {
    terms.chunks(2).try_for_each(|pair| {
        let second = pair.get(1).copied().unwrap_or(Term { weight: 0.0, ..pair[0] });
        combine(cx, [pair[0], second], Term { tensor: y, weight: 1.0 })
    })
}

/// `y = sum of weight * tensor` over the terms and `y` itself, in place.
fn combine(cx: &mut Stream, terms: [Term; 2], y: Term) -> Result<()> {
    for Term { tensor: x, .. } in terms {
        let floats = [x, y.tensor].iter().all(|tensor| tensor.element_type() == ElementType::F32);
        let fits = x.shape() == y.tensor.shape() && x.len().is_multiple_of(4) && floats;
        if !fits || x.shares_memory(y.tensor) {
            return Err(GpuError::shape("combine", format!("{:?} with {:?}", x.shape(), y.tensor.shape())));
        }
    }
    let [a_weight, b_weight, y_weight] = [terms[0], terms[1], y].map(|term| term.weight);
    let most = fitting(cx.gpu().caps().max_binding, size_of::<f32>());
    for range in ranges(y.tensor.len(), most, 4) {
        let part = |term: Term| window(term.tensor, range.start, range.len());
        let [(a, a4), (b, b4), (y, y4)] = [terms[0], terms[1], y].map(part);
        let count4 = range.len() as u32 / 4;
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("combine"),
            arguments: &Combine {
                params: CombineParams { count4, a4, b4, y4, a_weight, b_weight, y_weight },
                a: &a,
                b: &b,
                y: &y,
            },
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
            let term = |tensor, weight| Term { tensor, weight };
            add_scaled(&mut cx, &y, &[term(&x, -0.25), term(&z, 2.0), term(&x, 0.5)]).unwrap();
            let want: Vec<f32> = xs.iter().zip(&ys).zip(&zs).map(|((x, y), z)| y + 0.25 * x + 2.0 * z).collect();
            assert_close(&cx.read(&y).unwrap(), &want, 1e-7, "add_scaled");
            subtract_from(&mut cx, &x, &y).unwrap();
            let want: Vec<f32> = xs.iter().zip(&want).map(|(x, y)| x - y).collect();
            assert_close(&cx.read(&y).unwrap(), &want, 1e-7, "subtract_from");
            assert_eq!(cx.read(&x).unwrap(), xs);
            assert!(add_scaled(&mut cx, &x, &[term(&x, 1.0)]).is_err(), "in place on itself");
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
