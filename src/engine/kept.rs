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

    /// Features of prompts, given as token ids, in their order: those that are not known are encoded, together.
    ///
    /// # Errors
    /// Those of [`TextEncoder::encode`].
    pub fn features(
        &mut self,
        cx: &mut Stream,
        (config, weights): &(TextEncoderConfig, Checkpoint),
        prompts: Vec<Vec<u32>>,
    ) -> Result<Vec<Features>, ModelError> {
        self.complete(&weights.fingerprint(), prompts, |missing| TextEncoder::new(config, weights).encode(cx, missing))
    }

    /// The same, `encode` making what is missing.
    fn complete(
        &mut self,
        encoder: &str,
        prompts: Vec<Vec<u32>>,
        encode: impl FnOnce(&[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError>,
    ) -> Result<Vec<Features>, ModelError> {
        // Before anything is kept: what is kept may push out what is known.
        let known: Vec<Option<Features>> = prompts.iter().map(|ids| self.get(encoder, ids)).collect();
        let pairs = prompts.iter().zip(&known);
        let missing: Vec<&[u32]> = pairs.filter(|(_, known)| known.is_none()).map(|(ids, _)| ids.as_slice()).collect();
        let mut made = if missing.is_empty() { Vec::new() } else { encode(&missing)? }.into_iter();
        let mut all = Vec::with_capacity(prompts.len());
        for (ids, known) in prompts.into_iter().zip(known) {
            let features = known.or_else(|| made.next().map(Features::from)).unwrap_or_default();
            self.keep(Encoded { encoder: encoder.into(), ids, features: features.clone() });
            all.push(features);
        }
        Ok(all)
    }

    fn get(&self, encoder: &str, ids: &[u32]) -> Option<Features> {
        let found = self.0.iter().find(|kept| kept.encoder == encoder && kept.ids == ids);
        found.map(|kept| kept.features.clone())
    }

    /// Keeps a prompt as the newest, in place of the oldest where there are too many.
    fn keep(&mut self, encoded: Encoded) {
        self.0.retain(|kept| kept.encoder != encoded.encoder || kept.ids != encoded.ids);
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every prompt with the same negative one, of more than are kept: each gets its own features, and the shared one is encoded once.
    #[test]
    fn prompts_get_their_own_features() {
        let (mut prompts, mut encoded) = (EncodedPrompts::default(), Vec::new());
        for id in 2..3 * EncodedPrompts::MOST as u32 {
            let mut encode = |missing: &[&[u32]]| -> Result<Vec<Vec<f32>>, ModelError> {
                encoded.extend(missing.iter().map(|ids| ids[0]));
                Ok(missing.iter().map(|ids| vec![ids[0] as f32]).collect())
            };
            for encoder in ["a", "b"] {
                let found = prompts.complete(encoder, vec![vec![id, 1], vec![0, 1]], &mut encode).unwrap();
                assert_eq!(found.iter().map(|features| features[0]).collect::<Vec<_>>(), [id as f32, 0.0]);
            }
            assert!(prompts.0.len() <= EncodedPrompts::MOST);
        }
        assert_eq!(encoded.iter().filter(|id| **id == 0).count(), 2, "once an encoder");
        let again = |_: &[&[u32]]| -> Result<Vec<Vec<f32>>, ModelError> { panic!("it is known") };
        let newest = 3 * EncodedPrompts::MOST as u32 - 1;
        assert_eq!(*prompts.complete("b", vec![vec![newest, 1]], again).unwrap()[0], [newest as f32]);
    }
}
