//! Convolutions as matrix products whose left side is gathered tap by tap.

use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Result, Stream, Tensor};

use super::matmul::{after, after_bits};
use super::split::window_from;
use super::tune::{Choice, extent_class};
use super::{Activation, HostWeight, Variant, Weight};

/// The geometry of a convolution; extents are (time, height, width).
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

    /// 3 x 3 x 3, extents kept; no frame sees a later one. `history` (at most 2) of the input's first frames are context that
    /// has no output of its own; what is missing to 2 is zero.
    pub const fn causal(history: usize) -> Self {
        Self { kernel: [3, 3, 3], before: [2 - history, 1, 1], after: [0, 1, 1], ..Self::POINT }
    }

    /// Input extents, after upsampling.
    fn virtual_input(&self, [t, h, w]: [usize; 3]) -> [usize; 3] {
        let scale = 1 + usize::from(self.upsample);
        [t, h * scale, w * scale]
    }

    /// Output extents for an input of extents `input`; `None` if the kernel does not fit.
    pub fn output(&self, input: [usize; 3]) -> Option<[usize; 3]> {
        let input = self.virtual_input(input);
        let mut output = [0; 3];
        for axis in 0..3 {
            let room = (input[axis] + self.before[axis] + self.after[axis]).checked_sub(self.kernel[axis])?;
            output[axis] = room.checked_div(self.stride[axis])? + 1;
        }
        Some(output)
    }

    /// The weight of this convolution from a checkpoint's `[out, in, kernel..]` elements; only the output channels from `first`
    /// on, `count` of them (all: `0, out`). Taps are the slower part of the inner extent, channels the faster.
    #[allow(clippy::too_many_arguments)]
    pub fn weight(
        &self,
        gpu: &Gpu,
        what: &str,
        source: &HostWeight,
        [outputs, inputs]: [usize; 2],
        [first, count]: [usize; 2],
        bias: Option<&[f32]>,
    ) -> Result<Weight> {
        let taps: usize = self.kernel.iter().product();
        let size = source.element_type.size() as usize;
        if source.bytes.len() != outputs * inputs * taps * size || first + count > outputs {
            let message = format!("{what} has {} bytes for [{outputs}, {inputs}, {taps}]", source.bytes.len());
            return Err(GpuError::shape("conv weight", message));
        }
        let padded = inputs.next_multiple_of(4);
        let source = pad_inputs(source, inputs * taps * size, padded * taps * size);
        let bias = bias.map(|bias| bias.get(first..first + count).unwrap_or(bias));
        Weight::pack(gpu, what, &source, [taps * padded, count], bias, |k, n| {
            ((first + n) * padded + k % padded) * taps + k / padded
        })
    }
}

/// The same elements with each output's inputs padded with zeros from `from` to `to` bytes.
fn pad_inputs<'a>(source: &'a HostWeight, from: usize, to: usize) -> HostWeight<'a> {
    if from == to {
        return HostWeight { bytes: source.bytes[..].into(), ..*source };
    }
    let mut bytes = Vec::with_capacity(source.bytes.len() / from * to);
    for output in source.bytes.chunks(from) {
        bytes.extend_from_slice(output);
        bytes.resize(bytes.len() + to - output.len(), 0);
    }
    HostWeight { bytes: bytes.into(), ..*source }
}

/// Where a convolution's result goes.
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

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    n4: u32,
    k4: u32,
    gate4: u32,
    scale: f32,
    after: u32,
    first_row: u32,
    x_start4: u32,
    y_start4: u32,
    padding: [u32; 3],
    input: [u32; 4],
    output: [u32; 4],
    kernel: [u32; 4],
    stride: [u32; 4],
    before: [u32; 4],
    frames: [u32; 4],
}

/// The ways to compute a convolution of `n` output channels that are worth measuring, the likeliest first.
pub fn conv_variants(gpu: &Gpu, n: usize) -> Vec<Variant> {
    let (mut tiles, mut others): (Vec<_>, Vec<_>) =
        Variant::available(gpu).into_iter().partition(|variant| matches!(variant, Variant::Tile { .. }));
    // Idle columns, then loads a column: on a CPU whole rows a lane win from 8 to 48 channels, and lose little beyond.
    others.sort_by_key(|variant| match *variant {
        Variant::Rows { columns4, .. } => ((n / 4).next_multiple_of(columns4 as usize), 4 - columns4 as usize),
        _ => (n.next_multiple_of(32) / 4, 4),
    });
    // Workgroup memory is so slow on a CPU that tiles are its last resort.
    let order = if gpu.is_cpu() { [&mut others, &mut tiles] } else { [&mut tiles, &mut others] };
    order.into_iter().flat_map(std::mem::take).collect()
}

/// Convolves `x` `[t, h, w, c]` with a weight from [`Conv::weight`] and applies the activation.
///
/// # Errors
/// [`GpuError::Shape`] if extents do not agree, [`GpuError::BindingTooLarge`] if the frames that one output frame sees exceed
/// the device's binding limit.
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

/// What [`conv`] chooses among: the first of the variants that suit its columns.
pub(super) fn conv_choice<'a>(
    variants: &'a [Variant],
    x: &Tensor,
    w: &Weight,
    geometry: &Conv,
) -> Result<Choice<'a, Variant>> {
    let rows = Plan::new(x, w, geometry, Target::New)?.rows();
    let [m, k, n] = [rows, w.k(), w.n()].map(extent_class);
    // Where lanes of a subgroup share their loads (CPUs), the first won all shapes, and others take half a second to compile.
    let tried = if matches!(variants[0], Variant::Tile { .. }) { 2 } else { 1 };
    Ok(Choice {
        class: format!("conv {:?} {m}x{k}x{n}", w.matrix.element_type()),
        available: variants,
        candidates: &variants[..tried.min(variants.len())],
        flops: 2.0 * rows as f64 * w.k() as f64 * w.n() as f64,
    })
}

/// [`conv`] by a given variant.
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
    let kernel = variant.kernel(w.matrix.element_type()).flag("CONV");
    let residual = if matches!(target, Target::AddTo(_)) { after::RESIDUAL } else { 0 };
    let after = after_bits(w, activation) | residual;
    let [tile_rows, tile_columns4] = variant.tile();
    // Whole tiles run: three colours cost as much as all of a tile's columns.
    let columns = w.n().next_multiple_of(4 * tile_columns4);
    let row_flops = 2.0 * plan.taps() as f64 * x.columns() as f64 * columns as f64;
    let mut first = 0;
    while first < plan.rows() {
        // WebGPU's limit on workgroups of one dimension, and the time limit.
        let most = (cx.dispatch_budget() / row_flops / tile_rows as f64).clamp(1.0, 65_535.0) as usize * tile_rows;
        let end = plan.end_of_dispatch(first, most, cx.gpu().caps().max_binding);
        let [read, written] = [plan.window_in(x, first, end), plan.window_out(&out, first, end)];
        let params = Params { after, ..plan.params(w, first, end, [read.1, written.1]) };
        // No gates and no factors follow: the weights stand in for them.
        let bias = w.bias.as_ref().unwrap_or(&w.matrix);
        cx.dispatch(&Dispatch {
            kernel: &kernel,
            tensors: &[(1, &read.0), (2, &w.matrix), (3, &written.0), (4, bias), (5, &w.matrix), (6, &w.matrix)],
            params: bytemuck::bytes_of(&params),
            groups: variant.groups(end - first, w.n() / 4),
            flops: row_flops * (end - first) as f64,
        })?;
        first = end;
    }
    Ok(out)
}

/// A convolution with all its extents.
struct Plan<'a> {
    geometry: &'a Conv,
    input: [usize; 3],
    output: [usize; 3],
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
    fn frames_seen(&self, first: usize, last: usize) -> std::ops::Range<usize> {
        let [stride, before] = [self.geometry.stride[0], self.geometry.before[0]];
        let end = (last * stride + self.geometry.kernel[0]).saturating_sub(before).clamp(1, self.input[0]);
        (first * stride).saturating_sub(before).min(end - 1)..end
    }

    /// Where a dispatch from row `first` must end: at most `most` rows on, and where its bindings would exceed `limit` bytes. At
    /// least some rows of one frame are always taken; the stream refuses them if they are too much.
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

    fn params(&self, w: &Weight, first: usize, end: usize, [x_start4, y_start4]: [u32; 2]) -> Params {
        let extents = |[t, h, w]: [usize; 3], last: usize| [t as u32, h as u32, w as u32, last as u32];
        Params {
            m: end as u32,
            n4: self.channels[1] as u32 / 4,
            k4: self.channels[0] as u32 / 4,
            gate4: 0,
            scale: w.scale,
            after: 0,
            first_row: first as u32,
            x_start4,
            y_start4,
            padding: [0; 3],
            input: extents(self.geometry.virtual_input(self.input), self.geometry.upsample.into()),
            output: extents(self.output, 0),
            kernel: extents(self.geometry.kernel, 0),
            stride: extents(self.geometry.stride, 0),
            before: extents(self.geometry.before, 0),
            frames: [self.frames[0] as u32, self.frames[1] as u32, 0, 0],
        }
    }
}

#[cfg(test)]
#[path = "conv_tests.rs"]
mod tests;
