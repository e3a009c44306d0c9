//! What a checkpoint holds, told by the names, ranks and shapes of its tensors.
//!
//! Sources of the names: the models' own repositories, diffusers and ComfyUI.

use crate::model::wan::names::{Part, diffusers_name};
use crate::weights::{Checkpoint, DType};
use std::collections::BTreeMap;

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Parts of a model that this program runs: one, or several in one file.
    Parts(Vec<Part>),
    /// A part of a variant that this program does not run.
    Variant {
        /// The part that it would be.
        part: Part,
        /// What it is, and what to take instead.
        what: String,
    },
    /// A LoRA.
    Lora,
    /// Something else, in words.
    Foreign(String),
}

/// Shapes of tensors by diffusers' names.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Tells what a checkpoint holds.
pub fn recognise(checkpoint: &Checkpoint) -> Contents {
    let mut found = Vec::new();
    for part in Part::ALL {
        let shapes: Shapes = checkpoint
            .tensors()
            .filter_map(|tensor| Some((diffusers_name(part, tensor.name)?, tensor.shape.to_vec())))
            .collect();
        let verdict = match part {
            Part::Transformer => transformer(&shapes),
            Part::TextEncoder => text_encoder(&shapes),
            Part::Vae => vae(&shapes),
        };
        match verdict {
            None => {}
            Some(Ok(())) => found.push(part),
            Some(Err(what)) => return Contents::Variant { part, what },
        }
    }
    if found.is_empty() { other(checkpoint) } else { Contents::Parts(found) }
}

/// `None` if it is something else, an error if it is a variant that does not run.
type Verdict = Option<Result<(), String>>;

fn starts(shapes: &Shapes, prefix: &str) -> bool {
    shapes.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
}

/// Beginnings of names that only variants of Wan have, and what the variants are.
const TRANSFORMER_VARIANTS: [(&str, &str); 13] = [
    ("condition_embedder.image_embedder.", IMAGE_TO_VIDEO),
    ("img_emb.", IMAGE_TO_VIDEO),
    ("vace_", "Wan VACE, which edits video with reference pictures"),
    ("control_adapter.", "Wan Fun with camera control"),
    ("ref_conv.", "Wan Fun with control video"),
    ("pose_patch_embedding.", "Wan Animate"),
    ("face_adapter.", "Wan Animate"),
    ("motion_encoder.", "Wan Animate"),
    ("casual_audio_encoder.", "Wan S2V, speech to video"),
    ("audio_injector.", "Wan S2V, speech to video"),
    ("audio_proj.", "MultiTalk, speech to video"),
    ("blocks.0.cam_encoder.", "ReCamMaster, camera control"),
    ("blocks.0.cross_attn.k_img.", IMAGE_TO_VIDEO),
];
const IMAGE_TO_VIDEO: &str = "Wan image to video";

fn transformer(shapes: &Shapes) -> Verdict {
    let [_, channels, _, _, _] = shapes.get("patch_embedding.weight")?[..] else { return None };
    if !starts(shapes, "blocks.0.attn1.to_q.") && !starts(shapes, "condition_embedder.") {
        return None;
    }
    let text_to_video = "only text to video is supported";
    let variant = TRANSFORMER_VARIANTS.iter().find(|(prefix, _)| starts(shapes, prefix));
    if let Some((_, what)) = variant {
        return Some(Err(format!("this is {what}; {text_to_video}")));
    }
    if shapes.keys().any(|name| name.contains(".add_k_proj.") || name.contains(".norm_added_k.")) {
        return Some(Err(format!("this is {IMAGE_TO_VIDEO}; {text_to_video}")));
    }
    if shapes.keys().any(|name| name.contains(".base_layer.") || name.contains(".lora_")) {
        let what = "a LoRA is attached to this transformer and not merged; merge it, for example with peft's \
                    merge_and_unload, and save it again";
        return Some(Err(what.into()));
    }
    match channels {
        48 => Some(Err("this is Wan2.2 TI2V-5B (48 channels); only Wan2.1's transformers are supported".into())),
        36 | 32 => Some(Err(format!("this is {IMAGE_TO_VIDEO} ({channels} channels); {text_to_video}"))),
        _ => Some(Ok(())),
    }
}

fn text_encoder(shapes: &Shapes) -> Verdict {
    let [_, _] = shapes.get("shared.weight")?[..] else { return None };
    let attention = |block: usize, what: &str| {
        shapes.contains_key(&format!("encoder.block.{block}.layer.0.SelfAttention.{what}.weight"))
    };
    // UMT5 has a table of relative positions in every block, T5 and mT5 only in the first one.
    let gated = shapes.contains_key("encoder.block.0.layer.1.DenseReluDense.wi_0.weight");
    let last = (0..).take_while(|block| attention(*block, "q")).last()?;
    let own = (0..=last).all(|block| attention(block, "relative_attention_bias"));
    (gated && own).then_some(Ok(()))
}

fn vae(shapes: &Shapes) -> Verdict {
    let [_, latent, _, _, _] = shapes.get("decoder.conv_in.weight")?[..] else { return None };
    let [colours, _, _, _, _] = shapes.get("decoder.conv_out.weight")?[..] else { return None };
    if latent == 48 || colours == 12 {
        let what = format!(
            "this is Wan2.2's VAE ({latent} latent channels, {colours} of output), which does not fit Wan2.1; \
             take Wan2.1_VAE.pth or wan_2.1_vae.safetensors"
        );
        return Some(Err(what));
    }
    if colours != 3 {
        return Some(Err(format!("its decoder makes {colours} channels; expected 3, red, green and blue")));
    }
    starts(shapes, "decoder.mid_block.attentions.0.to_qkv.").then_some(Ok(()))
}

/// Parts of names that only other models have, and what the models are. The first match counts.
const OTHERS: [(&str, &str); 21] = [
    ("double_blocks.0.", "a transformer of Flux or HunyuanVideo"),
    ("img_in.proj.", "a transformer of HunyuanVideo"),
    ("joint_blocks.0.", "a transformer of Stable Diffusion 3"),
    ("transformer_blocks.0.", "a transformer of another model (Flux, Qwen-Image, LTX)"),
    ("input_blocks.0.", "a UNet of Stable Diffusion"),
    ("down_blocks.0.attentions.", "a UNet of Stable Diffusion"),
    ("text_model.encoder.", "a CLIP text encoder"),
    ("transformer.resblocks.", "a CLIP encoder"),
    ("vision_model.", "a CLIP or SigLIP vision encoder"),
    ("visual.", "a vision encoder"),
    ("SelfAttention.q.", "a T5 text encoder (not UMT5: not every block has its own table of positions)"),
    ("blk.0.attn_q.", "a language model, or a T5 text encoder"),
    ("layers.0.self_attn.q_proj.", "a language model"),
    ("control_model.", "a ControlNet"),
    ("controlnet_", "a ControlNet"),
    ("vace_blocks.0.", "a module of Wan VACE"),
    ("audio_encoder.", "an audio encoder"),
    ("decoder.conv_in.", "a VAE of another model"),
    ("decoder.up.", "a VAE of another model"),
    ("decoder.1.weight", "a tiny decoder (TAEHV)"),
    ("conv_first.", "an upscaler"),
];

/// Words in names that only LoRAs have.
const LORA: [&str; 6] = ["lora_A", "lora_B", "lora_down", "lora_up", "hada_w1_a", "lokr_w1"];

fn other(checkpoint: &Checkpoint) -> Contents {
    let names = || checkpoint.tensors().map(|tensor| tensor.name);
    if names().any(|name| LORA.iter().any(|word| name.contains(word))) {
        return Contents::Lora;
    }
    let known = OTHERS.iter().find(|(word, _)| names().any(|name| name.contains(word)));
    Contents::Foreign(match (known, names().next()) {
        (Some((_, what)), _) => (*what).into(),
        (None, None) => "a file without tensors".into(),
        (None, Some(_)) if checkpoint.tensors().all(|tensor| matches!(tensor.dtype, DType::Raw(_))) => {
            "tensors that are no floating point numbers".into()
        }
        (None, Some(first)) => format!("a file of another model (it has the tensor {:.60})", first.escape_debug()),
    })
}

/// A reason to doubt that the file is what its tensors say, from its name: some models have the
/// same tensors and other values.
pub fn doubt(part: Part, name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match part {
        Part::Transformer if has(&["high_noise", "low_noise", "high-noise", "low-noise", "highnoise", "lownoise"]) => {
            Some("by its name this is one of the two experts of Wan2.2 A14B, which only make a clip together")
        }
        Part::Transformer if has(&["causvid", "self_forcing", "self-forcing", "selfforcing", "causal"]) => {
            Some("by its name this is a causal model, which makes its frames one after another")
        }
        Part::Vae if has(&["qwen", "hunyuan", "cosmos"]) => Some("by its name this is the VAE of another model"),
        _ => None,
    }
}

/// The few-step model that a transformer is, by its tensors.
pub fn few_steps(checkpoint: &Checkpoint) -> Option<&'static str> {
    checkpoint.tensors().any(|tensor| tensor.name.contains(".to_gate_compress.")).then_some(
        "the transformer is FastWan's, which was distilled for 3 steps with a sampler of its own; \
         other samplers and numbers of steps give other clips than it was trained for",
    )
}
