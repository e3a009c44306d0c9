//! Data that a job keeps for later jobs. A session often repeats a prompt of the same model with
//! other settings.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::gpu::{Gpu, Stream};
use crate::model::ModelError;
use crate::model::family::{Condition, Features, Model, Transformer};
use crate::ops::all_finite;

/// The transformer on the GPU.
struct Loaded {
    /// The [`Model::transformer_key`].
    key: String,
    transformer: Arc<dyn Transformer>,
}

/// Encoded conditions, and the transformer while there is room for it.
#[derive(Default)]
pub(super) struct Kept {
    pub conditions: EncodedConditions,
    loaded: Option<Loaded>,
}

impl Kept {
    /// The transformer of a model. If another transformer or none is kept, it is loaded and kept.
    ///
    /// # Errors
    /// The errors of [`Model::load_transformer`].
    pub fn transformer(&mut self, gpu: &Gpu, model: &dyn Model) -> Result<Arc<dyn Transformer>, ModelError> {
        let key = model.transformer_key();
        if let Some(loaded) = self.loaded.as_ref().filter(|loaded| loaded.key == key) {
            return Ok(loaded.transformer.clone());
        }
        self.forget_transformer(gpu);
        let transformer = model.load_transformer(gpu)?;
        gpu.wait()?;
        self.loaded = Some(Loaded { key, transformer: transformer.clone() });
        Ok(transformer)
    }

    /// Drops the transformer and frees its memory.
    pub fn forget_transformer(&mut self, gpu: &Gpu) {
        if self.loaded.take().is_some() {
            gpu.release_free_memory();
        }
    }
}

/// A condition and its features.
struct Encoded {
    /// The [`Model::encoder_key`].
    encoder: String,
    condition: Condition,
    features: Features,
}

/// The most recent conditions with their features, newest at the end.
#[derive(Default)]
pub(super) struct EncodedConditions(VecDeque<Encoded>);

impl EncodedConditions {
    /// Largest number of kept conditions. Each takes at most 8 MB (512 tokens of UMT5-XXL).
    const MOST: usize = 16;

    /// The features of conditions, in their order. Unknown conditions are encoded together.
    ///
    /// # Errors
    /// The errors of [`Model::encode`].
    pub fn features(
        &mut self,
        cx: &mut Stream,
        model: &dyn Model,
        conditions: &[&Condition],
    ) -> Result<Vec<Features>, ModelError> {
        self.complete(&model.encoder_key(), conditions, |missing| model.encode(cx, missing))
    }

    /// The same, with `encode` for the unknown conditions.
    fn complete(
        &mut self,
        encoder: &str,
        conditions: &[&Condition],
        encode: impl FnOnce(&[&Condition]) -> Result<Vec<Features>, ModelError>,
    ) -> Result<Vec<Features>, ModelError> {
        // The known features are collected first, because a new entry may replace a known one.
        let known: Vec<Option<Features>> = conditions.iter().map(|condition| self.get(encoder, condition)).collect();
        let pairs = conditions.iter().zip(&known);
        let missing: Vec<&Condition> =
            pairs.filter(|(_, known)| known.is_none()).map(|(condition, _)| *condition).collect();
        let mut made = if missing.is_empty() { Vec::new() } else { encode(&missing)? }.into_iter();
        let mut all = Vec::with_capacity(conditions.len());
        for (condition, known) in conditions.iter().copied().zip(known) {
            let too_few = || ModelError::Request(format!("nothing was made of \"{condition}\""));
            let features = known.or_else(|| made.next()).ok_or_else(too_few)?;
            // Broken features are not kept: a later job encodes anew.
            if all_finite(&features.values) {
                let (encoder, condition, features) = (encoder.into(), condition.clone(), features.clone());
                self.keep(Encoded { encoder, condition, features });
            }
            all.push(features);
        }
        Ok(all)
    }

    fn get(&self, encoder: &str, condition: &Condition) -> Option<Features> {
        let found = self.0.iter().find(|kept| kept.encoder == encoder && kept.condition == *condition);
        found.map(|kept| kept.features.clone())
    }

    /// Keeps a condition as the newest. If there are too many, the oldest is dropped.
    fn keep(&mut self, encoded: Encoded) {
        self.0.retain(|kept| kept.encoder != encoded.encoder || kept.condition != encoded.condition);
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(number: u32) -> Features {
        Features { values: Arc::new([number as f32]), rows: 1 }
    }

    fn label_of(condition: &Condition) -> u32 {
        let Condition::Label(number) = condition else { panic!("{condition:?}") };
        *number
    }

    /// The test uses more prompts than are kept, each with the same negative prompt. Each prompt
    /// gets its own features, and the shared prompt is encoded once for each encoder.
    #[test]
    fn conditions_get_their_own_features() {
        let (mut conditions, mut encoded) = (EncodedConditions::default(), Vec::new());
        for id in 2..3 * EncodedConditions::MOST as u32 {
            let mut encode = |missing: &[&Condition]| -> Result<Vec<Features>, ModelError> {
                encoded.extend(missing.iter().map(|condition| label_of(condition)));
                Ok(missing.iter().map(|condition| features(label_of(condition))).collect())
            };
            for encoder in ["a", "b"] {
                let asked = [&Condition::Label(id), &Condition::Label(0)];
                let found = conditions.complete(encoder, &asked, &mut encode).unwrap();
                assert_eq!(found, [features(id), features(0)]);
            }
            assert!(conditions.0.len() <= EncodedConditions::MOST);
        }
        assert_eq!(encoded.iter().filter(|id| **id == 0).count(), 2, "once an encoder");
        let again = |_: &[&Condition]| -> Result<Vec<Features>, ModelError> { panic!("it is known") };
        let newest = 3 * EncodedConditions::MOST as u32 - 1;
        assert_eq!(conditions.complete("b", &[&Condition::Label(newest)], again).unwrap(), [features(newest)]);
    }

    #[test]
    fn an_encoder_that_gives_too_little_is_an_error() {
        let none = |_: &[&Condition]| Ok(Vec::new());
        assert!(EncodedConditions::default().complete("a", &[&Condition::Label(1)], none).is_err());
    }
}
