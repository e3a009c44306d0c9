//! The file `vae/config.json`.

use super::{ExpectedTensors, check_sizes, parse, push_biased, require, shape};
use crate::model::ModelError;
use crate::weights::Checkpoint;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Configuration of diffusers' `AutoencoderKLWan` for Wan2.1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VaeConfig {
    /// Channels of the encoder at full resolution.
    pub base_dim: usize,
    /// Channels of the decoder at full resolution.
    pub decoder_base_dim: usize,
    /// Channels of the latents.
    pub z_dim: usize,
    /// Channels of each level divided by the base, starting at full resolution.
    pub dim_mult: Vec<usize>,
    /// Number of residual blocks in each level of the encoder. The levels of the decoder have one
    /// more.
    pub num_res_blocks: usize,
    /// Whether time is also halved between a level and the next level. The spelling is diffusers'.
    pub temperal_downsample: Vec<bool>,
    /// Mean of each latent channel, which is subtracted for the transformer.
    pub latents_mean: Vec<f32>,
    /// Standard deviation of each latent channel, by which the difference is divided.
    pub latents_std: Vec<f32>,
    /// Channels of an input video.
    pub in_channels: usize,
    /// Channels of an output video.
    pub out_channels: usize,
}

/// One entry of the flat list `encoder.down_blocks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownLayer {
    /// A residual block.
    Resnet {
        /// Input channels.
        input: usize,
        /// Output channels. The block has a `conv_shortcut` if they differ from the input channels.
        output: usize,
    },
    /// Halves rows and columns.
    Downsample {
        /// Input and output channels.
        dim: usize,
        /// Whether a `time_conv` also halves time.
        temporal: bool,
    },
}

/// One entry of `decoder.up_blocks`: residual blocks and then an upsampler, except in the last
/// entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpBlock {
    /// Input channels of the first residual block.
    pub input: usize,
    /// Output channels of every residual block.
    pub output: usize,
    /// Number of residual blocks.
    pub resnets: usize,
    /// The upsampler, which doubles rows and columns and halves the channels. `Some(true)` first
    /// doubles time.
    pub upsample: Option<bool>,
}

/// diffusers' name of the VAE.
const CLASS: &str = "AutoencoderKLWan";
/// More levels than any model has.
const MOST_LEVELS: usize = 8;
const MOST_RESNETS: usize = 16;

#[derive(Deserialize)]
#[serde(default)]
struct Diffusers {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    base_dim: usize,
    decoder_base_dim: Option<usize>,
    z_dim: usize,
    dim_mult: Vec<usize>,
    num_res_blocks: usize,
    attn_scales: Vec<f64>,
    temperal_downsample: Vec<bool>,
    latents_mean: Vec<f32>,
    latents_std: Vec<f32>,
    is_residual: bool,
    in_channels: usize,
    out_channels: usize,
    patch_size: Option<usize>,
}

impl Default for Diffusers {
    fn default() -> Self {
        Self {
            class_name: None,
            base_dim: 96,
            decoder_base_dim: None,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            attn_scales: Vec::new(),
            temperal_downsample: vec![false, true, true],
            latents_mean: WAN_LATENTS_MEAN.into(),
            latents_std: WAN_LATENTS_STD.into(),
            is_residual: false,
            in_channels: 3,
            out_channels: 3,
            patch_size: None,
        }
    }
}

/// Means of the latents of Wan2.1 (`wan/modules/vae.py`).
const WAN_LATENTS_MEAN: [f32; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
    -0.9497, 0.2503, -0.2921,
];

/// Standard deviations of the latents of Wan2.1 (`wan/modules/vae.py`).
const WAN_LATENTS_STD: [f32; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
    2.8251, 1.9160,
];

impl VaeConfig {
    /// Number of pixel rows (and columns) per row (and column) of latents.
    pub fn spatial_compression(&self) -> usize {
        1 << self.temperal_downsample.len()
    }

    /// Number of frames per latent frame. The first latent frame stands for only one frame.
    pub fn temporal_compression(&self) -> usize {
        1 << self.temperal_downsample.iter().filter(|&&temporal| temporal).count()
    }

    /// Parses a diffusers `config.json`. Messages name `path`.
    ///
    /// # Errors
    /// [`ModelError::Json`] or [`ModelError::Config`].
    pub fn from_json(path: &Path, json: &str) -> Result<Self, ModelError> {
        let read: Diffusers = parse(path, json)?;
        // Without a class the tensors tell that the file belongs to this VAE.
        let class = read.class_name.as_deref().unwrap_or(CLASS);
        require(path, class == CLASS, || format!("_class_name is {class:?}; expected {CLASS}"))?;
        require(path, !read.is_residual && read.patch_size.unwrap_or(1) == 1, || {
            "this is the VAE of Wan2.2-TI2V-5B (is_residual, patch_size); only Wan2.1's is supported".into()
        })?;
        require(path, read.attn_scales.is_empty(), || {
            format!("attn_scales is {:?}; expected none, as in Wan2.1", read.attn_scales)
        })?;
        Self::from_diffusers(read).checked(path)
    }

    fn from_diffusers(read: Diffusers) -> Self {
        Self {
            base_dim: read.base_dim,
            decoder_base_dim: read.decoder_base_dim.unwrap_or(read.base_dim),
            z_dim: read.z_dim,
            dim_mult: read.dim_mult,
            num_res_blocks: read.num_res_blocks,
            temperal_downsample: read.temperal_downsample,
            latents_mean: read.latents_mean,
            latents_std: read.latents_std,
            in_channels: read.in_channels,
            out_channels: read.out_channels,
        }
    }

    /// Infers the configuration of a checkpoint with diffusers' names and without a configuration
    /// file. The base comes from the shapes, the levels and latent statistics are those of Wan2.1.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the necessary tensors are missing or the latents do not have 16
    /// channels.
    pub fn infer(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let [base_dim, in_channels, ..] = shape::<5>(checkpoint, "encoder.conv_in.weight")?;
        let [out_channels, decoder_base_dim, ..] = shape::<5>(checkpoint, "decoder.conv_out.weight")?;
        let [z_dim, ..] = shape::<5>(checkpoint, "post_quant_conv.weight")?;
        let decoder_base_dim = Some(decoder_base_dim);
        let read = Diffusers { base_dim, decoder_base_dim, z_dim, in_channels, out_channels, ..Diffusers::default() };
        Self::from_diffusers(read).checked(checkpoint.path())
    }

    fn checked(self, path: &Path) -> Result<Self, ModelError> {
        let levels = self.dim_mult.len();
        require(path, (1..=MOST_LEVELS).contains(&levels), || {
            format!("dim_mult has {levels} levels; expected 1 to {MOST_LEVELS}")
        })?;
        require(path, self.temperal_downsample.len() == levels - 1, || {
            format!(
                "temperal_downsample has {} entries; expected one between each two of {levels} levels",
                self.temperal_downsample.len()
            )
        })?;
        require(path, (1..=MOST_RESNETS).contains(&self.num_res_blocks), || {
            format!("num_res_blocks is {}; expected 1 to {MOST_RESNETS}", self.num_res_blocks)
        })?;
        let mut sizes = vec![
            ("base_dim", self.base_dim),
            ("decoder_base_dim", self.decoder_base_dim),
            ("z_dim", self.z_dim),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
        ];
        sizes.extend(self.dim_mult.iter().map(|&size| ("dim_mult", size)));
        check_sizes(path, &sizes)?;
        let widest =
            self.dim_mult.iter().map(|&mult| mult as u64 * self.base_dim.max(self.decoder_base_dim) as u64).max();
        require(path, widest.is_none_or(|widest| widest <= super::LARGEST_SIZE as u64), || {
            format!("a base of {} channels times {:?}: too large", self.base_dim, self.dim_mult)
        })?;
        self.check_statistics(path)?;
        require(path, self.up_blocks().iter().all(|block| block.input > 0 && block.output > 0), || {
            "its channels are too few to be halved by the upsamplers".into()
        })?;
        Ok(self)
    }

    fn check_statistics(&self, path: &Path) -> Result<(), ModelError> {
        let (means, stds) = (&self.latents_mean, &self.latents_std);
        require(path, means.len() == self.z_dim && stds.len() == self.z_dim, || {
            format!(
                "z_dim is {}, but latents_mean has {} values and latents_std {}",
                self.z_dim,
                means.len(),
                stds.len()
            )
        })?;
        let sensible =
            means.iter().all(|mean| mean.is_finite()) && stds.iter().all(|std| std.is_finite() && *std > 0.0);
        require(path, sensible, || "latents_mean or latents_std has a value that makes no sense".into())
    }

    /// The layers of the encoder's `down_blocks`, in order.
    pub fn down_layers(&self) -> Vec<DownLayer> {
        let mut layers = Vec::new();
        let mut input = self.base_dim;
        for (level, &mult) in self.dim_mult.iter().enumerate() {
            let output = self.base_dim * mult;
            for _ in 0..self.num_res_blocks {
                layers.push(DownLayer::Resnet { input, output });
                input = output;
            }
            if let Some(&temporal) = self.temperal_downsample.get(level) {
                layers.push(DownLayer::Downsample { dim: output, temporal });
            }
        }
        layers
    }

    /// The decoder's `up_blocks`, in order from the lowest to the highest resolution.
    pub fn up_blocks(&self) -> Vec<UpBlock> {
        let mut upsamples = self.temperal_downsample.iter().rev();
        let mut input = self.top_dim(self.decoder_base_dim);
        let mut blocks = Vec::new();
        for &mult in self.dim_mult.iter().rev() {
            let output = self.decoder_base_dim * mult;
            let upsample = upsamples.next().copied();
            blocks.push(UpBlock { input, output, resnets: self.num_res_blocks + 1, upsample });
            input = output / 2;
        }
        blocks
    }

    /// Channels at the lowest resolution, where the middle blocks are.
    pub fn top_dim(&self, base_dim: usize) -> usize {
        base_dim * self.dim_mult.last().copied().unwrap_or(1)
    }

    /// Names and shapes of all tensors.
    pub fn expected_tensors(&self) -> ExpectedTensors {
        let mut tensors = Vec::new();
        push_conv(&mut tensors, "quant_conv", 2 * self.z_dim, 2 * self.z_dim, [1; 3]);
        push_conv(&mut tensors, "post_quant_conv", self.z_dim, self.z_dim, [1; 3]);
        self.push_encoder(&mut tensors);
        self.push_decoder(&mut tensors);
        tensors
    }

    fn push_encoder(&self, tensors: &mut ExpectedTensors) {
        push_conv(tensors, "encoder.conv_in", self.base_dim, self.in_channels, [3; 3]);
        for (index, layer) in self.down_layers().into_iter().enumerate() {
            let name = format!("encoder.down_blocks.{index}");
            match layer {
                DownLayer::Resnet { input, output } => push_resnet(tensors, &name, input, output),
                DownLayer::Downsample { dim, temporal } => {
                    push_resample(tensors, &name, dim, dim, temporal.then_some(dim))
                }
            }
        }
        let dim = self.top_dim(self.base_dim);
        push_middle(tensors, "encoder", dim);
        push_end(tensors, "encoder", dim, 2 * self.z_dim);
    }

    fn push_decoder(&self, tensors: &mut ExpectedTensors) {
        let top = self.top_dim(self.decoder_base_dim);
        push_conv(tensors, "decoder.conv_in", top, self.z_dim, [3; 3]);
        push_middle(tensors, "decoder", top);
        for (index, block) in self.up_blocks().into_iter().enumerate() {
            let name = format!("decoder.up_blocks.{index}");
            for resnet in 0..block.resnets {
                let input = if resnet == 0 { block.input } else { block.output };
                push_resnet(tensors, &format!("{name}.resnets.{resnet}"), input, block.output);
            }
            if let Some(temporal) = block.upsample {
                let time = temporal.then_some(2 * block.output);
                push_resample(tensors, &format!("{name}.upsamplers.0"), block.output, block.output / 2, time);
            }
        }
        let bottom = self.decoder_base_dim * self.dim_mult.first().copied().unwrap_or(1);
        push_end(tensors, "decoder", bottom, self.out_channels);
    }
}

fn push_conv(tensors: &mut ExpectedTensors, name: &str, output: usize, input: usize, kernel: [usize; 3]) {
    let [time, rows, columns] = kernel;
    push_biased(tensors, name, &[output, input, time, rows, columns]);
}

fn push_resnet(tensors: &mut ExpectedTensors, name: &str, input: usize, output: usize) {
    tensors.push((format!("{name}.norm1.gamma"), vec![input, 1, 1, 1]));
    push_conv(tensors, &format!("{name}.conv1"), output, input, [3; 3]);
    tensors.push((format!("{name}.norm2.gamma"), vec![output, 1, 1, 1]));
    push_conv(tensors, &format!("{name}.conv2"), output, output, [3; 3]);
    if input != output {
        push_conv(tensors, &format!("{name}.conv_shortcut"), output, input, [1; 3]);
    }
}

/// Adds a 2-D convolution from `dim` to `output` channels. If `time` is given, also adds a
/// convolution over time to that many channels.
fn push_resample(tensors: &mut ExpectedTensors, name: &str, dim: usize, output: usize, time: Option<usize>) {
    push_biased(tensors, &format!("{name}.resample.1"), &[output, dim, 3, 3]);
    if let Some(time) = time {
        push_conv(tensors, &format!("{name}.time_conv"), time, dim, [3, 1, 1]);
    }
}

/// Adds a residual block, an attention within each frame, and a residual block.
fn push_middle(tensors: &mut ExpectedTensors, side: &str, dim: usize) {
    let attention = format!("{side}.mid_block.attentions.0");
    tensors.push((format!("{attention}.norm.gamma"), vec![dim, 1, 1]));
    push_biased(tensors, &format!("{attention}.to_qkv"), &[3 * dim, dim, 1, 1]);
    push_biased(tensors, &format!("{attention}.proj"), &[dim, dim, 1, 1]);
    for resnet in 0..2 {
        push_resnet(tensors, &format!("{side}.mid_block.resnets.{resnet}"), dim, dim);
    }
}

fn push_end(tensors: &mut ExpectedTensors, side: &str, dim: usize, output: usize) {
    tensors.push((format!("{side}.norm_out.gamma"), vec![dim, 1, 1, 1]));
    push_conv(tensors, &format!("{side}.conv_out"), output, dim, [3; 3]);
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    fn read(json: &str) -> Result<VaeConfig, ModelError> {
        VaeConfig::from_json(Path::new("config.json"), json)
    }

    const WAN: &str = r#"{"_class_name": "AutoencoderKLWan"}"#;

    // Compares with diffusers' own class (tests/golden/weights.py). The test catches these
    // mutations: a shortcut between equal channels, no halving before a block, upsamplers in the
    // order of the downsamplers, z_dim in place of 2 * z_dim.
    #[test]
    fn tensors_are_those_of_diffusers() {
        let wan = read(WAN).unwrap();
        let tensors = wan.expected_tensors();
        assert_eq!((tensors.len(), golden::parameters(&tensors)), (194, 126_892_531));
        assert_eq!(golden::sorted(tensors), golden::expected("vae"));
        assert_eq!((wan.spatial_compression(), wan.temporal_compression()), (8, 4));
        let other = read(
            r#"{"_class_name": "AutoencoderKLWan", "base_dim": 6, "decoder_base_dim": 10, "z_dim": 2, "dim_mult": [1, 3, 2],
            "num_res_blocks": 1, "temperal_downsample": [true, false], "latents_mean": [0, 1], "latents_std": [1, 2],
            "in_channels": 4, "out_channels": 5}"#,
        )
        .unwrap();
        assert_eq!(golden::sorted(other.expected_tensors()), golden::expected("vae_other"));
        assert_eq!((other.spatial_compression(), other.temporal_compression()), (4, 2));
    }

    #[test]
    fn nonsense_is_refused() {
        let cases = [
            (r#""z_dim": 8"#, "z_dim is 8, but latents_mean has 16"),
            (r#""base_dim": 0"#, "base_dim is 0"),
            (r#""base_dim": 1048576"#, "too large"),
            (r#""base_dim": 1, "dim_mult": [1, 1], "temperal_downsample": [true]"#, "too few"),
            (r#""dim_mult": []"#, "0 levels"),
            (r#""dim_mult": [1, 0, 2, 4]"#, "dim_mult is 0"),
            (r#""dim_mult": [1, 2]"#, "temperal_downsample has 3"),
            (r#""num_res_blocks": 0"#, "num_res_blocks is 0"),
            (r#""is_residual": true"#, "Wan2.2"),
            (r#""patch_size": 2"#, "Wan2.2"),
            (r#""attn_scales": [0.5]"#, "attn_scales"),
            (r#""latents_std": [0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"#, "makes no sense"),
        ];
        for (entry, expected) in cases {
            let json = WAN.replace('}', &format!(", {entry}}}"));
            let problem = read(&json).unwrap_err().to_string();
            assert!(problem.contains(expected), "{entry}: {problem}");
        }
        assert!(read(&WAN.replace("KLWan", "KL")).unwrap_err().to_string().contains("AutoencoderKLWan"));
    }

    proptest::proptest! {
        #[test]
        fn absurd_configurations_never_panic(
            base_dim in 0..1usize << 40, z_dim in 0..20usize, dim_mult in proptest::collection::vec(0..9usize, 0..10),
            num_res_blocks in 0..20usize, temporal in proptest::collection::vec(proptest::bool::ANY, 0..9),
        ) {
            let statistics = vec![1; z_dim];
            let json = serde_json::json!({
                "_class_name": "AutoencoderKLWan", "base_dim": base_dim % 100, "decoder_base_dim": base_dim, "z_dim": z_dim,
                "dim_mult": dim_mult, "num_res_blocks": num_res_blocks, "temperal_downsample": temporal,
                "latents_mean": statistics, "latents_std": statistics,
            });
            if let Ok(config) = read(&json.to_string()) {
                proptest::prop_assert!(config.expected_tensors().iter().all(|(_, shape)| !shape.contains(&0)));
            }
        }
    }
}
