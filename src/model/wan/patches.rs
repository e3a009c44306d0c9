//! Converts latents to the rows of the transformer, with one patch for each token, and back. The
//! conversion runs on the CPU, where the sampler's latents are. There it is one pass through
//! memory, whereas the GPU would need one dispatch for each step and another for each branch.

use crate::gpu::GpuError;

/// The division of latents into patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// Extents of the latents: frames, height, width.
    extents: [usize; 3],
    /// Extents of a patch.
    patch: [usize; 3],
}

impl Patches {
    /// The patches of latents with these extents (frames, height, width).
    ///
    /// # Errors
    /// [`GpuError::Shape`] if the patch does not divide the latents.
    pub fn new(extents: [usize; 3], patch: [usize; 3]) -> Result<Self, GpuError> {
        let divides =
            (0..3).all(|axis| patch[axis] > 0 && extents[axis] > 0 && extents[axis].is_multiple_of(patch[axis]));
        let message = || format!("latents {extents:?} are not multiples of the patch {patch:?}");
        if divides { Ok(Self { extents, patch }) } else { Err(GpuError::shape("patches", message())) }
    }

    /// Number of tokens along frames, height and width.
    pub fn grid(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.extents[axis] / self.patch[axis])
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.grid().iter().product()
    }

    /// Converts latents `[channels, frames, height, width]` to rows `[tokens, row]`. Tokens are
    /// ordered by frame, line and column. A row is ordered (channel, pt, ph, pw), like the weights
    /// of the model's patch embedding, and padded with zeros to a multiple of 4.
    pub fn rows_of(&self, latents: &[f32], channels: usize) -> Result<Vec<f32>, GpuError> {
        self.check("latents", latents.len(), channels * self.extents.iter().product::<usize>())?;
        let volume: usize = self.patch.iter().product();
        let row = (channels * volume).next_multiple_of(4);
        let mut rows = vec![0.0; self.tokens() * row];
        self.for_each(channels, |cell, token, channel, within| {
            rows[token * row + channel * volume + within] = latents[cell];
        });
        Ok(rows)
    }

    /// Converts rows `[tokens, row]` to latents `[channels, frames, height, width]`. Each row is
    /// ordered (pt, ph, pw, channel), as the model's last layer writes it.
    pub fn latents_of(&self, rows: &[f32], channels: usize) -> Result<Vec<f32>, GpuError> {
        let row = (channels * self.patch.iter().product::<usize>()).next_multiple_of(4);
        self.check("rows", rows.len(), self.tokens() * row)?;
        let mut latents = vec![0.0; channels * self.extents.iter().product::<usize>()];
        self.for_each(channels, |cell, token, channel, within| {
            latents[cell] = rows[token * row + within * channels + channel];
        });
        Ok(latents)
    }

    fn check(&self, what: &str, found: usize, wanted: usize) -> Result<(), GpuError> {
        let message = || format!("{found} values of {what} for {:?}, not {wanted}", self.extents);
        if found == wanted { Ok(()) } else { Err(GpuError::shape("patches", message())) }
    }

    /// Calls `visit` for every cell of the latents with the cell's index, its token, its channel,
    /// and its index within the patch.
    fn for_each(&self, channels: usize, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let [frames, height, _] = self.extents;
        let ([pt, ph, pw], [_, grid_height, grid_width]) = (self.patch, self.grid());
        let mut cell = 0;
        for channel in 0..channels {
            for (t, y) in (0..frames).flat_map(|t| (0..height).map(move |y| (t, y))) {
                let line = (t / pt * grid_height + y / ph) * grid_width;
                let within = (t % pt * ph + y % ph) * pw;
                for (x, px) in (0..grid_width).flat_map(|x| (0..pw).map(move |px| (x, px))) {
                    visit(cell, line + x, channel, within + px);
                    cell += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_order_of_the_model() {
        // Two channels of one frame with 2 x 4 cells make two tokens.
        let patches = Patches::new([1, 2, 4], [1, 2, 2]).unwrap();
        let latents: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let rows = patches.rows_of(&latents, 2).unwrap();
        assert_eq!(rows, [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15].map(|v| v as f32));
        let out = [0, 8, 1, 9, 4, 12, 5, 13, 2, 10, 3, 11, 6, 14, 7, 15].map(|v| v as f32);
        assert_eq!(patches.latents_of(&out, 2).unwrap(), latents);
    }

    #[test]
    fn both_directions_are_right_for_patches_that_touch_every_axis() {
        for (channels, extents, patch) in
            [(5, [3, 4, 6], [1, 2, 2]), (3, [2, 3, 5], [1, 1, 1]), (2, [4, 6, 9], [2, 3, 3])]
        {
            let patches = Patches::new(extents, patch).unwrap();
            let volume: usize = patch.iter().product();
            let latents: Vec<f32> = (0..channels * extents.iter().product::<usize>()).map(|v| v as f32).collect();
            let rows = patches.rows_of(&latents, channels).unwrap();
            let row = rows.len() / patches.tokens();
            assert!(row.is_multiple_of(4) && row - channels * volume < 4);
            let [_, height, width] = extents;
            let [_, grid_height, grid_width] = patches.grid();
            let [pt, ph, pw] = patch;
            for (i, value) in latents.iter().enumerate() {
                let [x, y, t, c] = [
                    i % width,
                    i / width % height,
                    i / (width * height) % extents[0],
                    i / extents.iter().product::<usize>(),
                ];
                let token = (t / pt * grid_height + y / ph) * grid_width + x / pw;
                let within = (t % pt * ph + y % ph) * pw + x % pw;
                assert_eq!(rows[token * row + c * volume + within], *value, "{extents:?} at {i}");
            }
            let mut back = rows.clone();
            for (to, from) in back.chunks_mut(row).zip(rows.chunks(row)) {
                for (channel, within) in (0..channels).flat_map(|c| (0..volume).map(move |w| (c, w))) {
                    to[within * channels + channel] = from[channel * volume + within];
                }
            }
            assert_eq!(patches.latents_of(&back, channels).unwrap(), latents, "{extents:?}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(Patches::new([1, 3, 4], [1, 2, 2]).is_err());
        assert!(Patches::new([1, 0, 4], [1, 2, 2]).is_err());
        assert!(Patches::new([1, 4, 4], [1, 0, 2]).is_err());
        let patches = Patches::new([1, 2, 2], [1, 2, 2]).unwrap();
        assert!(patches.rows_of(&[0.0; 5], 1).is_err());
        assert!(patches.latents_of(&[0.0; 5], 1).is_err());
    }
}
