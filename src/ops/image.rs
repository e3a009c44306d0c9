//! What image decoders need beside convolutions: the channel norm, and transposition and softmax for their attention.

use crate::gpu::{DType, Dispatch, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::window::Window;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct NormParams {
    pixels: u32,
    first: u32,
    c4: u32,
    x_start4: u32,
    y_start4: u32,
    y_pixel: u32,
}

/// RMS norm over the channels of each pixel, `x / max(|x|, 1e-12) * gamma`, then SiLU if `silu`; `gamma` holds the square root of the
/// number of channels as a factor. `x` is `[t, h, w, c]`; frame `t` is written to frame `t + offset` of `out`.
pub fn channel_norm(
    cx: &mut Stream,
    x: &Tensor,
    gamma: &Tensor,
    silu: bool,
    out: &Tensor,
    offset: usize,
) -> Result<()> {
    /// Floating-point operations of an element, for the time limit: the work is in loads and stores.
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
        let read = Window::new(x, first * c..end * c);
        let written = Window::new(out, (first + y_pixel) * c..(end + y_pixel) * c);
        let params = NormParams {
            pixels: end as u32,
            first: first as u32,
            c4: c as u32 / 4,
            x_start4: read.start4(),
            y_start4: written.start4(),
            y_pixel: y_pixel as u32,
        };
        cx.dispatch(&Dispatch {
            kernel: &kernel,
            tensors: &[(1, &read.tensor), (2, gamma), (3, &written.tensor)],
            params: bytemuck::bytes_of(&params),
            groups: fold_groups((end - first).div_ceil(64)),
            flops: FLOPS * ((end - first) * c) as f64,
        })?;
        first = end;
    }
    Ok(())
}

/// The transpose of `x` `[rows, columns]`: `[columns, rows]`, its rows padded with zeros to a multiple of 4.
pub fn transpose(cx: &mut Stream, x: &Tensor) -> Result<Tensor> {
    let &[rows, columns] = x.shape() else {
        return Err(GpuError::shape("transpose", format!("{:?} is no matrix", x.shape())));
    };
    let padded = rows.next_multiple_of(4);
    let out = cx.empty("transposed", &[columns, padded], DType::F32)?;
    let params = [rows as u32, columns as u32 / 4, padded as u32 / 4];
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("transpose"),
        tensors: &[(1, x), (2, &out)],
        params: bytemuck::bytes_of(&params),
        groups: [(columns / 4).div_ceil(8) as u32, (padded / 4).div_ceil(8) as u32, 1],
        flops: (columns * padded) as f64,
    })?;
    Ok(out)
}

/// Softmax of each row of a matrix in place, over its first `columns`; the others become zero.
pub fn row_softmax(cx: &mut Stream, x: &Tensor, columns: usize) -> Result<()> {
    let &[rows, n] = x.shape() else {
        return Err(GpuError::shape("row_softmax", format!("{:?} is no matrix", x.shape())));
    };
    if columns == 0 || columns > n || n % 4 != 0 {
        return Err(GpuError::shape("row_softmax", format!("{columns} columns of {:?}", x.shape())));
    }
    let params = [columns as u32, n as u32 / 4, rows as u32];
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("row_softmax"),
        tensors: &[(1, x)],
        params: bytemuck::bytes_of(&params),
        groups: fold_groups(rows),
        flops: 16.0 * (rows * n) as f64,
    })
}
