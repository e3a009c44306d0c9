//! The encoder, diffusers' `WanEncoder3d`.

use super::blocks::{Cache, MidBlock, NormConv, ResidualBlock, causal};
use super::load::ConvLoader;
use crate::gpu::{Result, Stream, Tensor};
use crate::model::ModelError;
use crate::model::wan::config::{DownLayer as DownLayerConfig, VaeConfig};
use crate::ops::{Activation, Conv, Target, Weight, conv};

/// A 3 x 3 convolution with stride 2, padded with zeros only on the right and below.
const HALVE: Conv = Conv { stride: [1, 2, 2], before: [0; 3], after: [0, 1, 1], ..Conv::PLANE };

/// A convolution with three taps over time and stride 2, without padding.
const HALVE_TIME: Conv = Conv { kernel: [3, 1, 1], stride: [2, 1, 1], ..Conv::POINT };

/// Encodes one frame first, then chunks of as many frames as the temporal compression.
pub(super) struct Encoder {
    conv_in: Weight,
    down_blocks: Vec<DownLayer>,
    mid_block: MidBlock,
    out: NormConv,
    /// The half of the convolution that gives the means.
    quant_conv: Weight,
}

impl Encoder {
    pub(super) fn load(loader: &ConvLoader, config: &VaeConfig) -> std::result::Result<Self, ModelError> {
        let z = config.z_dim;
        let top = config.top_dim(config.base_dim);
        let layers = config.down_layers().into_iter().enumerate();
        Ok(Self {
            conv_in: loader.cube("encoder.conv_in", config.base_dim, config.in_channels)?,
            down_blocks: layers
                .map(|(i, layer)| DownLayer::load(loader, &format!("encoder.down_blocks.{i}"), layer))
                .collect::<std::result::Result<_, _>>()?,
            mid_block: MidBlock::load(loader, "encoder.mid_block", top)?,
            out: NormConv::load(loader, ["encoder.norm_out", "encoder.conv_out"], 2 * z, top)?,
            quant_conv: loader.conv("quant_conv", &Conv::POINT, &[1; 3], [2 * z, 2 * z], 0..z)?,
        })
    }

    /// The mean of the posterior `[1, h, w, z]` of one chunk of frames
    /// `[t, height, width, channels]`, with z padded to a multiple of 4.
    pub(super) fn forward(&self, cx: &mut Stream, cache: &mut Cache, frames: &Tensor) -> Result<Tensor> {
        let mut x = causal(cx, cache, frames, &self.conv_in)?;
        for layer in &self.down_blocks {
            x = layer.forward(cx, cache, x)?;
        }
        x = self.mid_block.forward(cx, cache, x)?;
        x = self.out.forward(cx, cache, &x, Target::New)?;
        cache.end_chunk();
        conv(cx, &x, &self.quant_conv, &Conv::POINT, Activation::None, Target::New)
    }
}

/// One entry of diffusers' `down_blocks`.
enum DownLayer {
    Resnet(ResidualBlock),
    /// diffusers' `WanResample` in the mode `downsample2d`, or in the mode `downsample3d` with
    /// weights over time.
    Downsample {
        resample: Weight,
        time_conv: Option<Weight>,
    },
}

impl DownLayer {
    fn load(loader: &ConvLoader, name: &str, config: DownLayerConfig) -> std::result::Result<Self, ModelError> {
        match config {
            DownLayerConfig::Resnet { input, output } => {
                Ok(Self::Resnet(ResidualBlock::load(loader, name, input, output)?))
            }
            DownLayerConfig::Downsample { dim, temporal } => {
                let load = |what: &str, geometry: &Conv, kernel: &[usize]| {
                    loader.conv(&format!("{name}.{what}"), geometry, kernel, [dim; 2], 0..dim)
                };
                let time_conv = temporal.then(|| load("time_conv", &HALVE_TIME, &[3, 1, 1]));
                Ok(Self::Downsample {
                    resample: load("resample.1", &HALVE, &[3; 2])?,
                    time_conv: time_conv.transpose()?,
                })
            }
        }
    }

    fn forward(&self, cx: &mut Stream, cache: &mut Cache, x: Tensor) -> Result<Tensor> {
        let (resample, time_conv) = match self {
            Self::Resnet(block) => return block.forward(cx, cache, x),
            Self::Downsample { resample, time_conv } => (resample, time_conv),
        };
        let x = conv(cx, &x, resample, &HALVE, Activation::None, Target::New)?;
        let Some(time_conv) = time_conv else { return Ok(x) };
        let first = cache.is_first_chunk();
        let (all, _) = cache.append(cx, &x, 1)?;
        // The video's first frame is not merged with others.
        if first { Ok(x) } else { conv(cx, &all, time_conv, &HALVE_TIME, Activation::None, Target::New) }
    }
}
