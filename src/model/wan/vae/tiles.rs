//! Decodes in tiles and blends their overlaps linearly, like diffusers' `tiled_decode`.

use super::{Vae, VideoChunk, clamp};
use crate::gpu::{GpuError, Result, Stream};

/// Sizes and distances of tiles, in pixels of the video (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Height and width of a tile.
    pub tile: [usize; 2],
    /// Distance of neighbouring tiles. Tiles overlap by the difference between their size and their
    /// distance.
    pub stride: [usize; 2],
}

impl Default for Tiling {
    /// diffusers' defaults.
    fn default() -> Self {
        Self { tile: [256; 2], stride: [192; 2] }
    }
}

impl Vae {
    /// Decodes latents `[f, h, w, z]` tile by tile and then passes the frames to `on_chunk`. Each
    /// tile has its own memory of earlier frames.
    pub(super) fn decode_tiled(
        &self,
        cx: &mut Stream,
        latents: &VideoChunk,
        tiling: Tiling,
        on_chunk: &mut dyn FnMut(VideoChunk) -> Result<()>,
    ) -> Result<()> {
        let scale = self.config.spatial_compression();
        let [tile, stride] = [tiling.tile, tiling.stride].map(|sides| sides.map(|side| side / scale));
        if stride.contains(&0) || (0..2).any(|axis| tile[axis] < stride[axis]) {
            return Err(GpuError::shape("decode", format!("{tiling:?} with tiles of {scale} pixels a latent")));
        }
        let [frames, height, width, _] = latents.shape;
        let time = self.config.temporal_compression();
        let shape = [1 + (frames - 1) * time, height * scale, width * scale, self.config.out_channels];
        let mut video = VideoChunk { shape, values: vec![0.0; shape.iter().product()] };
        let overlap = [0, 1].map(|axis| tiling.tile[axis] - stride[axis] * scale);
        let mut above: Vec<VideoChunk> = Vec::new();
        for top in (0..height).step_by(stride[0]) {
            let mut row: Vec<VideoChunk> = Vec::new();
            for (column, left) in (0..width).step_by(stride[1]).enumerate() {
                let part = latents.cut([top, left], [tile[0].min(height - top), tile[1].min(width - left)]);
                let mut decoded = VideoChunk::default();
                self.decode_whole(cx, &part, &mut |chunk| {
                    decoded.append(chunk);
                    Ok(())
                })?;
                if let Some(above) = above.get(column) {
                    decoded.blend(above, 0, overlap[0]);
                }
                if let Some(left) = row.last() {
                    decoded.blend(left, 1, overlap[1]);
                }
                video.paste(&decoded, [top * scale, left * scale], stride.map(|side| side * scale));
                row.push(decoded);
            }
            above = row;
        }
        clamp(&mut video.values);
        let frame: usize = shape[1..].iter().product();
        let mut first = 0;
        while first < shape[0] {
            let count = if first == 0 { 1 } else { time };
            let values = video.values[first * frame..(first + count) * frame].to_vec();
            on_chunk(VideoChunk { shape: [count, shape[1], shape[2], shape[3]], values })?;
            first += count;
        }
        Ok(())
    }
}

impl VideoChunk {
    /// Appends frames.
    fn append(&mut self, mut next: VideoChunk) {
        let before = self.shape[0];
        self.shape = next.shape;
        self.shape[0] += before;
        self.values.append(&mut next.values);
    }

    /// The range of the values of `count` pixels that start at a position.
    fn span(&self, [t, y, x]: [usize; 3], count: usize) -> std::ops::Range<usize> {
        let [_, height, width, channels] = self.shape;
        let first = ((t * height + y) * width + x) * channels;
        first..first + count * channels
    }

    /// Cuts a rectangle out of every frame.
    fn cut(&self, [top, left]: [usize; 2], [height, width]: [usize; 2]) -> VideoChunk {
        let mut values = Vec::with_capacity(self.shape[0] * height * width * self.shape[3]);
        for t in 0..self.shape[0] {
            for y in top..top + height {
                values.extend_from_slice(&self.values[self.span([t, y, left], width)]);
            }
        }
        VideoChunk { shape: [self.shape[0], height, width, self.shape[3]], values }
    }

    /// Overwrites the rectangle at a position with the first rows and columns of `tile`, at most
    /// `sides` of them.
    fn paste(&mut self, tile: &VideoChunk, [top, left]: [usize; 2], sides: [usize; 2]) {
        let [height, width] = [0, 1].map(|axis| sides[axis].min(tile.shape[1 + axis]));
        for t in 0..self.shape[0] {
            for y in 0..height {
                let to = self.span([t, top + y, left], width);
                self.values[to].copy_from_slice(&tile.values[tile.span([t, y, 0], width)]);
            }
        }
    }

    /// Blends the first `extent` rows (axis 0) or columns (axis 1) of this tile with the last ones
    /// of `before`.
    fn blend(&mut self, before: &VideoChunk, axis: usize, extent: usize) {
        let extent = extent.min(before.shape[1 + axis]).min(self.shape[1 + axis]);
        let shift = before.shape[1 + axis] - extent;
        let mut sides = [self.shape[1], self.shape[2]];
        sides[axis] = extent;
        for t in 0..self.shape[0] {
            for y in 0..sides[0] {
                for x in 0..sides[1] {
                    let there = if axis == 0 { [t, y + shift, x] } else { [t, y, x + shift] };
                    let weight = [y, x][axis] as f32 / extent as f32;
                    let (here, there) = (self.span([t, y, x], 1), before.span(there, 1));
                    for (new, old) in self.values[here].iter_mut().zip(&before.values[there]) {
                        *new = old * (1.0 - weight) + *new * weight;
                    }
                }
            }
        }
    }
}
