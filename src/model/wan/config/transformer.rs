//! The file `transformer/config.json`.

use super::{
    ExpectedTensors, MOST_LAYERS, check_epsilon, check_sizes, class_name, count_layers, parse, push_biased, require,
    shape,
};
use crate::model::ModelError;
use crate::weights::Checkpoint;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Configuration of diffusers' `WanTransformer3DModel` for text to video.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransformerConfig {
    /// Size of the patch of latents that becomes one token: frames, rows, columns.
    pub patch_size: [usize; 3],
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Channels of a head. The number is even, because the rotary embedding rotates pairs.
    pub attention_head_dim: usize,
    /// Channels of the input latents.
    pub in_channels: usize,
    /// Channels of the output velocity.
    pub out_channels: usize,
    /// Channels of the text encoder's output.
    pub text_dim: usize,
    /// Size of the sinusoidal time embedding, an even number.
    pub freq_dim: usize,
    /// Hidden size of the feed-forward network.
    pub ffn_dim: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Whether the input of the cross-attention is normalised, as in every published Wan2.1 model.
    pub cross_attn_norm: bool,
    /// Number that is added to variances and mean squares before the root.
    pub eps: f32,
    /// Largest number of tokens along one axis that have rotary embeddings.
    pub rope_max_seq_len: usize,
}

/// The fields of diffusers' file. Options of image-to-video models are read in order to refuse
/// them.
#[derive(Deserialize)]
#[serde(default)]
struct Diffusers {
    patch_size: [usize; 3],
    num_attention_heads: usize,
    attention_head_dim: usize,
    in_channels: usize,
    out_channels: Option<usize>,
    text_dim: usize,
    freq_dim: usize,
    ffn_dim: usize,
    num_layers: usize,
    cross_attn_norm: bool,
    qk_norm: Option<String>,
    eps: f32,
    rope_max_seq_len: usize,
    image_dim: Option<usize>,
    added_kv_proj_dim: Option<usize>,
    pos_embed_seq_len: Option<usize>,
}

impl Default for Diffusers {
    fn default() -> Self {
        Self {
            patch_size: [1, 2, 2],
            num_attention_heads: 40,
            attention_head_dim: 128,
            in_channels: 16,
            out_channels: Some(16),
            text_dim: 4096,
            freq_dim: 256,
            ffn_dim: 13824,
            num_layers: 40,
            cross_attn_norm: true,
            qk_norm: Some(QK_NORM.into()),
            eps: 1e-6,
            rope_max_seq_len: 1024,
            image_dim: None,
            added_kv_proj_dim: None,
            pos_embed_seq_len: None,
        }
    }
}

/// RMS norm over the channels of all heads together. Wan uses no other norm of q and k.
const QK_NORM: &str = "rms_norm_across_heads";

/// The fields of Wan-AI/Wan2.1's own file (`wan/modules/model.py`).
#[derive(Deserialize)]
#[serde(default)]
struct Original {
    model_type: String,
    patch_size: [usize; 3],
    in_dim: usize,
    dim: usize,
    ffn_dim: usize,
    freq_dim: usize,
    text_dim: usize,
    out_dim: usize,
    num_heads: usize,
    num_layers: usize,
    qk_norm: bool,
    cross_attn_norm: bool,
    eps: f32,
}

impl Default for Original {
    fn default() -> Self {
        Self {
            model_type: "t2v".into(),
            patch_size: [1, 2, 2],
            in_dim: 16,
            dim: 2048,
            ffn_dim: 8192,
            freq_dim: 256,
            text_dim: 4096,
            out_dim: 16,
            num_heads: 16,
            num_layers: 32,
            qk_norm: true,
            cross_attn_norm: true,
            eps: 1e-6,
        }
    }
}

const IMAGE_TO_VIDEO: &str =
    "this is an image-to-video model; only text-to-video models are supported, such as Wan2.1-T2V-1.3B";

impl TransformerConfig {
    /// Channels of the residual stream, which are the channels of all heads together.
    pub fn dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Number of latent values in one token, for the given number of channels.
    pub fn patch_elements(&self, channels: usize) -> usize {
        self.patch_size.iter().product::<usize>() * channels
    }

    /// Parses a diffusers or an original `config.json`. Messages name `path`.
    ///
    /// # Errors
    /// [`ModelError::Json`] or [`ModelError::Config`].
    pub fn from_json(path: &Path, json: &str) -> Result<Self, ModelError> {
        let config = match class_name(path, json)?.as_str() {
            "WanTransformer3DModel" => Self::from_diffusers(path, parse(path, json)?)?,
            "WanModel" => Self::from_original(path, parse(path, json)?)?,
            other => {
                let problem = format!("_class_name is {other:?}; expected WanTransformer3DModel or WanModel");
                return Err(ModelError::config(path, problem));
            }
        };
        config.checked(path)
    }

    fn from_diffusers(path: &Path, read: Diffusers) -> Result<Self, ModelError> {
        let image = read.image_dim.or(read.added_kv_proj_dim).or(read.pos_embed_seq_len);
        require(path, image.is_none(), || IMAGE_TO_VIDEO.into())?;
        require(path, read.qk_norm.as_deref() == Some(QK_NORM), || {
            format!("qk_norm is {:?}; expected {QK_NORM:?}", read.qk_norm)
        })?;
        Ok(Self {
            patch_size: read.patch_size,
            num_attention_heads: read.num_attention_heads,
            attention_head_dim: read.attention_head_dim,
            in_channels: read.in_channels,
            out_channels: read.out_channels.unwrap_or(read.in_channels),
            text_dim: read.text_dim,
            freq_dim: read.freq_dim,
            ffn_dim: read.ffn_dim,
            num_layers: read.num_layers,
            cross_attn_norm: read.cross_attn_norm,
            eps: read.eps,
            rope_max_seq_len: read.rope_max_seq_len,
        })
    }

    fn from_original(path: &Path, read: Original) -> Result<Self, ModelError> {
        let kind = read.model_type.as_str();
        require(path, !matches!(kind, "i2v" | "flf2v"), || IMAGE_TO_VIDEO.into())?;
        require(path, kind == "t2v", || format!("model_type is {kind:?}; only \"t2v\" is supported"))?;
        require(path, read.qk_norm, || "qk_norm is false; every Wan2.1 model has that norm".into())?;
        check_sizes(path, &[("num_heads", read.num_heads)])?;
        require(path, read.dim.is_multiple_of(read.num_heads), || {
            format!("dim is {}, which {} heads do not divide", read.dim, read.num_heads)
        })?;
        Ok(Self {
            patch_size: read.patch_size,
            num_attention_heads: read.num_heads,
            attention_head_dim: read.dim / read.num_heads,
            in_channels: read.in_dim,
            out_channels: read.out_dim,
            text_dim: read.text_dim,
            freq_dim: read.freq_dim,
            ffn_dim: read.ffn_dim,
            num_layers: read.num_layers,
            cross_attn_norm: read.cross_attn_norm,
            eps: read.eps,
            rope_max_seq_len: Diffusers::default().rope_max_seq_len,
        })
    }

    /// Infers the configuration of a checkpoint with diffusers' names and without a configuration
    /// file. The size of a head does not appear in the shapes, so the 128 channels of every
    /// published Wan model are used.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the necessary tensors are missing or the shapes do not fit this
    /// model.
    pub fn infer(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        const HEAD_DIM: usize = 128;
        let path = checkpoint.path();
        let image = ["img_emb.", "condition_embedder.image_embedder.", "vace_blocks."];
        let foreign = |name: &str| image.iter().any(|prefix| name.starts_with(prefix));
        require(path, !checkpoint.tensors().any(|tensor| foreign(tensor.name)), || IMAGE_TO_VIDEO.into())?;
        let [dim, in_channels, frames, rows, columns] = shape(checkpoint, "patch_embedding.weight")?;
        let [_, text_dim] = shape(checkpoint, "condition_embedder.text_embedder.linear_1.weight")?;
        let [_, freq_dim] = shape(checkpoint, "condition_embedder.time_embedder.linear_1.weight")?;
        let [ffn_dim, _] = shape(checkpoint, "blocks.0.ffn.net.0.proj.weight")?;
        let [outputs, _] = shape(checkpoint, "proj_out.weight")?;
        let patch_size = [frames, rows, columns];
        check_sizes(path, &patch_size.map(|size| ("patch_size", size)))?;
        let patch = patch_size.iter().product::<usize>();
        require(path, dim.is_multiple_of(HEAD_DIM) && outputs.is_multiple_of(patch), || {
            format!("no config.json beside it, and its width {dim} is no multiple of {HEAD_DIM}; add the config.json")
        })?;
        let config = Self {
            patch_size,
            num_attention_heads: dim / HEAD_DIM,
            attention_head_dim: HEAD_DIM,
            in_channels,
            out_channels: outputs / patch,
            text_dim,
            freq_dim,
            ffn_dim,
            num_layers: count_layers(checkpoint, "blocks.", ".scale_shift_table"),
            cross_attn_norm: checkpoint.get("blocks.0.norm2.weight").is_some(),
            eps: Diffusers::default().eps,
            rope_max_seq_len: Diffusers::default().rope_max_seq_len,
        };
        config.checked(path)
    }

    fn checked(self, path: &Path) -> Result<Self, ModelError> {
        let sizes = [
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("text_dim", self.text_dim),
            ("freq_dim", self.freq_dim),
            ("ffn_dim", self.ffn_dim),
            ("num_layers", self.num_layers),
            ("rope_max_seq_len", self.rope_max_seq_len),
        ];
        check_sizes(path, &sizes)?;
        check_sizes(path, &self.patch_size.map(|size| ("patch_size", size)))?;
        check_epsilon(path, "eps", self.eps)?;
        let even = |name: &str, size: usize| {
            require(path, size.is_multiple_of(2), || format!("{name} is {size}; expected an even number"))
        };
        even("attention_head_dim", self.attention_head_dim)?;
        even("freq_dim", self.freq_dim)?;
        require(path, self.num_layers <= MOST_LAYERS, || format!("num_layers is {}", self.num_layers))?;
        // Both products fit in 64 bits, because each size is at most 2^20.
        let largest = (self.dim() as u64).max(self.patch_size.iter().map(|&size| size as u64).product());
        require(path, largest <= super::LARGEST_SIZE as u64, || {
            format!(
                "{} heads of {} channels, patch {:?}: too large",
                self.num_attention_heads, self.attention_head_dim, self.patch_size
            )
        })?;
        Ok(self)
    }

    /// Names and shapes of all tensors.
    pub fn expected_tensors(&self) -> ExpectedTensors {
        let dim = self.dim();
        let [frames, rows, columns] = self.patch_size;
        let mut tensors = vec![("scale_shift_table".into(), vec![1, 2, dim])];
        push_biased(&mut tensors, "patch_embedding", &[dim, self.in_channels, frames, rows, columns]);
        push_biased(&mut tensors, "condition_embedder.time_embedder.linear_1", &[dim, self.freq_dim]);
        push_biased(&mut tensors, "condition_embedder.time_embedder.linear_2", &[dim, dim]);
        push_biased(&mut tensors, "condition_embedder.time_proj", &[6 * dim, dim]);
        push_biased(&mut tensors, "condition_embedder.text_embedder.linear_1", &[dim, self.text_dim]);
        push_biased(&mut tensors, "condition_embedder.text_embedder.linear_2", &[dim, dim]);
        push_biased(&mut tensors, "proj_out", &[self.patch_elements(self.out_channels), dim]);
        for layer in 0..self.num_layers {
            self.push_block(&mut tensors, &format!("blocks.{layer}"));
        }
        tensors
    }

    fn push_block(&self, tensors: &mut ExpectedTensors, block: &str) {
        let dim = self.dim();
        tensors.push((format!("{block}.scale_shift_table"), vec![1, 6, dim]));
        if self.cross_attn_norm {
            push_biased(tensors, &format!("{block}.norm2"), &[dim]);
        }
        push_biased(tensors, &format!("{block}.ffn.net.0.proj"), &[self.ffn_dim, dim]);
        push_biased(tensors, &format!("{block}.ffn.net.2"), &[dim, self.ffn_dim]);
        for attention in ["attn1", "attn2"] {
            for linear in ["to_q", "to_k", "to_v", "to_out.0"] {
                push_biased(tensors, &format!("{block}.{attention}.{linear}"), &[dim, dim]);
            }
            for norm in ["norm_q", "norm_k"] {
                tensors.push((format!("{block}.{attention}.{norm}.weight"), vec![dim]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    const T2V_1_3B: &str = r#"{"_class_name": "WanTransformer3DModel", "_diffusers_version": "0.33.0.dev0",
        "added_kv_proj_dim": null, "attention_head_dim": 128, "cross_attn_norm": true, "eps": 1e-06, "ffn_dim": 8960,
        "freq_dim": 256, "image_dim": null, "in_channels": 16, "num_attention_heads": 12, "num_layers": 30,
        "out_channels": 16, "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024,
        "text_dim": 4096}"#;
    const T2V_1_3B_ORIGINAL: &str = r#"{"_class_name": "WanModel", "_diffusers_version": "0.30.0", "dim": 1536, "eps": 1e-06,
        "ffn_dim": 8960, "freq_dim": 256, "in_dim": 16, "model_type": "t2v", "num_heads": 12, "num_layers": 30,
        "out_dim": 16, "text_len": 512}"#;

    fn read(json: &str) -> Result<TransformerConfig, ModelError> {
        TransformerConfig::from_json(Path::new("config.json"), json)
    }

    #[test]
    fn counts_of_the_published_models() {
        let config = read(T2V_1_3B).unwrap();
        let tensors = config.expected_tensors();
        assert_eq!((tensors.len(), golden::parameters(&tensors)), (825, 1_418_996_800));
        assert_eq!(read(T2V_1_3B_ORIGINAL).unwrap(), config);
        let large = read(r#"{"_class_name": "WanTransformer3DModel"}"#).unwrap().expected_tensors();
        assert_eq!((large.len(), golden::parameters(&large)), (1095, 14_288_491_584));
    }

    // Compares with diffusers' own class (tests/golden/weights.py). All sizes differ, so the test
    // catches any two exchanged sizes, and a missing bias.
    #[test]
    fn tensors_are_those_of_diffusers() {
        let config = read(
            r#"{"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 3], "num_attention_heads": 3,
            "attention_head_dim": 10, "in_channels": 5, "out_channels": 7, "text_dim": 11, "freq_dim": 12, "ffn_dim": 13,
            "num_layers": 2}"#,
        );
        assert_eq!(golden::sorted(config.unwrap().expected_tensors()), golden::expected("transformer"));
    }

    #[test]
    fn nonsense_is_refused() {
        let cases = [
            (r#""num_layers": 30"#, r#""num_layers": 0"#, "num_layers is 0"),
            (r#""num_layers": 30"#, r#""num_layers": 1000000"#, "num_layers is 1000000"),
            (r#""num_layers": 30"#, r#""num_layers": 1e999"#, "not a valid configuration"),
            (r#""num_layers": 30"#, r#""num_layers": -1"#, "not a valid configuration"),
            (r#""attention_head_dim": 128"#, r#""attention_head_dim": 127"#, "even"),
            (r#""attention_head_dim": 128"#, r#""attention_head_dim": 1048576"#, "too large"),
            ("[1, 2, 2]", "[1, 0, 2]", "patch_size is 0"),
            ("[1, 2, 2]", "[1048576, 1048576, 1048576]", "too large"),
            ("[1, 2, 2]", "[2, 2]", "not a valid configuration"),
            ("1e-06", "0", "eps is 0"),
            ("1e-06", "-1", "eps is -1"),
            (r#""added_kv_proj_dim": null"#, r#""added_kv_proj_dim": 5120"#, "image-to-video"),
            (r#""image_dim": null"#, r#""image_dim": 1280"#, "image-to-video"),
            ("rms_norm_across_heads", "layer_norm", "qk_norm"),
            ("WanTransformer3DModel", "WanVACETransformer3DModel", "WanVACETransformer3DModel"),
            ("_class_name", "class", "no _class_name"),
        ];
        for (from, to, expected) in cases {
            assert!(T2V_1_3B.contains(from), "{from}");
            let problem = read(&T2V_1_3B.replace(from, to)).unwrap_err().to_string();
            assert!(problem.starts_with("config.json") && problem.contains(expected), "{to}: {problem}");
        }
        for (from, to, expected) in [
            ("t2v", "i2v", "image-to-video"),
            ("t2v", "vace", "vace"),
            (r#""num_heads": 12"#, r#""num_heads": 0"#, "num_heads is 0"),
            (r#""num_heads": 12"#, r#""num_heads": 11"#, "11 heads do not divide"),
        ] {
            let problem = read(&T2V_1_3B_ORIGINAL.replace(from, to)).unwrap_err().to_string();
            assert!(problem.contains(expected), "{to}: {problem}");
        }
    }

    #[test]
    fn missing_out_channels_are_the_in_channels() {
        let config =
            read(r#"{"_class_name": "WanTransformer3DModel", "in_channels": 48, "out_channels": null}"#).unwrap();
        assert_eq!(config.out_channels, 48);
    }

    proptest::proptest! {
        #[test]
        fn damaged_configurations_never_panic(at in 0..T2V_1_3B.len(), with in "[ -~]{0,4}", original: bool) {
            let text = if original { T2V_1_3B_ORIGINAL } else { T2V_1_3B };
            let at = at.min(text.len());
            let damaged = format!("{}{with}{}", &text[..at], &text[(at + with.len()).min(text.len())..]);
            if let Ok(config) = read(&damaged) {
                proptest::prop_assert!(config.dim() > 0 && config.expected_tensors().len() == 15 + 27 * config.num_layers);
            }
        }
    }
}
