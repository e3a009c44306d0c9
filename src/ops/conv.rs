//! Convolutions as matrix products. The left side is gathered tap by tap.

use std::ops::Range;

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Result, Stream, Tensor};

use super::matmul::{after, after_bits};
use super::packed::is_packed;
use super::selftest;
use super::split::window_from;
use super::tune::{Choice, extent_class};
use super::weight::Columns;
use super::{Activation, HostWeight, Variant, Weight};

/// The geometry of a convolution. Extents are (time, height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Kernel.
    pub kernel: [usize; 3],
    /// Stride.
    pub stride: [usize; 3],
    /// Zeros in front of the input.
    pub before: [usize; 3],
    /// Zeros behind the input.
    pub after: [usize; 3],
    /// Whether the input is first doubled in height and width by repeating pixels (nearest-exact).
    pub upsample: bool,
}

impl Conv {
    /// One tap: a matrix product over the channels.
    pub const POINT: Self = Self { kernel: [1; 3], stride: [1; 3], before: [0; 3], after: [0; 3], upsample: false };

    /// 3 x 3 in the image plane, extents kept.
    pub const PLANE: Self = Self { kernel: [1, 3, 3], before: [0, 1, 1], after: [0, 1, 1], ..Self::POINT };

    /// 3 x 3 x 3, extents kept, where no frame sees a later one. The first `history` frames of the
    /// input (at most 2) are context without outputs of their own. Zeros stand for missing context.
    pub const fn causal(history: usize) -> Self {
        Self { kernel: [3, 3, 3], before: [2 - history, 1, 1], after: [0, 1, 1], ..Self::POINT }
    }

    /// Input extents, after upsampling.
    fn virtual_input(&self, [t, h, w]: [usize; 3]) -> [usize; 3] {
        let scale = 1 + usize::from(self.upsample);
        [t, h * scale, w * scale]
    }

    /// Output extents for an input of extents `input`. `None` if the kernel does not fit.
    pub fn output(&self, input: [usize; 3]) -> Option<[usize; 3]> {
        let input = self.virtual_input(input);
        let mut output = [0; 3];
        for axis in 0..3 {
            let room = (input[axis] + self.before[axis] + self.after[axis]).checked_sub(self.kernel[axis])?;
            output[axis] = room.checked_div(self.stride[axis])? + 1;
        }
        Some(output)
    }

    /// The weight of this convolution from a checkpoint's `[outputs, inputs, kernel..]` elements,
    /// for the output channels `some`. Taps are the slower part of the inner extent, channels the
    /// faster.
    ///
    /// # Errors
    /// The number of elements is another one, a channel does not exist, or an error of the GPU.
    #[allow(clippy::too_many_arguments)]
    pub fn weight(
        &self,
        gpu: &Gpu,
        what: &str,
        source: &HostWeight,
        [outputs, inputs]: [usize; 2],
        some: Range<usize>,
        bias: Option<&[f32]>,
    ) -> Result<Weight> {
        let taps: usize = self.kernel.iter().product();
        let size = source.dtype.block().1 / 8;
        if source.bytes.len() != outputs * inputs * taps * size || some.end > outputs {
            let message = format!("{what} has {} bytes for [{outputs}, {inputs}, {taps}]", source.bytes.len());
            return Err(GpuError::shape("conv weight", message));
        }
        let padded = inputs.next_multiple_of(4);
        let source = pad_inputs(source, inputs * taps * size, padded * taps * size);
        let bias = bias.map(|bias| bias.get(some.clone()).unwrap_or(bias));
        Weight::pack(gpu, what, &source, [taps * padded, some.len()], bias, |k, n| {
            ((some.start + n) * padded + k % padded) * taps + k / padded
        })
    }
}

/// The same elements, with the inputs of each output padded with zeros from `from` to `to` bytes.
fn pad_inputs<'a>(source: &'a HostWeight, from: usize, to: usize) -> HostWeight<'a> {
    if from == to {
        return HostWeight::floats(source.bytes[..].into(), source.dtype).scaled(source.scale);
    }
    let mut bytes = Vec::with_capacity(source.bytes.len() / from * to);
    for output in source.bytes.chunks(from) {
        bytes.extend_from_slice(output);
        bytes.resize(bytes.len() + to - output.len(), 0);
    }
    HostWeight::floats(bytes.into(), source.dtype).scaled(source.scale)
}

/// The destination of a convolution's result.
#[derive(Clone, Copy, Debug, Default)]
pub enum Target<'a> {
    /// A new tensor.
    #[default]
    New,
    /// Added to a tensor of the result's shape, in place.
    AddTo(&'a Tensor),
    /// Frame `t` of the result becomes frame `t * stride + offset` of `tensor`.
    Frames {
        /// The tensor, with the result's height, width and channels.
        tensor: &'a Tensor,
        /// Distance of frames.
        stride: usize,
        /// First frame.
        offset: usize,
    },
}

arguments! {
    /// Arguments of a convolution, as in `shaders/lib/product_store.wgsl`.
    ConvProduct => ["matmul_tile", "matmul_subgroup", "matmul_rows"] with "CONV";
    params ConvParams {
        m: u32,
        n4: u32,
        k4: u32,
        gate4: u32,
        scale: f32,
        after: u32,
        group4: u32,
        y_n4: u32,
        y_column4: u32,
        first_row: u32,
        x_start4: u32,
        y_start4: u32,
        input: [u32; 4],
        output: [u32; 4],
        kernel: [u32; 4],
        stride: [u32; 4],
        before: [u32; 4],
        frames: [u32; 2],
        padding_1: [u32; 2],
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
}

/// The variants for a convolution of `n` output channels, the likeliest first.
pub fn conv_variants(gpu: &Gpu, n: usize) -> Vec<Variant> {
    let (mut tiles, mut others): (Vec<_>, Vec<_>) =
        Variant::available(gpu).into_iter().partition(|variant| matches!(variant, Variant::Tile { .. }));
    // Fewest idle columns first, then fewest loads for a column. On a CPU, `Rows` wins from 8 to 48
    // channels, and loses little beyond.
    others.sort_by_key(|variant| match *variant {
        Variant::Rows { columns4, .. } => ((n / 4).next_multiple_of(columns4 as usize), 4 - columns4 as usize),
        _ => (n.next_multiple_of(32) / 4, 4),
    });
    // Workgroup memory is slow on a CPU, so that tiles come last there.
    let order = if gpu.caps().cpu { [&mut others, &mut tiles] } else { [&mut tiles, &mut others] };
    order.into_iter().flat_map(std::mem::take).collect()
}

/// Convolves `x` `[t, h, w, c]` with a weight from [`Conv::weight`] and applies the activation.
///
/// # Errors
/// [`GpuError::Shape`] if extents do not agree, [`GpuError::BindingTooLarge`] if the input frames
/// of one output frame exceed the largest binding, or an error of the GPU.
pub fn conv(
    cx: &mut Stream,
    x: &Tensor,
    w: &Weight,
    geometry: &Conv,
    activation: Activation,
    target: Target,
) -> Result<Tensor> {
    let all = conv_variants(cx.gpu(), w.n());
    let choice = conv_choice(&all, x, w, geometry)?;
    let variant = choice
        .decide(cx, |cx, variant| conv_with(cx, variant, x, w, geometry, Activation::None, Target::New).map(drop))?;
    conv_with(cx, variant, x, w, geometry, activation, target)
}

/// The choice in [`conv`], among the first of the `variants`.
pub(super) fn conv_choice<'a>(
    variants: &'a [Variant],
    x: &Tensor,
    w: &Weight,
    geometry: &Conv,
) -> Result<Choice<'a, Variant>> {
    let rows = Plan::new(x, w, geometry, Target::New)?.rows();
    let [m, k, n] = [rows, w.k(), w.n()].map(extent_class);
    let dtype = float_part(w)?.dtype;
    // On CPUs the first variant won for all shapes, and another one takes half a second to compile.
    let tried = if matches!(variants[0], Variant::Tile { .. }) { 2 } else { 1 };
    Ok(Choice {
        class: format!("conv {dtype} {m}x{k}x{n}"),
        kernel: format!("conv {dtype}"),
        test: Box::new(move |cx, variant| selftest::convolution(cx, variant, dtype)),
        available: variants,
        candidates: &variants[..tried.min(variants.len())],
        flops: 2.0 * rows as f64 * w.k() as f64 * w.n() as f64,
    })
}

/// [`conv`] by a given variant.
///
/// # Errors
/// As [`conv`].
pub fn conv_with(
    cx: &mut Stream,
    variant: Variant,
    x: &Tensor,
    w: &Weight,
    geometry: &Conv,
    activation: Activation,
    target: Target,
) -> Result<Tensor> {
    let plan = Plan::new(x, w, geometry, target)?;
    let [t, height, width] = plan.output;
    let shape = [t, height, width, w.n()];
    let out = match target {
        Target::New => cx.empty("convolved", &shape, ElementType::F32)?,
        Target::AddTo(tensor) | Target::Frames { tensor, .. } => tensor.clone(),
    };
    plan.check_target(&out, target)?;
    let part = float_part(w)?;
    let kernel = variant.kernel(part.dtype).flag("CONV");
    let residual = if matches!(target, Target::AddTo(_)) { after::RESIDUAL } else { 0 };
    let after = after_bits(w, activation) | residual;
    let [tile_rows, tile_columns4] = variant.tile();
    // Whole tiles run, so that three colours cost as much as all columns of a tile.
    let columns = w.n().next_multiple_of(4 * tile_columns4);
    let row_flops = 2.0 * plan.taps() as f64 * x.columns() as f64 * columns as f64;
    let mut first = 0;
    while first < plan.rows() {
        // The time limit, and WebGPU's limit on workgroups of one dimension.
        let most = (cx.dispatch_budget() / row_flops / tile_rows as f64).clamp(1.0, 65_535.0) as usize * tile_rows;
        let end = plan.end_of_dispatch(first, most, cx.gpu().caps().max_binding);
        let ((read, x_start4), (written, y_start4)) =
            (plan.window_in(x, first, end), plan.window_out(&out, first, end));
        let params = ConvParams {
            m: end as u32,
            first_row: first as u32,
            scale: part.scale,
            after,
            x_start4,
            y_start4,
            ..plan.params()
        };
        let bias = w.bias.as_ref();
        let weights = &part.matrix;
        cx.dispatch(&Dispatch {
            kernel: &kernel,
            arguments: &ConvProduct { params, x: &read, weights, y_out: &written, bias, gate: None, gated_by: None },
            groups: variant.groups(end - first, w.n() / 4),
            flops: row_flops * (end - first) as f64,
        })?;
        first = end;
    }
    Ok(out)
}

/// The weight of a convolution, which is stored in floats.
fn float_part(w: &Weight) -> Result<&Columns> {
    let part = w.whole()?;
    if is_packed(part.dtype) {
        return Err(GpuError::shape("conv", format!("weights in {}, not in floats", part.dtype)));
    }
    Ok(part)
}

/// A convolution with all its extents.
struct Plan<'a> {
    geometry: &'a Conv,
    /// Time, height, width.
    input: [usize; 3],
    /// Time, height, width.
    output: [usize; 3],
    /// Of the input and of the output.
    channels: [usize; 2],
    /// Distance and offset of output frames.
    frames: [usize; 2],
}

impl<'a> Plan<'a> {
    fn new(x: &Tensor, w: &Weight, geometry: &'a Conv, target: Target) -> Result<Self> {
        let fail = || {
            let message = format!("{:?} by [{}, {}] with {geometry:?}", x.shape(), w.k(), w.n());
            GpuError::shape("conv", message)
        };
        let &[t, height, width, channels] = x.shape() else { return Err(fail()) };
        let input = [t, height, width];
        let output = geometry.output(input).ok_or_else(fail)?;
        let taps: usize = geometry.kernel.iter().product();
        if taps * channels != w.k() || channels % 4 != 0 || x.is_empty() || x.element_type() != ElementType::F32 {
            return Err(fail());
        }
        let frames = match target {
            Target::Frames { stride, offset, .. } => [stride, offset],
            _ => [1, 0],
        };
        Ok(Self { geometry, input, output, channels: [channels, w.n()], frames })
    }

    fn taps(&self) -> usize {
        self.geometry.kernel.iter().product()
    }

    fn frame_rows(&self) -> usize {
        self.output[1] * self.output[2]
    }

    fn rows(&self) -> usize {
        self.output[0] * self.frame_rows()
    }

    fn check_target(&self, out: &Tensor, target: Target) -> Result<()> {
        let [t, height, width] = self.output;
        let frames = match target {
            Target::Frames { stride, offset, .. } => (t - 1) * stride + offset + 1..=usize::MAX,
            _ => t..=t,
        };
        match *out.shape() {
            [f, h, w, c] if frames.contains(&f) && [h, w, c] == [height, width, self.channels[1]] => Ok(()),
            _ => {
                let message = format!("{:?} does not hold {:?} x {}", out.shape(), self.output, self.channels[1]);
                Err(GpuError::shape("conv", message))
            }
        }
    }

    /// Frames of the input that output frames `first..=last` see.
    fn frames_seen(&self, first: usize, last: usize) -> Range<usize> {
        let [stride, before] = [self.geometry.stride[0], self.geometry.before[0]];
        let end = (last * stride + self.geometry.kernel[0]).saturating_sub(before).clamp(1, self.input[0]);
        (first * stride).saturating_sub(before).min(end - 1)..end
    }

    /// The end of a dispatch that starts at row `first`: after at most `most` rows, and before its
    /// bindings exceed `limit` bytes. A dispatch never ends before some rows of one frame, even if
    /// these exceed the limit: the stream refuses such a dispatch.
    fn end_of_dispatch(&self, first: usize, most: usize, limit: u64) -> usize {
        /// Views start up to this many bytes early.
        const SLACK: u64 = 512;
        let limit = limit.saturating_sub(SLACK);
        let frame = first / self.frame_rows();
        let input_frame = (self.input[1] * self.input[2] * self.channels[0] * 4) as u64;
        let output_frame = (self.frame_rows() * self.channels[1] * self.frames[0] * 4) as u64;
        let fits = |last: &usize| {
            self.frames_seen(frame, *last).len() as u64 * input_frame <= limit
                && (*last + 1 - frame) as u64 * output_frame <= limit
        };
        let last = (frame + 1..self.output[0]).take_while(fits).last().unwrap_or(frame);
        (first + most).min((last + 1) * self.frame_rows())
    }

    fn window_in(&self, x: &Tensor, first: usize, end: usize) -> (Tensor, u32) {
        let frames = self.frames_seen(first / self.frame_rows(), (end - 1) / self.frame_rows());
        let size = self.input[1] * self.input[2] * self.channels[0];
        window_from(x, frames.start * size..frames.end * size)
    }

    fn window_out(&self, out: &Tensor, first: usize, end: usize) -> (Tensor, u32) {
        let place = |row: usize| {
            let frame = row / self.frame_rows() * self.frames[0] + self.frames[1];
            (frame * self.frame_rows() + row % self.frame_rows()) * self.channels[1]
        };
        window_from(out, place(first)..place(end - 1) + self.channels[1])
    }

    /// The parameters that are the same for all dispatches.
    fn params(&self) -> ConvParams {
        let extents = |[t, h, w]: [usize; 3], last: usize| [t as u32, h as u32, w as u32, last as u32];
        ConvParams {
            n4: self.channels[1] as u32 / 4,
            k4: self.channels[0] as u32 / 4,
            input: extents(self.geometry.virtual_input(self.input), self.geometry.upsample.into()),
            output: extents(self.output, 0),
            kernel: extents(self.geometry.kernel, 0),
            stride: extents(self.geometry.stride, 0),
            before: extents(self.geometry.before, 0),
            frames: self.frames.map(|n| n as u32),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests;
