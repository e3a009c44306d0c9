//! The memory that decoding takes, and the decision to decode in tiles.

use super::{Tiling, Vae};
use crate::gpu::Caps;
use crate::model::wan::config::VaeConfig;

/// One resolution of the decoder.
struct Level {
    /// Number of frames of a chunk times number of pixels of a frame.
    positions: usize,
    /// Number of pixels of a frame.
    pixels: usize,
    /// Channels of the widest activation, padded.
    channels: usize,
    /// Channels of all inputs of convolutions over time together.
    remembered: usize,
}

impl VaeConfig {
    /// Estimates the bytes of GPU memory that decoding frames of height x width pixels needs in
    /// addition to the weights. The estimate is an upper limit. It includes the activations of all
    /// resolutions, because the pool keeps used memory, and two remembered frames for each
    /// convolution over time.
    pub fn decode_memory(&self, height: usize, width: usize) -> u64 {
        /// Number of activations alive at the same time: the shortcut, a convolution's input with
        /// history, its result, and the next convolution's input.
        const ALIVE: usize = 4;
        let bytes = |level: &Level| {
            let working = ALIVE * (level.positions + 2 * level.pixels) * level.channels;
            let remembered = 2 * level.pixels * level.remembered;
            4 * (working + remembered) as u64
        };
        self.levels(height, width).iter().map(bytes).sum()
    }

    fn levels(&self, height: usize, width: usize) -> Vec<Level> {
        let blocks = self.up_blocks();
        let mut frames = 1;
        let mut levels = Vec::new();
        for (i, block) in blocks.iter().enumerate() {
            let below = blocks.len() - 1 - i;
            let pixels = (height >> below) * (width >> below);
            let convs = 2 * block.resnets + usize::from(block.upsample == Some(true)) + 4 * usize::from(i == 0) + 1;
            levels.push(Level {
                positions: frames * pixels,
                pixels,
                channels: block.input.max(block.output).next_multiple_of(4),
                remembered: convs * block.output.next_multiple_of(4),
            });
            frames *= 1 + usize::from(block.upsample == Some(true));
        }
        levels
    }
}

impl Vae {
    /// The tiling for decoding frames of height x width pixels. With it no binding exceeds the
    /// device's limit, and at most `memory` bytes are used. `None` if the whole frame fits.
    pub fn needed_tiling(&self, caps: &Caps, memory: u64, height: usize, width: usize) -> Option<Tiling> {
        // A convolution binds three frames at once.
        let binding = |level: &Level| 3 * 4 * (level.pixels * level.channels) as u64;
        let largest = self.config.levels(height, width).iter().map(binding).max().unwrap_or(0);
        let fits = largest <= caps.max_binding && self.config.decode_memory(height, width) <= memory;
        (!fits).then(Tiling::default)
    }
}
