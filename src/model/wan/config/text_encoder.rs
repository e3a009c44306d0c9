//! The file `text_encoder/config.json`.

use super::{ExpectedTensors, MOST_LAYERS, check_epsilon, check_sizes, count_layers, parse, require, shape};
use crate::model::ModelError;
use crate::weights::Checkpoint;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Configuration of transformers' `UMT5EncoderModel`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextEncoderConfig {
    /// Number of rows of the embedding.
    pub vocab_size: usize,
    /// Channels of the residual stream, and of the output.
    pub d_model: usize,
    /// Channels of a head.
    pub d_kv: usize,
    /// Number of attention heads. `num_heads * d_kv` may differ from `d_model`.
    pub num_heads: usize,
    /// Hidden size of the gated feed-forward network.
    pub d_ff: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Number of rows of the relative position table, half of them for each direction. Every block
    /// has a table of its own.
    pub relative_attention_num_buckets: usize,
    /// Distance from which all positions share the last bucket.
    pub relative_attention_max_distance: usize,
    /// Number that is added to mean squares before the root.
    pub layer_norm_epsilon: f32,
}

#[derive(Deserialize)]
#[serde(default)]
struct Transformers {
    model_type: Option<String>,
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    num_heads: usize,
    d_ff: usize,
    num_layers: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f32,
    feed_forward_proj: String,
}

impl Default for Transformers {
    fn default() -> Self {
        Self {
            model_type: None,
            vocab_size: 250_112,
            d_model: 512,
            d_kv: 64,
            num_heads: 6,
            d_ff: 1024,
            num_layers: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "gated-gelu".into(),
        }
    }
}

impl TextEncoderConfig {
    /// Channels of all heads together.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// Parses a transformers `config.json`. Messages name `path`.
    ///
    /// # Errors
    /// [`ModelError::Json`] or [`ModelError::Config`].
    pub fn from_json(path: &Path, json: &str) -> Result<Self, ModelError> {
        let read: Transformers = parse(path, json)?;
        require(path, read.model_type.as_deref() == Some("umt5"), || {
            let found = read.model_type.as_deref().unwrap_or("missing");
            format!("model_type is {found:?}; expected \"umt5\", the text encoder of Wan2.1")
        })?;
        require(path, read.feed_forward_proj == "gated-gelu", || {
            format!("feed_forward_proj is {:?}; expected \"gated-gelu\"", read.feed_forward_proj)
        })?;
        let config = Self {
            vocab_size: read.vocab_size,
            d_model: read.d_model,
            d_kv: read.d_kv,
            num_heads: read.num_heads,
            d_ff: read.d_ff,
            num_layers: read.num_layers,
            relative_attention_num_buckets: read.relative_attention_num_buckets,
            relative_attention_max_distance: read.relative_attention_max_distance,
            layer_norm_epsilon: read.layer_norm_epsilon,
        };
        config.checked(path)
    }

    /// Infers the configuration of a checkpoint with diffusers' names and without a configuration
    /// file. The largest distance and the epsilon do not appear in the shapes, so UMT5's values are
    /// used.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the necessary tensors are missing or contradict each other.
    pub fn infer(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let path = checkpoint.path();
        let [vocab_size, d_model] = shape(checkpoint, "shared.weight")?;
        let attention = "encoder.block.0.layer.0.SelfAttention";
        let [inner_dim, _] = shape(checkpoint, &format!("{attention}.q.weight"))?;
        let [buckets, num_heads] = shape(checkpoint, &format!("{attention}.relative_attention_bias.weight"))?;
        let [d_ff, _] = shape(checkpoint, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight")?;
        check_sizes(path, &[("the number of heads", num_heads)])?;
        require(path, inner_dim.is_multiple_of(num_heads), || {
            format!("its attention has {inner_dim} channels, which {num_heads} heads do not divide")
        })?;
        let config = Self {
            vocab_size,
            d_model,
            d_kv: inner_dim / num_heads,
            num_heads,
            d_ff,
            num_layers: count_layers(checkpoint, "encoder.block.", ".layer.0.layer_norm.weight"),
            relative_attention_num_buckets: buckets,
            relative_attention_max_distance: Transformers::default().relative_attention_max_distance,
            layer_norm_epsilon: Transformers::default().layer_norm_epsilon,
        };
        config.checked(path)
    }

    fn checked(self, path: &Path) -> Result<Self, ModelError> {
        let buckets = self.relative_attention_num_buckets;
        let distance = self.relative_attention_max_distance;
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("num_heads", self.num_heads),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("relative_attention_num_buckets", buckets),
            ("relative_attention_max_distance", distance),
        ];
        check_sizes(path, &sizes)?;
        check_epsilon(path, "layer_norm_epsilon", self.layer_norm_epsilon)?;
        require(path, self.num_layers <= MOST_LAYERS, || format!("num_layers is {}", self.num_layers))?;
        // A quarter of the buckets have one distance each. The logarithmic buckets need larger
        // distances.
        require(path, buckets.is_multiple_of(4) && distance > buckets / 4, || {
            format!(
                "relative_attention_num_buckets is {buckets} and relative_attention_max_distance {distance}; \
                 expected a multiple of 4, and more than a quarter of it"
            )
        })?;
        require(path, self.inner_dim() <= super::LARGEST_SIZE, || {
            format!("{} heads of {} channels: too large", self.num_heads, self.d_kv)
        })?;
        Ok(self)
    }

    /// Names and shapes of all tensors.
    pub fn expected_tensors(&self) -> ExpectedTensors {
        let Self { d_model, d_ff, num_heads, relative_attention_num_buckets: buckets, .. } = *self;
        let inner = self.inner_dim();
        let mut tensors = vec![
            ("shared.weight".to_owned(), vec![self.vocab_size, d_model]),
            ("encoder.final_layer_norm.weight".to_owned(), vec![d_model]),
        ];
        for layer in 0..self.num_layers {
            let block: [(&str, &[usize]); 10] = [
                ("0.layer_norm", &[d_model]),
                ("0.SelfAttention.q", &[inner, d_model]),
                ("0.SelfAttention.k", &[inner, d_model]),
                ("0.SelfAttention.v", &[inner, d_model]),
                ("0.SelfAttention.o", &[d_model, inner]),
                ("0.SelfAttention.relative_attention_bias", &[buckets, num_heads]),
                ("1.layer_norm", &[d_model]),
                ("1.DenseReluDense.wi_0", &[d_ff, d_model]),
                ("1.DenseReluDense.wi_1", &[d_ff, d_model]),
                ("1.DenseReluDense.wo", &[d_model, d_ff]),
            ];
            let named =
                block.map(|(name, shape)| (format!("encoder.block.{layer}.layer.{name}.weight"), shape.to_vec()));
            tensors.extend(named);
        }
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    const XXL: &str = r#"{"architectures": ["UMT5EncoderModel"], "model_type": "umt5", "vocab_size": 256384, "d_model": 4096,
        "d_kv": 64, "num_heads": 64, "d_ff": 10240, "num_layers": 24, "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-06, "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.1, "tokenizer_class": "T5Tokenizer"}"#;

    fn read(json: &str) -> Result<TextEncoderConfig, ModelError> {
        TextEncoderConfig::from_json(Path::new("config.json"), json)
    }

    #[test]
    fn counts_of_umt5_xxl() {
        let tensors = read(XXL).unwrap().expected_tensors();
        assert_eq!((tensors.len(), golden::parameters(&tensors)), (242, 5_680_910_336));
    }

    // Compares with transformers' own class. All sizes differ, so the test catches any two
    // exchanged sizes.
    #[test]
    fn tensors_are_those_of_transformers() {
        let config = read(
            r#"{"model_type": "umt5", "vocab_size": 17, "d_model": 10, "d_kv": 4, "num_heads": 3, "d_ff": 14,
            "num_layers": 2, "relative_attention_num_buckets": 8}"#,
        );
        assert_eq!(golden::sorted(config.unwrap().expected_tensors()), golden::expected("text_encoder"));
    }

    #[test]
    fn nonsense_is_refused() {
        let cases = [
            (r#""umt5""#, r#""t5""#, "model_type is \"t5\""),
            ("model_type", "kind", "missing"),
            ("gated-gelu", "relu", "feed_forward_proj"),
            (r#""d_model": 4096"#, r#""d_model": 0"#, "d_model is 0"),
            (r#""num_layers": 24"#, r#""num_layers": 1001"#, "num_layers is 1001"),
            (r#"buckets": 32"#, r#"buckets": 30"#, "multiple of 4"),
            (r#"distance": 128"#, r#"distance": 8"#, "more than a quarter"),
            (r#""d_kv": 64"#, r#""d_kv": 1000000"#, "too large"),
            ("1e-06", "0.0", "layer_norm_epsilon"),
        ];
        for (from, to, expected) in cases {
            assert!(XXL.contains(from), "{from}");
            let problem = read(&XXL.replace(from, to)).unwrap_err().to_string();
            assert!(problem.contains(expected), "{to}: {problem}");
        }
    }
}
