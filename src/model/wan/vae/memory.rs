//! How much memory decoding takes, and when it must be done in tiles.

use super::{Tiling, Vae};
use crate::gpu::Caps;
use crate::model::wan::config::VaeConfig;

/// One resolution of the decoder.
struct Level {
    /// Frames of a chunk, times pixels of a frame.
    positions: usize,
    /// Pixels of a frame.
    pixels: usize,
    /// Channels of its widest activation, padded.
    channels: usize,
    /// Channels of all inputs of convolutions over time.
    remembered: usize,
}

impl VaeConfig {
    /// GPU bytes that decoding frames of height x width pixels needs beside the weights (an estimate from above: activations of all
    /// resolutions, because the pool keeps what was used, and two remembered frames a convolution over time).
    pub fn decode_memory(&self, height: usize, width: usize) -> u64 {
        /// Activations alive at a time: shortcut, input of a convolution with history, its result, and the next one's input.
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
    /// The tiling that decoding frames of height x width pixels needs so that no binding exceeds the device's limit and no more than
    /// `memory` bytes are taken; `None` if the whole frame fits.
    pub fn needed_tiling(&self, caps: &Caps, memory: u64, height: usize, width: usize) -> Option<Tiling> {
        // A convolution reads three frames at once.
        let binding = |level: &Level| 3 * 4 * (level.pixels * level.channels) as u64;
        let largest = self.config.levels(height, width).iter().map(binding).max().unwrap_or(0);
        let fits = largest <= caps.max_binding && self.config.decode_memory(height, width) <= memory;
        (!fits).then(Tiling::default)
    }
}
