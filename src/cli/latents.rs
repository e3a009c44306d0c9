//! Latents in safetensors files. The key is `latents`, the values are f32 with the shape
//! `[1, C, F, H, W]` or `[C, F, H, W]`.

use std::path::Path;

use anyhow::{Context, bail};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::engine::Latents;

/// Reads initial latents.
pub fn read(path: &Path) -> anyhow::Result<Latents> {
    let place = || format!("cannot read latents from {}", path.display());
    let bytes = std::fs::read(path).with_context(place)?;
    let file = SafeTensors::deserialize(&bytes).with_context(place)?;
    let view = file.tensor("latents").with_context(place)?;
    let (Dtype::F32, [1, c, f, h, w] | [c, f, h, w]) = (view.dtype(), view.shape()) else {
        bail!(
            "{}: expected f32 of shape [1, C, F, H, W] or [C, F, H, W], found {:?} {:?}",
            place(),
            view.dtype(),
            view.shape()
        );
    };
    let (elements, _) = view.data().as_chunks::<4>();
    let values: Vec<f32> = elements.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if !values.iter().all(|value| value.is_finite()) {
        bail!("{}: they hold values that are no numbers", place());
    }
    Ok(Latents { shape: [*c, *f, *h, *w], values })
}

/// Writes latents. The file appears whole or not at all.
pub fn write(path: &Path, latents: &[f32], shape: [usize; 4]) -> anyhow::Result<()> {
    let place = || format!("cannot write latents to {}", path.display());
    let bytes: Vec<u8> = latents.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = [&[1], &shape[..]].concat();
    let view = TensorView::new(Dtype::F32, shape, &bytes).with_context(place)?;
    let file = safetensors::serialize([("latents", view)], None).with_context(place)?;
    crate::media::write_bytes(path, &file).with_context(place)?;
    Ok(())
}
