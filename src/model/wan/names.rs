//! Parts of a model and names of their tensors: every published layout of Wan2.1 to diffusers'
//! names.
//!
//! Sources: the original names are those of Wan-AI/Wan2.1 (`wan/modules/{model,t5,vae}.py`), the
//! new ones those of diffusers' `WanTransformer3DModel` and `AutoencoderKLWan` and of transformers'
//! `UMT5EncoderModel`. The tests compare with what diffusers' own conversion makes of the original
//! names.

use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// The three parts of a model that have weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The diffusion transformer.
    Transformer,
    /// The UMT5 text encoder.
    TextEncoder,
    /// The video autoencoder.
    Vae,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Transformer, Self::TextEncoder, Self::Vae];

    /// The part's folder in the diffusers layout.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Transformer => "transformer",
            Self::TextEncoder => "text_encoder",
            Self::Vae => "vae",
        }
    }

    /// Prefixes under which single-file checkpoints keep this part.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Transformer => &["model.diffusion_model.", "diffusion_model."],
            Self::TextEncoder => &["text_encoders.umt5xxl.transformer."],
            Self::Vae => &["vae.", "first_stage_model."],
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.folder())
    }
}

/// The diffusers name of one of `part`'s tensors, given its name in any layout. `None` for tensors
/// that belong to another part of a single-file checkpoint, and for the tokenizer that ComfyUI's
/// text encoders carry. Names that are already diffusers' and names that are not known come back as
/// they are, without prefixes.
pub fn diffusers_name(part: Part, name: &str) -> Option<String> {
    let name = without_wrappers(name);
    let name = strip_prefix(part, &name)?;
    match part {
        Part::Transformer => Some(transformer(name)),
        Part::TextEncoder if name == TOKENIZER_TENSOR => None,
        Part::TextEncoder => Some(text_encoder(name)),
        Part::Vae => Some(vae(name)),
    }
}

/// The tensor of bytes in which ComfyUI's text encoders carry their SentencePiece model.
pub const TOKENIZER_TENSOR: &str = "spiece_model";

/// The name without the words that torch's wrappers of modules put into names: `torch.compile`,
/// FSDP, and checkpointing of activations.
fn without_wrappers(name: &str) -> Cow<'_, str> {
    const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
    if !WRAPPERS.iter().any(|wrapper| name.contains(wrapper)) {
        return Cow::Borrowed(name);
    }
    let words: Vec<&str> = name.split('.').filter(|word| !WRAPPERS.contains(word)).collect();
    Cow::Owned(words.join("."))
}

/// The name without the prefixes of training and repackaging, which may be there more than once.
/// `None` for a prefix of another part.
fn strip_prefix(part: Part, name: &str) -> Option<&str> {
    const GENERAL: [&str; 3] = ["module.", "model.", "net."];
    let of = |part: Part, name| part.prefixes().iter().find_map(|prefix| str::strip_prefix(name, prefix));
    let mut name = name;
    loop {
        let general = || GENERAL.iter().find_map(|prefix| name.strip_prefix(prefix));
        match of(part, name).or_else(general) {
            Some(rest) => name = rest,
            None => return Part::ALL.into_iter().all(|other| of(other, name).is_none()).then_some(name),
        }
    }
}

type Renames = &'static [(&'static str, &'static str)];

/// Replaces the start of `name` by the first entry that it starts with.
fn renamed(name: &str, renames: Renames) -> String {
    renames
        .iter()
        .find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)))
        .unwrap_or_else(|| name.to_owned())
}

/// Splits `prefix.N.rest` into N and the rest.
fn numbered<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

fn transformer(name: &str) -> String {
    const TOP: Renames = &[
        ("time_embedding.0.", "condition_embedder.time_embedder.linear_1."),
        ("time_embedding.2.", "condition_embedder.time_embedder.linear_2."),
        ("text_embedding.0.", "condition_embedder.text_embedder.linear_1."),
        ("text_embedding.2.", "condition_embedder.text_embedder.linear_2."),
        ("time_projection.1.", "condition_embedder.time_proj."),
        ("head.modulation", "scale_shift_table"),
        ("head.head.", "proj_out."),
    ];
    // The affine norm before cross-attention is the original's third and diffusers' second; the
    // others have no weights.
    const BLOCK: Renames = &[
        ("modulation", "scale_shift_table"),
        ("norm3.", "norm2."),
        ("ffn.0.", "ffn.net.0.proj."),
        ("ffn.2.", "ffn.net.2."),
    ];
    const ATTENTION: Renames = &[("q.", "to_q."), ("k.", "to_k."), ("v.", "to_v."), ("o.", "to_out.0.")];
    let Some((block, rest)) = numbered(name, "blocks.") else {
        return renamed(name, TOP);
    };
    let rest = if let Some(rest) = rest.strip_prefix("self_attn.") {
        format!("attn1.{}", renamed(rest, ATTENTION))
    } else if let Some(rest) = rest.strip_prefix("cross_attn.") {
        format!("attn2.{}", renamed(rest, ATTENTION))
    } else {
        renamed(rest, BLOCK)
    };
    format!("blocks.{block}.{rest}")
}

fn text_encoder(name: &str) -> String {
    const TOP: Renames = &[
        ("token_embedding.", "shared."),
        ("encoder.embed_tokens.", "shared."),
        ("norm.", "encoder.final_layer_norm."),
        ("token_embd.", "shared."),
        ("enc.output_norm.", "encoder.final_layer_norm."),
    ];
    const BLOCK: Renames = &[
        ("norm1.", "layer.0.layer_norm."),
        ("attn.", "layer.0.SelfAttention."),
        ("pos_embedding.embedding.", "layer.0.SelfAttention.relative_attention_bias."),
        ("norm2.", "layer.1.layer_norm."),
        ("ffn.gate.0.", "layer.1.DenseReluDense.wi_0."),
        ("ffn.fc1.", "layer.1.DenseReluDense.wi_1."),
        ("ffn.fc2.", "layer.1.DenseReluDense.wo."),
    ];
    // The names of llama.cpp, which GGUF files have.
    const LLAMA: Renames = &[
        ("attn_norm.", "layer.0.layer_norm."),
        ("attn_rel_b.", "layer.0.SelfAttention.relative_attention_bias."),
        ("attn_", "layer.0.SelfAttention."),
        ("ffn_norm.", "layer.1.layer_norm."),
        ("ffn_gate.", "layer.1.DenseReluDense.wi_0."),
        ("ffn_up.", "layer.1.DenseReluDense.wi_1."),
        ("ffn_down.", "layer.1.DenseReluDense.wo."),
    ];
    if let Some((block, rest)) = numbered(name, "enc.blk.") {
        return format!("encoder.block.{block}.{}", renamed(rest, LLAMA));
    }
    match numbered(name, "blocks.") {
        Some((block, rest)) => format!("encoder.block.{block}.{}", renamed(rest, BLOCK)),
        None => renamed(name, TOP),
    }
}

fn vae(name: &str) -> String {
    const TOP: Renames = &[("conv1.", "quant_conv."), ("conv2.", "post_quant_conv.")];
    match name.split_once('.') {
        Some((side @ ("encoder" | "decoder"), rest)) => format!("{side}.{}", vae_side(rest)),
        _ => renamed(name, TOP),
    }
}

/// A name within the encoder or the decoder.
fn vae_side(name: &str) -> String {
    const SIDE: Renames = &[
        ("conv1.", "conv_in."),
        ("middle.1.", "mid_block.attentions.0."),
        ("head.0.", "norm_out."),
        ("head.2.", "conv_out."),
    ];
    const RESNET: Renames = &[
        ("residual.0.", "norm1."),
        ("residual.2.", "conv1."),
        ("residual.3.", "norm2."),
        ("residual.6.", "conv2."),
        ("shortcut.", "conv_shortcut."),
    ];
    /// Layers of one decoder level in the original's flat list: three residual blocks and the
    /// upsampler.
    const LEVEL: usize = 4;
    if let Some((layer @ (0 | 2), rest)) = numbered(name, "middle.") {
        return format!("mid_block.resnets.{}.{}", layer / 2, renamed(rest, RESNET));
    }
    if let Some((layer, rest)) = numbered(name, "downsamples.") {
        return format!("down_blocks.{layer}.{}", renamed(rest, RESNET));
    }
    match numbered(name, "upsamples.") {
        Some((layer, rest)) if layer % LEVEL == LEVEL - 1 => {
            format!("up_blocks.{}.upsamplers.0.{rest}", layer / LEVEL)
        }
        Some((layer, rest)) => {
            format!("up_blocks.{}.resnets.{}.{}", layer / LEVEL, layer % LEVEL, renamed(rest, RESNET))
        }
        None => renamed(name, SIDE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> Vec<[String; 2]> {
        let path = format!("{}/tests/golden/weights/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let pair = |line: &str| {
            let mut columns = line.split(' ').map(String::from);
            [columns.next().unwrap(), columns.next().unwrap()]
        };
        text.lines().map(pair).collect()
    }

    // The middle column is what diffusers' conversion makes of the first (tests/golden/weights.py).
    // Mutations caught: any entry of any table left out or exchanged (norm2 with norm3, wi_0 with
    // wi_1, norm1 with norm2), LEVEL of 3 or 5.
    #[test]
    fn every_original_name_becomes_diffusers_name() {
        for (part, count) in [(Part::Transformer, 69), (Part::TextEncoder, 22), (Part::Vae, 194)] {
            let pairs = golden(part.folder());
            assert_eq!(pairs.len(), count);
            for [original, diffusers] in &pairs {
                assert_eq!(diffusers_name(part, original).as_ref(), Some(diffusers));
                assert_eq!(diffusers_name(part, diffusers).as_ref(), Some(diffusers), "must not change");
                for prefix in part.prefixes() {
                    assert_eq!(diffusers_name(part, &format!("{prefix}{original}")).as_ref(), Some(diffusers));
                }
            }
        }
    }

    #[test]
    fn parts_of_a_single_file_are_kept_apart() {
        let names = ["model.diffusion_model.patch_embedding.weight", "vae.decoder.conv1.weight", "other"];
        assert_eq!(diffusers_name(Part::Vae, names[0]), None);
        assert_eq!(diffusers_name(Part::Vae, names[1]).as_deref(), Some("decoder.conv_in.weight"));
        assert_eq!(diffusers_name(Part::Vae, "other").as_deref(), Some("other"));
    }

    /// Prefixes of training and repackaging, alone, doubled and within the name.
    #[test]
    fn wrappers_come_off() {
        let expected = Some("blocks.0.attn1.to_q.weight");
        for name in [
            "_orig_mod.blocks.0.self_attn.q.weight",
            "module.blocks.0.self_attn.q.weight",
            "module.module.blocks.0.attn1.to_q.weight",
            "model._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.self_attn.q.weight",
            "model.diffusion_model.blocks.0.self_attn.q.weight",
            "model.model.diffusion_model.blocks.0._checkpoint_wrapped_module.self_attn._orig_mod.q.weight",
            "net.blocks.0.self_attn.q.weight",
        ] {
            assert_eq!(diffusers_name(Part::Transformer, name).as_deref(), expected, "{name}");
        }
        assert_eq!(diffusers_name(Part::Vae, "model.decoder.conv1.weight").as_deref(), Some("decoder.conv_in.weight"));
        assert_eq!(diffusers_name(Part::Vae, "model.diffusion_model.head.modulation"), None);
    }

    #[test]
    fn names_of_llama() {
        for (name, expected) in [
            ("token_embd.weight", "shared.weight"),
            ("enc.output_norm.weight", "encoder.final_layer_norm.weight"),
            ("enc.blk.3.attn_norm.weight", "encoder.block.3.layer.0.layer_norm.weight"),
            ("enc.blk.3.attn_q.weight", "encoder.block.3.layer.0.SelfAttention.q.weight"),
            ("enc.blk.3.attn_o.weight", "encoder.block.3.layer.0.SelfAttention.o.weight"),
            ("enc.blk.3.attn_rel_b.weight", "encoder.block.3.layer.0.SelfAttention.relative_attention_bias.weight"),
            ("enc.blk.3.ffn_norm.weight", "encoder.block.3.layer.1.layer_norm.weight"),
            ("enc.blk.3.ffn_gate.weight", "encoder.block.3.layer.1.DenseReluDense.wi_0.weight"),
            ("enc.blk.3.ffn_up.weight", "encoder.block.3.layer.1.DenseReluDense.wi_1.weight"),
            ("enc.blk.3.ffn_down.weight", "encoder.block.3.layer.1.DenseReluDense.wo.weight"),
        ] {
            assert_eq!(diffusers_name(Part::TextEncoder, name).as_deref(), Some(expected));
        }
    }

    #[test]
    fn aliases_and_strangers() {
        assert_eq!(diffusers_name(Part::TextEncoder, "encoder.embed_tokens.weight").as_deref(), Some("shared.weight"));
        assert_eq!(diffusers_name(Part::TextEncoder, "spiece_model"), None);
        for odd in ["", ".", "blocks.", "blocks.x.ffn.0.weight", "encoder.", "decoder.upsamples.18446744073709551616.a"]
        {
            for part in Part::ALL {
                assert_eq!(diffusers_name(part, odd).as_deref(), Some(odd));
            }
        }
    }
}
