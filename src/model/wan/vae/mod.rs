//! `AutoencoderKLWan` (Wan-VAE of Wan2.1; Wan team, "Wan: Open and Advanced Large-Scale Video
//! Generative Models", 2025, section 4.1): frames to latents and back, one latent frame at a time,
//! with diffusers' results.
//!
//! ```text
//! Vae ── chunks and normalisation     mod.rs
//!  ├─ tiles with blended borders      tiles.rs
//!  ├─ Decoder, Encoder                decoder.rs, encoder.rs
//!  └─ their blocks, weights, memory   blocks.rs, load.rs, memory.rs
//! ```

mod blocks;
mod decoder;
mod encoder;
mod load;
mod memory;
mod tiles;

use crate::gpu::{Gpu, GpuError, Result, Stream};
use crate::model::ModelError;
use crate::model::family::Latents;
use crate::model::wan::config::VaeConfig;
use crate::weights::Checkpoint;

use blocks::Cache;
use decoder::Decoder;
use encoder::Encoder;
use load::ConvLoader;

pub use tiles::Tiling;

/// Frames of a video on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VideoChunk {
    /// Frames, height, width, channels.
    pub shape: [usize; 4],
    /// Row-major values in [-1, 1].
    pub values: Vec<f32>,
}

/// The autoencoder on a GPU.
pub struct Vae {
    config: VaeConfig,
    decoder: Decoder,
    encoder: Option<Encoder>,
}

impl std::fmt::Debug for Vae {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vae").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Vae {
    /// Reads the weights from a checkpoint with diffusers' names.
    ///
    /// # Errors
    /// [`ModelError::Weights`] if a tensor is missing or of another shape, [`ModelError::Gpu`].
    pub fn load(gpu: &Gpu, checkpoint: &Checkpoint, config: &VaeConfig) -> std::result::Result<Self, ModelError> {
        let encoder = Encoder::load(&ConvLoader { gpu, checkpoint }, config)?;
        Ok(Self { encoder: Some(encoder), ..Self::load_decoder(gpu, checkpoint, config)? })
    }

    /// As [`Vae::load`], but without the encoder, which is nearly half of the weights.
    ///
    /// # Errors
    /// As [`Vae::load`].
    pub fn load_decoder(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        config: &VaeConfig,
    ) -> std::result::Result<Self, ModelError> {
        let decoder = Decoder::load(&ConvLoader { gpu, checkpoint }, config)?;
        Ok(Self { config: config.clone(), decoder, encoder: None })
    }

    /// The configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Decodes normalised latents. `on_chunk` is given the frames in order, clamped to [-1, 1]: 1,
    /// then as many as the temporal compression says for each latent frame. With a tiling (see
    /// [`Vae::needed_tiling`]) all frames are made first, in host memory, where tiles overlap they
    /// are blended, and results differ slightly.
    ///
    /// # Errors
    /// [`GpuError::Shape`] for latents that do not fit; those of the device; what the stream's gate
    /// says; what `on_chunk` returns.
    pub fn decode(
        &self,
        cx: &mut Stream,
        latents: &Latents,
        tiling: Option<Tiling>,
        on_chunk: &mut dyn FnMut(VideoChunk) -> Result<()>,
    ) -> Result<()> {
        let latents = self.denormalised(latents)?;
        let scale = self.config.spatial_compression();
        let tiling = tiling.filter(|tiling| {
            let [_, height, width, _] = latents.shape;
            height * scale > tiling.tile[0] || width * scale > tiling.tile[1]
        });
        match tiling {
            Some(tiling) => self.decode_tiled(cx, &latents, tiling, on_chunk),
            None => self.decode_whole(cx, &latents, &mut |mut frames| {
                clamp(&mut frames.values);
                on_chunk(frames)
            }),
        }
    }

    /// Normalised latents (means of the posterior) of frames in [-1, 1].
    ///
    /// # Errors
    /// [`GpuError::Shape`] unless there are 1 + n * temporal compression frames, whose height and
    /// width are multiples of the spatial compression, and after [`Vae::load_decoder`]; those of
    /// the device; what the stream's gate says.
    pub fn encode(&self, cx: &mut Stream, frames: &VideoChunk) -> Result<Latents> {
        let encoder = self.encoder.as_ref().ok_or_else(|| GpuError::shape("encode", "only the decoder was loaded"))?;
        let [count, height, width, channels] = frames.shape;
        let [time, space] = [self.config.temporal_compression(), self.config.spatial_compression()];
        let fits = count % time == 1 % time && height % space == 0 && width % space == 0;
        if !fits || channels != self.config.in_channels || frames.values.len() != frames.shape.iter().product::<usize>()
        {
            let message = format!(
                "frames {:?}; expected 1 + n x {time} frames, sides that are multiples of {space}, {} channels",
                frames.shape, self.config.in_channels
            );
            return Err(GpuError::shape("encode", message));
        }
        let frame = height * width * channels;
        let latent_frames = 1 + (count.max(1) - 1) / time;
        let mut cache = Cache::default();
        let mut means = Vec::new();
        for chunk in 0..latent_frames {
            let [first, end] = [if chunk == 0 { 0 } else { 1 + time * (chunk - 1) }, 1 + time * chunk];
            let values = frames.values.get(first * frame..end * frame).unwrap_or_default();
            let shape = [end - first, height, width, channels.next_multiple_of(4)];
            let input = cx.upload("frames", &pad(values, channels), &shape)?;
            let mean = encoder.forward(cx, &mut cache, &input)?;
            means.extend(cx.read(&mean)?);
        }
        let shape = [latent_frames, height / space, width / space, self.config.z_dim.next_multiple_of(4)];
        Ok(self.normalised(&means, shape))
    }

    /// Decodes frame by frame; the frames are not clamped.
    fn decode_whole(
        &self,
        cx: &mut Stream,
        latents: &VideoChunk,
        on_chunk: &mut dyn FnMut(VideoChunk) -> Result<()>,
    ) -> Result<()> {
        let [_, height, width, padded] = latents.shape;
        let mut cache = Cache::default();
        for frame in latents.values.chunks(height * width * padded) {
            let input = cx.upload("latents", frame, &[1, height, width, padded])?;
            let output = self.decoder.forward(cx, &mut cache, &input)?;
            let channels = self.config.out_channels;
            let mut shape: [usize; 4] = std::array::from_fn(|axis| output.shape()[axis]);
            let values = unpad(&cx.read(&output)?, shape[3], channels);
            shape[3] = channels;
            drop(output);
            on_chunk(VideoChunk { shape, values })?;
        }
        Ok(())
    }

    /// Normalised latents `[z, f, h, w]` as `[f, h, w, z]` times std plus mean, z padded to a
    /// multiple of 4.
    fn denormalised(&self, latents: &Latents) -> Result<VideoChunk> {
        let Latents { shape, values } = latents;
        let [z, frames, height, width] = *shape;
        if z != self.config.z_dim || values.is_empty() || values.len() != shape.iter().product::<usize>() {
            let message = format!("{} values of latents {shape:?} for {} channels", values.len(), self.config.z_dim);
            return Err(GpuError::shape("decode", message));
        }
        let padded = z.next_multiple_of(4);
        let mut out = vec![0.0; frames * height * width * padded];
        let statistics = self.config.latents_mean.iter().zip(&self.config.latents_std);
        for ((c, plane), (mean, std)) in values.chunks(frames * height * width).enumerate().zip(statistics) {
            for (pixel, value) in out.chunks_mut(padded).zip(plane) {
                pixel[c] = value * std + mean;
            }
        }
        Ok(VideoChunk { shape: [frames, height, width, padded], values: out })
    }

    /// The reverse of [`Vae::denormalised`].
    fn normalised(&self, means: &[f32], shape: [usize; 4]) -> Latents {
        let [frames, height, width, padded] = shape;
        let mut out = Vec::with_capacity(means.len());
        for (c, (mean, std)) in self.config.latents_mean.iter().zip(&self.config.latents_std).enumerate() {
            out.extend(means.chunks(padded).map(|pixel| (pixel[c] - mean) / std));
        }
        Latents { shape: [self.config.z_dim, frames, height, width], values: out }
    }
}

/// Clamps to [-1, 1]. Infinity becomes NaN, so that an overflow does not pass for white or black.
fn clamp(values: &mut [f32]) {
    let clamped = |value: f32| if value.is_finite() { value.clamp(-1.0, 1.0) } else { f32::NAN };
    values.iter_mut().for_each(|value| *value = clamped(*value));
}

/// Pixels of `channels` values padded with zeros to a multiple of 4.
fn pad(values: &[f32], channels: usize) -> Vec<f32> {
    let padded = channels.next_multiple_of(4);
    let mut out = vec![0.0; values.len() / channels * padded];
    for (to, from) in out.chunks_mut(padded).zip(values.chunks(channels)) {
        to[..channels].copy_from_slice(from);
    }
    out
}

/// The first `channels` of each `padded` values.
fn unpad(values: &[f32], padded: usize, channels: usize) -> Vec<f32> {
    values.chunks(padded).flat_map(|pixel| &pixel[..channels]).copied().collect()
}
