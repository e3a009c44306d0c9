//! Shows latents as colours, by a linear map from the channels of a latent cell to RGB.

use std::path::Path;

use serde::Deserialize;

use super::defaults::read_if_there;
use super::{EngineError, Frames};

/// The map `rgb = latents factors + bias` for normalised latents, with rgb in [-1, 1].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PreviewMap {
    /// One row of three factors for each channel.
    factors: Vec<[f32; 3]>,
    bias: [f32; 3],
}

impl PreviewMap {
    /// Reads the map in the model's folder, `preview.json`:
    /// `{"factors": [[r, g, b], ...], "bias": [r, g, b]}`. Without this file the map shows the
    /// first three channels, where shapes are visible but colours have no meaning.
    ///
    /// # Errors
    /// [`EngineError::Request`] if the file is not a map for `channels` channels.
    pub fn of_model(folder: &Path, channels: usize) -> Result<Self, EngineError> {
        let path = folder.join("preview.json");
        let Some(text) = read_if_there(&path)? else { return Ok(Self::plain(channels)) };
        let map: Self = serde_json::from_str(&text)
            .map_err(|error| EngineError::Request(format!("{} holds no preview map: {error}", path.display())))?;
        if map.factors.len() != channels {
            let message = format!("{} maps {} channels, the model has {channels}", path.display(), map.factors.len());
            return Err(EngineError::Request(message));
        }
        Ok(map)
    }

    fn plain(channels: usize) -> Self {
        let row = |channel| std::array::from_fn(|colour| if colour == channel { 0.4 } else { 0.0 });
        Self { factors: (0..channels).map(row).collect(), bias: [0.0; 3] }
    }

    /// Latents `[channels, frames, height, width]` as 8-bit frames.
    pub fn frames(&self, latents: &[f32], [_, count, height, width]: [usize; 4]) -> Frames {
        let (cells, frame) = (count * height * width, height * width);
        let colour = |cell: usize, rgb: usize| {
            let channels = self.factors.iter().enumerate();
            let value = channels.fold(self.bias[rgb], |sum, (c, row)| sum + row[rgb] * latents[c * cells + cell]);
            ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
        };
        let one =
            |t: usize| (t * frame..(t + 1) * frame).flat_map(|cell| [0, 1, 2].map(|rgb| colour(cell, rgb))).collect();
        Frames { width, height, frames: (0..count).map(one).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_map() {
        let map = PreviewMap { factors: vec![[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]], bias: [0.0, 0.0, -1.0] };
        let frames = map.frames(&[1.0, -1.0, 0.0, 1.0], [2, 1, 1, 2]);
        assert_eq!(frames.frames, [vec![255, 128, 0, 0, 191, 0]]);
    }

    #[test]
    fn a_wrong_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(PreviewMap::of_model(dir.path(), 16).is_ok());
        for text in
            ["{", "{\"factors\": [[1, 2]], \"bias\": [0, 0, 0]}", "{\"factors\": [[1, 2, 3]], \"bias\": [0, 0, 0]}"]
        {
            std::fs::write(dir.path().join("preview.json"), text).unwrap();
            assert!(PreviewMap::of_model(dir.path(), 16).is_err(), "{text}");
        }
    }
}
