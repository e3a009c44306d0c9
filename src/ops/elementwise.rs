//! Small operations on every element.

use crate::gpu::{DType, Dispatch, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::{fitting, ranges, window};

/// Invocations of a workgroup in these kernels.
const GROUP: usize = 64;

/// `stack + matrices[index]`: adds one slice of `matrices` to every slice of `stack`; they differ in the first extent only.
pub fn add_rows(cx: &mut Stream, stack: &Tensor, matrices: &Tensor, index: usize) -> Result<Tensor> {
    let period: usize = stack.shape()[1..].iter().product();
    let fits = stack.shape()[1..] == matrices.shape()[1..] && index < matrices.shape()[0];
    if !fits || !period.is_multiple_of(4) || period == 0 {
        let message = format!("number {index} of {:?} onto {:?}", matrices.shape(), stack.shape());
        return Err(GpuError::shape("add_rows", message));
    }
    let out = cx.empty("sum", stack.shape(), DType::F32)?;
    let (matrix, first4) = window(matrices, index * period, period);
    let params = [stack.len() as u32 / 4, period as u32 / 4, first4];
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("add_rows"),
        tensors: &[(1, stack), (2, &matrix), (3, &out)],
        params: bytemuck::bytes_of(&params),
        groups: fold_groups((stack.len() / 4).div_ceil(GROUP)),
        flops: stack.len() as f64,
    })?;
    Ok(out)
}

/// `x / (1 + exp(-x))`.
pub fn silu(cx: &mut Stream, x: &Tensor) -> Result<Tensor> {
    if !x.len().is_multiple_of(4) {
        return Err(GpuError::shape("silu", format!("{:?}", x.shape())));
    }
    let out = cx.empty("silu", x.shape(), DType::F32)?;
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
        let fits =
            x.shape() == y.shape() && x.len().is_multiple_of(4) && x.dtype() == DType::F32 && y.dtype() == DType::F32;
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

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PatchParams {
    channels: u32,
    extents: [u32; 3],
    patch: [u32; 3],
    row: u32,
}

/// Latents `[channels, frames, height, width]` to rows of patches `[tokens, row]`, one row a token (frames slowest, then lines). A row
/// is ordered (channel, pt, ph, pw) and padded with zeros to a multiple of 4.
pub fn patchify(cx: &mut Stream, latents: &Tensor, patch: [usize; 3]) -> Result<Tensor> {
    let &[channels, frames, height, width] = latents.shape() else {
        return Err(GpuError::shape("patchify", format!("latents {:?}", latents.shape())));
    };
    let extents = [frames, height, width];
    let tokens = token_grid(extents, patch)?.iter().product();
    let row = (channels * patch.iter().product::<usize>()).next_multiple_of(4);
    let out = cx.empty("patches", &[tokens, row], DType::F32)?;
    dispatch_patches(cx, Kernel::new("patchify"), latents, &out, [channels, row], extents, patch)?;
    Ok(out)
}

/// Rows of patches `[tokens, row]`, each ordered (pt, ph, pw, channel), back to latents `[channels, frames, height, width]`.
pub fn unpatchify(
    cx: &mut Stream,
    rows: &Tensor,
    channels: usize,
    extents: [usize; 3],
    patch: [usize; 3],
) -> Result<Tensor> {
    let tokens: usize = token_grid(extents, patch)?.iter().product();
    let row = rows.columns();
    if rows.rows() != tokens || row < channels * patch.iter().product::<usize>() {
        return Err(GpuError::shape("unpatchify", format!("{:?} for {channels} x {extents:?}", rows.shape())));
    }
    let out = cx.empty("latents", &[channels, extents[0], extents[1], extents[2]], DType::F32)?;
    let kernel = Kernel::new("patchify").flag("UNPATCHIFY");
    dispatch_patches(cx, kernel, rows, &out, [channels, row], extents, patch)?;
    Ok(out)
}

/// Tokens along frames, height and width; fails unless the patch divides the latents.
pub fn token_grid(extents: [usize; 3], patch: [usize; 3]) -> Result<[usize; 3]> {
    let divides = (0..3).all(|axis| patch[axis] > 0 && extents[axis] > 0 && extents[axis].is_multiple_of(patch[axis]));
    if !divides {
        return Err(GpuError::shape(
            "patchify",
            format!("latents {extents:?} are not multiples of the patch {patch:?}"),
        ));
    }
    Ok([0, 1, 2].map(|axis| extents[axis] / patch[axis]))
}

fn dispatch_patches(
    cx: &mut Stream,
    kernel: Kernel,
    from: &Tensor,
    to: &Tensor,
    [channels, row]: [usize; 2],
    extents: [usize; 3],
    patch: [usize; 3],
) -> Result<()> {
    let tokens = token_grid(extents, patch)?.iter().product::<usize>();
    let params = PatchParams {
        channels: channels as u32,
        extents: extents.map(|n| n as u32),
        patch: patch.map(|n| n as u32),
        row: row as u32,
    };
    cx.dispatch(&Dispatch {
        kernel: &kernel,
        tensors: &[(1, from), (2, to)],
        params: bytemuck::bytes_of(&params),
        groups: fold_groups((tokens * channels).div_ceil(GROUP)),
        flops: to.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::*;

    #[test]
    fn add_rows_adds_to_every_slice() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let (a, av) = random_tensor(&mut cx, 1, &[3, 6, 20]);
        let (b, bv) = random_tensor(&mut cx, 2, &[2, 6, 20]);
        let sum = add_rows(&mut cx, &a, &b, 1).unwrap();
        let want: Vec<f32> = av.iter().enumerate().map(|(i, v)| v + bv[120 + i % 120]).collect();
        assert_eq!(cx.read(&sum).unwrap(), want);
        assert!(add_rows(&mut cx, &a, &b, 2).is_err());
        assert!(add_rows(&mut cx, &a, &b.reshape(&[2, 20, 6]), 0).is_err());
    }

    #[test]
    fn combinations_are_in_place_and_split_at_the_binding_limit() {
        let (_, _turn) = gpu();
        for max_binding in [None, Some(2048)] {
            let options =
                crate::gpu::GpuOptions { max_binding, poison: true, checked_shaders: true, ..Default::default() };
            let gpu = crate::gpu::Gpu::open(&options).unwrap();
            let mut cx = stream(&gpu);
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

    /// Both directions against plain loops, for patches that touch every axis, over more than 65,535 workgroups once.
    #[test]
    fn patches_are_ordered_as_the_model_wants() {
        let (gpu, _turn) = gpu();
        for (channels, extents, patch) in [
            (5, [3, 4, 6], [1, 2, 2]),
            (3, [2, 3, 5], [1, 1, 1]),
            (2, [4, 6, 9], [2, 3, 3]),
            (1, [1, 2048, 2112], [1, 2, 2]),
        ] {
            let mut cx = stream(&gpu);
            let [f, h, w] = extents;
            let [gf, gh, gw] = token_grid(extents, patch).unwrap();
            let (latents, values) = random_tensor(&mut cx, 4, &[channels, f, h, w]);
            let volume: usize = patch.iter().product();
            let row = (channels * volume).next_multiple_of(4);
            let mut into = vec![0.0; gf * gh * gw * row];
            let mut out_of = into.clone();
            for (i, value) in values.iter().enumerate() {
                let [x, y, t, c] = [i % w, i / w % h, i / (w * h) % f, i / (w * h * f)];
                let token = (t / patch[0] * gh + y / patch[1]) * gw + x / patch[2];
                let within = (t % patch[0] * patch[1] + y % patch[1]) * patch[2] + x % patch[2];
                into[token * row + c * volume + within] = *value;
                out_of[token * row + within * channels + c] = *value;
            }
            let patches = patchify(&mut cx, &latents, patch).unwrap();
            assert_eq!(cx.read(&patches).unwrap(), into, "{extents:?}");
            let rows = cx.upload("rows", &out_of, &[gf * gh * gw, row]).unwrap();
            let back = unpatchify(&mut cx, &rows, channels, extents, patch).unwrap();
            assert_eq!(cx.read(&back).unwrap(), values, "{extents:?}");
        }
        assert!(token_grid([1, 3, 4], [1, 2, 2]).is_err());
    }
}
