//! What a job leaves for those that follow: a session asks for the same prompt of the same model again and again, with other settings.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::gpu::{Gpu, Stream};
use crate::model::ModelError;
use crate::model::wan::config::{TextEncoderConfig, TransformerConfig};
use crate::model::wan::text_encoder::TextEncoder;
use crate::model::wan::transformer::WanTransformer;
use crate::weights::Checkpoint;

/// The transformer on the GPU, and what it was made of.
struct Loaded {
    /// Fingerprint of its weights.
    weights: String,
    config: TransformerConfig,
    transformer: Arc<WanTransformer>,
}

/// Prompts that were encoded, and the transformer as long as there is room for it.
#[derive(Default)]
pub(super) struct Kept {
    pub prompts: EncodedPrompts,
    loaded: Option<Loaded>,
}

impl Kept {
    /// The transformer of a checkpoint: the one that is there, or loaded in its place.
    ///
    /// # Errors
    /// Those of [`WanTransformer::load`].
    pub fn transformer(
        &mut self,
        gpu: &Gpu,
        (config, weights): &(TransformerConfig, Checkpoint),
    ) -> Result<Arc<WanTransformer>, ModelError> {
        let fingerprint = weights.fingerprint();
        let same = |loaded: &&Loaded| loaded.weights == fingerprint && loaded.config == *config;
        if let Some(loaded) = self.loaded.as_ref().filter(same) {
            return Ok(loaded.transformer.clone());
        }
        self.forget_transformer(gpu);
        let transformer = Arc::new(WanTransformer::load(gpu, config, weights)?);
        gpu.wait()?;
        self.loaded = Some(Loaded { weights: fingerprint, config: config.clone(), transformer: transformer.clone() });
        Ok(transformer)
    }

    /// Makes room.
    pub fn forget_transformer(&mut self, gpu: &Gpu) {
        if self.loaded.take().is_some() {
            gpu.release_free_memory();
        }
    }
}

/// The text encoder's output for a prompt, `[tokens, text_dim]`.
pub(super) type Features = Arc<[f32]>;

/// A prompt and what was made of it.
struct Encoded {
    /// Fingerprint of the encoder's weights.
    encoder: String,
    ids: Vec<u32>,
    features: Features,
}

/// The prompts encoded last, newest at the end.
#[derive(Default)]
pub(super) struct EncodedPrompts(VecDeque<Encoded>);

impl EncodedPrompts {
    /// Of at most 8 MB each (512 tokens of UMT5-XXL).
    const MOST: usize = 16;

    /// Features of prompts, given as token ids: those that are not known are encoded, together.
    pub fn features(
        &mut self,
        cx: &mut Stream,
        (config, weights): &(TextEncoderConfig, Checkpoint),
        prompts: Vec<Vec<u32>>,
    ) -> Result<Vec<Features>, ModelError> {
        let encoder = weights.fingerprint();
        let mut missing: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        missing.retain(|ids| self.get(&encoder, ids).is_none());
        if !missing.is_empty() {
            let made = TextEncoder::new(config, weights).encode(cx, &missing)?;
            for (ids, features) in missing.into_iter().zip(made) {
                self.keep(Encoded { encoder: encoder.clone(), ids: ids.to_vec(), features: features.into() });
            }
        }
        let known = |ids: &Vec<u32>| self.get(&encoder, ids);
        Ok(prompts.iter().filter_map(known).collect())
    }

    fn get(&self, encoder: &str, ids: &[u32]) -> Option<Features> {
        let found = self.0.iter().find(|kept| kept.encoder == encoder && kept.ids == ids);
        found.map(|kept| kept.features.clone())
    }

    fn keep(&mut self, encoded: Encoded) {
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_known_by_encoder_and_tokens() {
        let mut prompts = EncodedPrompts::default();
        let encoded = |encoder: &str, id: u32| Encoded {
            encoder: encoder.into(),
            ids: vec![id, 1],
            features: vec![id as f32].into(),
        };
        for id in 0..EncodedPrompts::MOST as u32 {
            prompts.keep(encoded("a", id));
        }
        assert_eq!(prompts.get("a", &[0, 1]).as_deref(), Some(&[0.0][..]));
        assert_eq!((prompts.get("b", &[0, 1]), prompts.get("a", &[0])), (None, None));
        prompts.keep(encoded("b", 0));
        assert_eq!((prompts.get("a", &[0, 1]), prompts.0.len()), (None, EncodedPrompts::MOST), "the oldest goes");
        assert!(prompts.get("b", &[0, 1]).is_some());
    }
}
