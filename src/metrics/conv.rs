//! Convolutions and pooling of feature maps on the CPU.

/// Output channels that are computed together. They fill two AVX registers.
const LANES: usize = 16;
/// Output pixels that are computed together. Their 6 x 16 sums and the operands just fit into the
/// 16 registers of AVX.
const ROWS: usize = 6;
/// Output pixels whose patches are gathered together. A patch has at most 3456 values, so the
/// patches fit into the second-level cache.
const BATCH: usize = 8 * ROWS;

/// Feature maps of several images, `[images, height, width, channels]`.
pub(super) struct Maps {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) values: Vec<f32>,
}

impl Maps {
    /// One image's values.
    pub(super) fn image(&self, index: usize) -> &[f32] {
        let size = self.height * self.width * self.channels;
        &self.values[index * size..][..size]
    }
}

/// Extents of a convolution with a square kernel.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) inputs: usize,
    /// A multiple of 16.
    pub(super) outputs: usize,
}

impl Shape {
    /// Number of values in a patch: kernel x kernel x inputs.
    pub(super) fn patch(self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    /// Height or width after the convolution. The padded input must be at least as large as the
    /// kernel.
    fn reach(self, extent: usize) -> usize {
        (extent + 2 * self.padding - self.kernel) / self.stride + 1
    }
}

/// A convolution with bias and ReLU.
pub(super) struct Convolution {
    shape: Shape,
    /// The weights as `[outputs / LANES, patch, LANES]`.
    panels: Vec<f32>,
    bias: Vec<f32>,
}

impl Convolution {
    /// `weights` are `[kernel, kernel, inputs, outputs]`, `bias` is `[outputs]`.
    pub(super) fn new(shape: Shape, weights: &[f32], bias: Vec<f32>) -> Self {
        debug_assert_eq!((weights.len(), bias.len()), (shape.patch() * shape.outputs, shape.outputs));
        let panel = |lane| weights.chunks_exact(shape.outputs).flat_map(move |row| &row[lane..lane + LANES]);
        let panels = (0..shape.outputs).step_by(LANES).flat_map(panel).copied().collect();
        Self { shape, panels, bias }
    }

    /// Convolves the zero-padded `input` and applies ReLU.
    pub(super) fn run(&self, input: &Maps) -> Maps {
        let (height, width) = (self.shape.reach(input.height), self.shape.reach(input.width));
        let channels = self.shape.outputs;
        let mut values = vec![0.0; input.images * height * width * channels];
        let mut patches = vec![0.0; BATCH * self.shape.patch()];
        for (batch, out) in values.chunks_mut(BATCH * channels).enumerate() {
            let count = out.len() / channels;
            for (i, patch) in patches.chunks_exact_mut(self.shape.patch()).take(count).enumerate() {
                let place = batch * BATCH + i;
                let (image, y, x) = (place / (height * width), place / width % height, place % width);
                self.gather(input, image, y, x, patch);
            }
            self.multiply(&patches, out);
        }
        Maps { images: input.images, height, width, channels, values }
    }

    /// Copies the patch under output pixel (y, x), with zeros outside of the image.
    fn gather(&self, input: &Maps, image: usize, y: usize, x: usize, patch: &mut [f32]) {
        let Shape { kernel, stride, padding, inputs, .. } = self.shape;
        let source = input.image(image);
        let columns = inside(x * stride, kernel, padding, input.width);
        let rows = inside(y * stride, kernel, padding, input.height);
        for (ky, row) in patch.chunks_exact_mut(kernel * inputs).enumerate() {
            if !rows.contains(&ky) {
                row.fill(0.0);
                continue;
            }
            let first = (y * stride + ky - padding) * input.width + x * stride + columns.start - padding;
            let (left, rest) = row.split_at_mut(columns.start * inputs);
            let (middle, right) = rest.split_at_mut(columns.len() * inputs);
            left.fill(0.0);
            middle.copy_from_slice(&source[first * inputs..][..middle.len()]);
            right.fill(0.0);
        }
    }

    /// `out[p, o] = relu(bias[o] + patches[p] . weights[o])`.
    fn multiply(&self, patches: &[f32], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the condition checks that the processor has the features that the function
            // needs.
            return unsafe { self.multiply_avx(patches, out) };
        }
        if cfg!(target_arch = "aarch64") {
            self.multiply_with(patches, out, f32::mul_add);
        } else {
            // Without a fused instruction, mul_add is a slow function call.
            self.multiply_with(patches, out, |a, b, c| a * b + c);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn multiply_avx(&self, patches: &[f32], out: &mut [f32]) {
        self.multiply_with(patches, out, f32::mul_add);
    }

    /// The work of [`Self::multiply`]. It is inlined so that each caller compiles it for its own
    /// instructions.
    #[inline(always)]
    fn multiply_with(&self, patches: &[f32], out: &mut [f32], multiply_add: impl Fn(f32, f32, f32) -> f32 + Copy) {
        let (patch, channels) = (self.shape.patch(), self.shape.outputs);
        for (lane, panel) in self.panels.chunks_exact(patch * LANES).enumerate() {
            let bias = &self.bias[lane * LANES..][..LANES];
            for (block, out) in patches.chunks_exact(ROWS * patch).zip(out.chunks_mut(ROWS * channels)) {
                let sums = block_product(block, panel, multiply_add);
                for (sums, out) in sums.iter().zip(out.chunks_exact_mut(channels)) {
                    for ((out, sum), bias) in out[lane * LANES..].iter_mut().zip(sums).zip(bias) {
                        *out = (sum + bias).max(0.0);
                    }
                }
            }
        }
    }
}

/// The rows (or columns) of the kernel that lie inside an image of `extent`. The kernel's first row
/// is at `start - padding`.
fn inside(start: usize, kernel: usize, padding: usize, extent: usize) -> std::ops::Range<usize> {
    padding.saturating_sub(start)..kernel.min(extent + padding - start)
}

/// The product `[ROWS, patch] x [patch, LANES]`. The sums stay in registers.
#[inline(always)]
fn block_product(
    block: &[f32],
    panel: &[f32],
    multiply_add: impl Fn(f32, f32, f32) -> f32 + Copy,
) -> [[f32; LANES]; ROWS] {
    let patch = panel.len() / LANES;
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &block[row * patch..][..patch]);
    let mut sums = [[0.0; LANES]; ROWS];
    let (weights, _) = panel.as_chunks::<LANES>();
    for (k, weights) in weights.iter().enumerate() {
        for row in 0..ROWS {
            let value = rows[row][k];
            for lane in 0..LANES {
                sums[row][lane] = multiply_add(value, weights[lane], sums[row][lane]);
            }
        }
    }
    sums
}

/// Max pooling with windows of 3 x 3 pixels and a stride of 2. Windows that cross the border are
/// left out. Both sides must have at least 3 pixels.
pub(super) fn max_pool(input: &Maps) -> Maps {
    let (height, width, channels) = ((input.height - 3) / 2 + 1, (input.width - 3) / 2 + 1, input.channels);
    let mut values = vec![f32::NEG_INFINITY; input.images * height * width * channels];
    for (place, out) in values.chunks_exact_mut(channels).enumerate() {
        let (image, y, x) = (place / (height * width), place / width % height, place % width);
        let source = input.image(image);
        for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
            let first = ((2 * y + dy) * input.width + 2 * x + dx) * channels;
            for (out, &value) in out.iter_mut().zip(&source[first..][..channels]) {
                *out = out.max(value);
            }
        }
    }
    Maps { images: input.images, height, width, channels, values }
}
