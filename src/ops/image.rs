//! Operations of image decoders besides convolutions: the channel norm, and transposition and
//! softmax for their attention.

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::window_from;

arguments! {
    /// Arguments of `channel_norm.wgsl`.
    ChannelNorm => ["channel_norm"];
    params ChannelNormParams {
        pixels: u32,
        first: u32,
        c4: u32,
        x_start4: u32,
        y_start4: u32,
        y_pixel: u32,
    }
    tensors {
        x @ 1: Read F32,
        gamma @ 2: Read F32,
        y_out @ 3: ReadWrite F32,
    }
}

arguments! {
    /// Arguments of `transpose.wgsl`.
    Transpose => ["transpose"];
    params TransposeParams {
        rows: u32,
        x4: u32,
        y4: u32,
    }
    tensors {
        x @ 1: Read F32,
        y_out @ 2: ReadWrite F32,
    }
}

arguments! {
    /// Arguments of `row_softmax.wgsl`.
    RowSoftmax => ["row_softmax"];
    params RowSoftmaxParams {
        columns: u32,
        n4: u32,
        rows: u32,
    }
    tensors {
        x @ 1: ReadWrite F32,
    }
}

/// RMS norm over the channels of each pixel, `x / max(|x|, 1e-12) * gamma`, then SiLU if `silu`.
/// `gamma` contains the square root of the number of channels as a factor. `x` is `[t, h, w, c]`;
/// frame `t` is written to frame `t + offset` of `out`.
///
/// # Errors
/// Shapes that do not fit, or an error of the GPU.
pub fn channel_norm(
    cx: &mut Stream,
    x: &Tensor,
    gamma: &Tensor,
    silu: bool,
    out: &Tensor,
    offset: usize,
) -> Result<()> {
    /// Cost of an element in floating-point operations, for the time limit: memory limits the
    /// speed.
    const FLOPS: f64 = 16.0;
    let &[frames, height, width, c] = x.shape() else {
        return Err(GpuError::shape("channel_norm", format!("{:?} is no video", x.shape())));
    };
    let fits = out.shape().len() == 4 && out.shape()[0] >= frames + offset && out.shape()[1..] == x.shape()[1..];
    if !fits || gamma.len() != c || c % 4 != 0 {
        let message = format!("{:?} at {offset} of {:?} by {} gammas", x.shape(), out.shape(), gamma.len());
        return Err(GpuError::shape("channel_norm", message));
    }
    let kernel = Kernel::new("channel_norm").flag_if(silu, "SILU");
    let y_pixel = offset * height * width;
    let bindable = (cx.gpu().caps().max_binding as usize / 4).saturating_sub(128) / c;
    let mut first = 0;
    while first < frames * height * width {
        let most = bindable.min((cx.dispatch_budget() / FLOPS / c as f64) as usize).max(64);
        let end = (first + most).min(frames * height * width);
        let (read, x_start4) = window_from(x, first * c..end * c);
        let (written, y_start4) = window_from(out, (first + y_pixel) * c..(end + y_pixel) * c);
        let params = ChannelNormParams {
            pixels: end as u32,
            first: first as u32,
            c4: c as u32 / 4,
            x_start4,
            y_start4,
            y_pixel: y_pixel as u32,
        };
        cx.dispatch(&Dispatch {
            kernel: &kernel,
            arguments: &ChannelNorm { params, x: &read, gamma, y_out: &written },
            groups: fold_groups((end - first).div_ceil(64)),
            flops: FLOPS * ((end - first) * c) as f64,
        })?;
        first = end;
    }
    Ok(())
}

/// The transpose of `x` `[rows, columns]`: `[columns, rows]`, with rows padded with zeros to a
/// multiple of 4.
///
/// # Errors
/// `x` is no matrix, or an error of the GPU.
pub fn transpose(cx: &mut Stream, x: &Tensor) -> Result<Tensor> {
    let &[rows, columns] = x.shape() else {
        return Err(GpuError::shape("transpose", format!("{:?} is no matrix", x.shape())));
    };
    let padded = rows.next_multiple_of(4);
    let out = cx.empty("transposed", &[columns, padded], ElementType::F32)?;
    let params = TransposeParams { rows: rows as u32, x4: columns as u32 / 4, y4: padded as u32 / 4 };
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("transpose"),
        arguments: &Transpose { params, x, y_out: &out },
        groups: [(columns / 4).div_ceil(8) as u32, (padded / 4).div_ceil(8) as u32, 1],
        flops: (columns * padded) as f64,
    })?;
    Ok(out)
}

/// Softmax of each row of a matrix in place, over its first `columns`. The other columns become
/// zero.
///
/// # Errors
/// `x` is no matrix, or has no such columns, or an error of the GPU.
pub fn row_softmax(cx: &mut Stream, x: &Tensor, columns: usize) -> Result<()> {
    let &[rows, n] = x.shape() else {
        return Err(GpuError::shape("row_softmax", format!("{:?} is no matrix", x.shape())));
    };
    if columns == 0 || columns > n || n % 4 != 0 {
        return Err(GpuError::shape("row_softmax", format!("{columns} columns of {:?}", x.shape())));
    }
    let params = RowSoftmaxParams { columns: columns as u32, n4: n as u32 / 4, rows: rows as u32 };
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("row_softmax"),
        arguments: &RowSoftmax { params, x },
        groups: fold_groups(rows),
        flops: 16.0 * (rows * n) as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::*;

    /// CPU twin.
    fn channel_norm_cpu(x: &[f32], gamma: &[f32], silu: bool) -> Vec<f32> {
        let norm = |pixel: &[f32]| pixel.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
        let finish = |y: f64| if silu { y / (1.0 + (-y).exp()) } else { y };
        let pixel = |pixel: &[f32]| {
            let factor = 1.0 / norm(pixel);
            let scaled = pixel.iter().zip(gamma).map(move |(v, g)| f64::from(*v) * factor * f64::from(*g));
            scaled.map(|y| finish(y) as f32).collect::<Vec<_>>()
        };
        x.chunks(gamma.len()).flat_map(pixel).collect()
    }

    fn check_norm(cx: &mut Stream, [t, h, w, c]: [usize; 4], silu: bool, offset: usize) {
        let (x, mut values) = random_tensor(cx, 1, &[t, h, w, c]);
        values[..c].fill(0.0);
        let zero_pixel = cx.upload("x", &values, &[t, h, w, c]).unwrap();
        drop(x);
        let (gamma, gammas) = random_tensor(cx, 2, &[c]);
        let out = cx.zeros("out", &[offset + t, h, w, c], ElementType::F32).unwrap();
        channel_norm(cx, &zero_pixel, &gamma, silu, &out, offset).unwrap();
        let mut want = vec![0.0; offset * h * w * c];
        want.extend(channel_norm_cpu(&values, &gammas, silu));
        assert_close(&cx.read(&out).unwrap(), &want, 1e-6, &format!("{t} {h} {w} {c} {silu} {offset}"));
    }

    #[test]
    fn channel_norm_is_right() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        check_norm(&mut cx, [2, 5, 7, 4], true, 0);
        check_norm(&mut cx, [1, 3, 3, 12], false, 1);
        check_norm(&mut cx, [3, 9, 11, 24], true, 2);
        check_norm(&mut stream(&narrow_gpu(4096)), [3, 9, 11, 12], true, 2);
    }

    #[test]
    fn transpose_pads_with_zeros() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        for [rows, columns] in [[1, 4], [6, 8], [37, 40], [64, 36]] {
            let (x, values) = random_tensor(&mut cx, 3, &[rows, columns]);
            let got = transpose(&mut cx, &x).unwrap();
            let padded = rows.next_multiple_of(4);
            let value = |i: usize| if i % padded < rows { values[i % padded * columns + i / padded] } else { 0.0 };
            let want: Vec<f32> = (0..columns * padded).map(value).collect();
            assert_eq!(got.shape(), [columns, padded]);
            assert_eq!(cx.read(&got).unwrap(), want);
        }
    }

    /// Values up to 200: exponentials overflow unless the maximum is subtracted.
    #[test]
    fn row_softmax_is_right() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        for [rows, columns] in [[1usize, 1usize], [5, 6], [3, 300], [17, 64]] {
            let n = columns.next_multiple_of(4);
            let values: Vec<f32> = random(4, rows * n).iter().map(|v| 200.0 * v).collect();
            let x = cx.upload("x", &values, &[rows, n]).unwrap();
            row_softmax(&mut cx, &x, columns).unwrap();
            let mut want = Vec::new();
            for row in values.chunks(n) {
                let top = row[..columns].iter().copied().fold(f32::MIN, f32::max);
                let exps: Vec<f64> = row[..columns].iter().map(|v| f64::from(v - top).exp()).collect();
                let sum: f64 = exps.iter().sum();
                want.extend(exps.iter().map(|e| (e / sum) as f32));
                want.resize(want.len().next_multiple_of(n), 0.0);
            }
            assert_close(&cx.read(&x).unwrap(), &want, 2e-5, &format!("{rows} x {columns}"));
        }
    }
}
