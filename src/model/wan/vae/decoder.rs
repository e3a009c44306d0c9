//! The decoder, diffusers' `WanDecoder3d`.

use super::blocks::{Cache, HISTORY, MidBlock, NormConv, ResidualBlock, causal};
use super::load::ConvLoader;
use crate::gpu::{ElementType, Result, Stream, Tensor};
use crate::model::ModelError;
use crate::model::wan::config::{UpBlock as UpBlockConfig, VaeConfig};
use crate::ops::{Activation, Conv, Target, Weight, conv, mark};

/// A convolution with three taps over time, after `history` remembered frames.
const fn over_time(history: usize) -> Conv {
    Conv { kernel: [3, 1, 1], before: [HISTORY - history, 0, 0], ..Conv::POINT }
}

/// Doubles height and width, then a 3 x 3 convolution.
const DOUBLE: Conv = Conv { upsample: true, ..Conv::PLANE };

/// Decodes one latent frame at a time.
pub(super) struct Decoder {
    post_quant_conv: Weight,
    conv_in: Weight,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    out: NormConv,
}

impl Decoder {
    pub(super) fn load(loader: &ConvLoader, config: &VaeConfig) -> std::result::Result<Self, ModelError> {
        let z = config.z_dim;
        let top = config.top_dim(config.decoder_base_dim);
        let bottom = config.up_blocks().last().map_or(top, |block| block.output);
        let blocks = config.up_blocks().into_iter().enumerate();
        Ok(Self {
            post_quant_conv: loader.point("post_quant_conv", z, z)?,
            conv_in: loader.cube("decoder.conv_in", top, z)?,
            mid_block: MidBlock::load(loader, "decoder.mid_block", top)?,
            up_blocks: blocks
                .map(|(i, block)| UpBlock::load(loader, &format!("decoder.up_blocks.{i}"), block))
                .collect::<std::result::Result<_, _>>()?,
            out: NormConv::load(loader, ["decoder.norm_out", "decoder.conv_out"], config.out_channels, bottom)?,
        })
    }

    /// The frames of one latent frame `[1, h, w, z]`, not clamped. The first latent frame gives one
    /// frame, each later one as many as the temporal compression. The last extent is the number of
    /// channels, padded to a multiple of 4.
    pub(super) fn forward(&self, cx: &mut Stream, cache: &mut Cache, latents: &Tensor) -> Result<Tensor> {
        let x = conv(cx, latents, &self.post_quant_conv, &Conv::POINT, Activation::None, Target::New)?;
        let frame = cache.chunk();
        let at = |part: &str| format!("latent frame {frame}, {part}");
        let mut x = causal(cx, cache, &x, &self.conv_in)?;
        mark(cx, || at("the first convolution"), &x)?;
        x = self.mid_block.forward(cx, cache, x)?;
        mark(cx, || at("the middle block"), &x)?;
        for (index, block) in self.up_blocks.iter().enumerate() {
            x = block.forward(cx, cache, x)?;
            mark(cx, || at(&format!("up block {index}")), &x)?;
        }
        let frames = self.out.forward(cx, cache, &x, Target::New)?;
        mark(cx, || at("the last convolution"), &frames)?;
        cache.end_chunk();
        Ok(frames)
    }
}

/// diffusers' `WanUpBlock`.
struct UpBlock {
    resnets: Vec<ResidualBlock>,
    upsampler: Option<Upsampler>,
}

impl UpBlock {
    fn load(loader: &ConvLoader, name: &str, config: UpBlockConfig) -> std::result::Result<Self, ModelError> {
        let resnet = |i: usize| {
            let input = if i == 0 { config.input } else { config.output };
            ResidualBlock::load(loader, &format!("{name}.resnets.{i}"), input, config.output)
        };
        let upsampler = config
            .upsample
            .map(|temporal| Upsampler::load(loader, &format!("{name}.upsamplers.0"), config.output, temporal));
        Ok(Self {
            resnets: (0..config.resnets).map(resnet).collect::<std::result::Result<_, _>>()?,
            upsampler: upsampler.transpose()?,
        })
    }

    fn forward(&self, cx: &mut Stream, cache: &mut Cache, mut x: Tensor) -> Result<Tensor> {
        for resnet in &self.resnets {
            x = resnet.forward(cx, cache, x)?;
        }
        match &self.upsampler {
            Some(upsampler) => upsampler.forward(cx, cache, x),
            None => Ok(x),
        }
    }
}

/// diffusers' `WanResample` in the mode `upsample2d`, or in the mode `upsample3d` with weights over
/// time.
struct Upsampler {
    /// The halves of `time_conv`, for the earlier and the later of each two frames.
    time_conv: Option<[Weight; 2]>,
    resample: Weight,
}

impl Upsampler {
    fn load(loader: &ConvLoader, name: &str, dim: usize, temporal: bool) -> std::result::Result<Self, ModelError> {
        let half = |i: usize| {
            let time_conv = format!("{name}.time_conv");
            loader.conv(&time_conv, &over_time(0), &[3, 1, 1], [2 * dim, dim], i * dim..(i + 1) * dim)
        };
        let channels = [dim / 2, dim];
        Ok(Self {
            time_conv: if temporal { Some([half(0)?, half(1)?]) } else { None },
            resample: loader.conv(&format!("{name}.resample.1"), &DOUBLE, &[3; 2], channels, 0..channels[0])?,
        })
    }

    fn forward(&self, cx: &mut Stream, cache: &mut Cache, mut x: Tensor) -> Result<Tensor> {
        if let Some(halves) = &self.time_conv {
            x = self.double_time(cx, cache, x, halves)?;
        }
        conv(cx, &x, &self.resample, &DOUBLE, Activation::None, Target::New)
    }

    /// Turns each frame into two. The video's first frame stays one frame and is not remembered.
    fn double_time(&self, cx: &mut Stream, cache: &mut Cache, x: Tensor, halves: &[Weight; 2]) -> Result<Tensor> {
        if cache.is_first_chunk() {
            cache.skip();
            return Ok(x);
        }
        let (all, history) = cache.append(cx, &x, HISTORY)?;
        let shape = [&[2 * x.shape()[0]], &x.shape()[1..]].concat();
        drop(x);
        let doubled = cx.empty("doubled", &shape, ElementType::F32)?;
        for (offset, weight) in halves.iter().enumerate() {
            let target = Target::Frames { tensor: &doubled, stride: 2, offset };
            conv(cx, &all, weight, &over_time(history), Activation::None, target)?;
        }
        Ok(doubled)
    }
}
