//! LoRAs, merged into the transformer's weights when these are loaded: W + scale alpha / rank up
//! down.
//!
//! Read are the names of diffusers and peft, the original names
//! (`diffusion_model.blocks.0.self_attn.q`) with `lora_A` and `lora_B` or `lora_down` and
//! `lora_up`, those of musubi and kohya (`lora_unet_blocks_0_self_attn_q`), and the additions of
//! LightX2V: `diff` to a weight and `diff_b` to a bias.

use super::names::{Part, diffusers_name};
use crate::model::ModelError;
use crate::weights::Checkpoint;
use std::collections::BTreeMap;
use std::path::Path;

/// What a tensor of a LoRA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Down,
    Up,
    Alpha,
    Weight,
    Bias,
}

/// Ends of names, the longest first.
const ENDS: [(&str, Role); 13] = [
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A", Role::Down),
    (".lora_B", Role::Up),
    (".alpha", Role::Alpha),
    (".diff_b", Role::Bias),
    (".diff", Role::Weight),
];

/// Words in names of other methods, and what they are.
const OTHERS: [(&str, &str); 6] = [
    (".dora_scale", "a DoRA"),
    (".lora_magnitude_vector", "a DoRA"),
    (".hada_w", "a LoHa"),
    (".lokr_w", "a LoKr"),
    ("_img.", "a LoRA of an image-to-video model"),
    ("transformer_2.", "a LoRA of the second expert of Wan2.2"),
];

/// The tensors of a LoRA for one module.
type Tensors<'a> = BTreeMap<Role, &'a str>;

/// The checkpoint of a transformer (under diffusers' names) with a LoRA added to its weights.
///
/// # Errors
/// [`ModelError::Weights`] if the file cannot be read; [`ModelError::NotAModel`] if it is no LoRA
/// of this transformer.
pub fn merged(transformer: &Checkpoint, file: &Path, scale: f32) -> Result<Checkpoint, ModelError> {
    let refuse = |problem: String| ModelError::NotAModel { path: file.into(), problem };
    let lora = Checkpoint::open(file)?;
    let modules = modules(&lora, transformer).map_err(refuse)?;
    let mut merged = transformer.clone();
    for (module, tensors) in &modules {
        add(&mut merged, &lora, module, tensors, scale).map_err(refuse)?;
    }
    Ok(merged)
}

/// The tensors of a LoRA by the transformer's modules.
fn modules<'a>(lora: &'a Checkpoint, transformer: &Checkpoint) -> Result<BTreeMap<String, Tensors<'a>>, String> {
    let joined = joined_names(transformer);
    let mut modules: BTreeMap<String, Tensors<'a>> = BTreeMap::new();
    for name in lora.tensors().map(|tensor| tensor.name) {
        if let Some((_, what)) = OTHERS.iter().find(|(word, _)| name.contains(word)) {
            return Err(format!("this is {what} (it has {}), which is not supported", name.escape_debug()));
        }
        let known = ENDS.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)));
        let (stem, role) =
            known.ok_or_else(|| format!("it has the tensor {}, which no LoRA has", name.escape_debug()))?;
        let module = module_of(stem, &joined, transformer)
            .ok_or_else(|| format!("the transformer has nothing for its tensor {}", name.escape_debug()))?;
        if modules.entry(module).or_default().insert(role, name).is_some() {
            return Err(format!("it has two tensors like {}", name.escape_debug()));
        }
    }
    if modules.is_empty() { Err("it has no tensors".into()) } else { Ok(modules) }
}

/// The transformer's module of a name without its end.
fn module_of(stem: &str, joined: &BTreeMap<String, String>, transformer: &Checkpoint) -> Option<String> {
    if let Some(rest) = ["lora_unet_", "lora_transformer_"].iter().find_map(|prefix| stem.strip_prefix(prefix)) {
        return joined.get(rest).cloned();
    }
    let stem = stem.strip_prefix("base_model.model.").unwrap_or(stem);
    let stem = stem.strip_prefix("transformer.").unwrap_or(stem);
    let name = diffusers_name(Part::Transformer, &format!("{stem}.weight"))?;
    let module = name.strip_suffix(".weight")?;
    transformer.get(&name).is_some().then(|| module.to_owned())
}

/// The transformer's modules by their names with `_` in place of `.`, in both layouts.
fn joined_names(transformer: &Checkpoint) -> BTreeMap<String, String> {
    const ORIGINAL: [&str; 10] = [
        "self_attn.q",
        "self_attn.k",
        "self_attn.v",
        "self_attn.o",
        "cross_attn.q",
        "cross_attn.k",
        "cross_attn.v",
        "cross_attn.o",
        "ffn.0",
        "ffn.2",
    ];
    const TOP: [&str; 6] = [
        "time_embedding.0",
        "time_embedding.2",
        "text_embedding.0",
        "text_embedding.2",
        "time_projection.1",
        "head.head",
    ];
    let modules = transformer.tensors().filter_map(|tensor| tensor.name.strip_suffix(".weight"));
    let mut names: BTreeMap<String, String> =
        modules.map(|module| (module.replace('.', "_"), module.to_owned())).collect();
    let blocks = (0..).take_while(|block| transformer.get(&format!("blocks.{block}.attn1.to_q.weight")).is_some());
    let in_blocks = blocks.flat_map(|block| ORIGINAL.map(|name| format!("blocks.{block}.{name}")));
    for original in in_blocks.chain(TOP.map(String::from)) {
        let name = diffusers_name(Part::Transformer, &format!("{original}.weight"));
        if let Some(module) = name.as_deref().and_then(|name| name.strip_suffix(".weight")) {
            names.insert(original.replace('.', "_"), module.to_owned());
        }
    }
    names
}

/// Adds the tensors of one module.
fn add(
    merged: &mut Checkpoint,
    lora: &Checkpoint,
    module: &str,
    tensors: &Tensors<'_>,
    scale: f32,
) -> Result<(), String> {
    let (weight, bias) = (format!("{module}.weight"), format!("{module}.bias"));
    let shape = |name: &str| lora.get(name).map_or(Vec::new(), |tensor| tensor.shape.to_vec());
    match (tensors.get(&Role::Up), tensors.get(&Role::Down)) {
        (Some(up), Some(down)) => {
            let rank = shape(down).first().copied().unwrap_or(0).max(1) as f32;
            let alpha = tensors.get(&Role::Alpha).map(|name| single(lora, name)).transpose()?;
            let factor = scale * alpha.map_or(1.0, |alpha| alpha / rank);
            if !merged.add_low_rank(&weight, lora, [up, down], factor) {
                return Err(format!("its tensors {:?} and {:?} do not fit {weight}", shape(up), shape(down)));
            }
        }
        (None, None) => {}
        _ => return Err(format!("one of the two matrices for {module} is missing")),
    }
    for (role, target) in [(Role::Weight, &weight), (Role::Bias, &bias)] {
        if let Some(name) = tensors.get(&role)
            && !merged.add_whole(target, lora, name, scale)
        {
            return Err(format!("its tensor {:?} does not fit {target}", shape(name)));
        }
    }
    Ok(())
}

/// A tensor of one finite number.
fn single(lora: &Checkpoint, name: &str) -> Result<f32, String> {
    let values = lora.get(name).and_then(|tensor| tensor.to_f32().ok()).unwrap_or_default();
    match values[..] {
        [value] if value.is_finite() => Ok(value),
        _ => Err(format!("its {} is not one finite number", name.escape_debug())),
    }
}

#[cfg(test)]
mod tests;
