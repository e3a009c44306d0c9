use super::*;
use crate::model::NamedFiles;
use safetensors::tensor::{Dtype, TensorView as Saved};
use std::collections::HashMap;

const TRANSFORMER: &str = r#"{"_class_name": "WanTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 6,
    "in_channels": 2, "out_channels": 2, "text_dim": 8, "freq_dim": 4, "ffn_dim": 10, "num_layers": 2}"#;
const TEXT_ENCODER: &str = r#"{"model_type": "umt5", "vocab_size": 9, "d_model": 8, "d_kv": 2, "num_heads": 3, "d_ff": 5,
    "num_layers": 1}"#;
const VAE: &str = r#"{"_class_name": "AutoencoderKLWan", "base_dim": 2, "z_dim": 2, "latents_mean": [0, 0],
    "latents_std": [1, 1]}"#;

type Tensors = Vec<(String, Vec<usize>)>;

fn here() -> &'static Path {
    Path::new("test")
}

fn transformer() -> Tensors {
    TransformerConfig::from_json(here(), TRANSFORMER).unwrap().expected_tensors()
}

fn text_encoder() -> Tensors {
    TextEncoderConfig::from_json(here(), TEXT_ENCODER).unwrap().expected_tensors()
}

fn vae(json: &str) -> Tensors {
    VaeConfig::from_json(here(), json).unwrap().expected_tensors()
}

/// The tensors under the original names, by the columns of the golden list.
fn original(part: Part, tensors: Tensors) -> Tensors {
    let path = format!("{}/tests/golden/weights/{part}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let columns = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let names: HashMap<_, _> = columns.map(|columns| (columns[1].to_owned(), columns[0].to_owned())).collect();
    tensors.into_iter().map(|(name, shape)| (names[&name].clone(), shape)).collect()
}

fn save(path: PathBuf, tensors: &Tensors) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let zeros = vec![0u8; 1 << 20];
    let view = |shape: &Vec<usize>| {
        Saved::new(Dtype::F16, shape.clone(), &zeros[..2 * shape.iter().product::<usize>()]).unwrap()
    };
    safetensors::serialize_to_file(tensors.iter().map(|(name, shape)| (name, view(shape))), None, &path).unwrap();
}

fn write(path: PathBuf, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A tokenizer of so many pieces.
fn tokenizer(path: PathBuf, pieces: usize) {
    let special = ["<pad>", "</s>", "<s>", "<unk>"].map(String::from);
    let vocab: Vec<_> = special.into_iter().chain((4..pieces).map(|i| format!("p{i}"))).map(|p| (p, -1.0)).collect();
    let json = serde_json::json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab}});
    write(path, &json.to_string());
}

/// A complete model in the diffusers layout.
fn diffusers() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(at("model_index.json"), r#"{"_class_name": "WanPipeline"}"#);
    write(at("transformer/config.json"), TRANSFORMER);
    save(at("transformer/diffusion_pytorch_model.safetensors"), &transformer());
    write(at("text_encoder/config.json"), TEXT_ENCODER);
    save(at("text_encoder/model.safetensors"), &text_encoder());
    write(at("vae/config.json"), VAE);
    save(at("vae/diffusion_pytorch_model.safetensors"), &vae(VAE));
    tokenizer(at("tokenizer/tokenizer.json"), 9);
    let scheduler = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#;
    write(at("scheduler/scheduler_config.json"), scheduler);
    folder
}

#[test]
fn a_complete_diffusers_folder() {
    let folder = diffusers();
    let files = ModelFiles::find(folder.path()).unwrap();
    assert_eq!((files.layout, files.missing().len()), (Layout::Diffusers, 0));
    assert_eq!(files.transformer().unwrap().0.num_layers, 2);
    assert_eq!(files.text_encoder().unwrap().1.len(), 12);
    assert_eq!(files.vae().unwrap().0.z_dim, 2);
    assert_eq!(files.scheduler().unwrap().flow_shift, Some(3.0));
    assert_eq!(files.tokenizer(&files.text_encoder().unwrap().0).unwrap().pieces(), 9);
    let summary = ModelSummary::new(&files);
    assert!(summary.is_complete(), "{summary}");
    let text = summary.to_string();
    for expected in ["diffusers layout", "12 wide, 2 heads, 2 blocks", "8x space", "Euler, shift 3", "F16", "69"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["parts"][0]["part"], "transformer");
    assert_eq!(json["parts"][0]["tensors"], 69);
    assert_eq!(json["transformer"]["num_layers"], 2);
    let bytes: u64 = transformer().iter().map(|(_, shape)| 2 * shape.iter().product::<usize>() as u64).sum();
    assert_eq!(json["parts"][0]["dtypes"]["F16"], bytes);
}

#[test]
fn what_is_missing_is_named() {
    let folder = diffusers();
    std::fs::remove_dir_all(folder.path().join("vae")).unwrap();
    std::fs::remove_dir_all(folder.path().join("tokenizer")).unwrap();
    let files = ModelFiles::find(folder.path()).unwrap();
    assert_eq!(files.missing().len(), 2);
    assert!(files.vae().unwrap_err().to_string().contains("vae (looked for weights in vae/"));
    let encoder = files.text_encoder().unwrap().0;
    assert!(files.tokenizer(&encoder).unwrap_err().to_string().contains("tokenizer/tokenizer.json"));
    let text = ModelSummary::new(&files).to_string();
    assert!(text.contains("missing: vae") && text.contains("missing: tokenizer"), "{text}");
}

#[test]
fn wrong_tensors_are_named() {
    let folder = diffusers();
    let path = folder.path().join("transformer/diffusion_pytorch_model.safetensors");
    let mut tensors = transformer();
    tensors.retain(|(name, _)| name != "blocks.1.attn2.to_k.bias");
    tensors.iter_mut().find(|(name, _)| name == "proj_out.bias").unwrap().1 = vec![3];
    tensors.push(("extra".into(), vec![1]));
    save(path, &tensors);
    let files = ModelFiles::find(folder.path()).unwrap();
    let problem = files.transformer().unwrap_err().to_string();
    assert!(problem.contains("1 tensor missing: blocks.1.attn2.to_k.bias"), "{problem}");
    assert!(problem.contains("proj_out.bias is [3], expected [8]"), "{problem}");
    let summary = ModelSummary::new(&files);
    assert!(!summary.is_complete());
    assert!(summary.to_string().contains("transformer: 1 tensor not expected, and not used: extra"), "{summary}");
}

#[test]
fn parts_must_fit_each_other() {
    let folder = diffusers();
    let narrow = TEXT_ENCODER.replace(r#""d_model": 8"#, r#""d_model": 4"#);
    write(folder.path().join("text_encoder/config.json"), &narrow);
    let tensors = TextEncoderConfig::from_json(here(), &narrow).unwrap().expected_tensors();
    save(folder.path().join("text_encoder/model.safetensors"), &tensors);
    let summary = ModelSummary::new(&ModelFiles::find(folder.path()).unwrap());
    assert_eq!(summary.problems, ["transformer text_dim is 8, but text_encoder d_model is 4"]);
}

#[test]
fn a_damaged_part_does_not_hide_the_others() {
    let folder = diffusers();
    write(folder.path().join("vae/config.json"), "{");
    std::fs::write(folder.path().join("transformer/diffusion_pytorch_model.safetensors"), b"short").unwrap();
    let summary = ModelSummary::new(&ModelFiles::find(folder.path()).unwrap());
    assert_eq!((summary.parts.len(), summary.problems.len(), summary.missing.len()), (1, 1, 1));
    assert!(summary.problems[0].contains("line 1"), "causes are kept: {}", summary.problems[0]);
    assert!(summary.missing[0].contains("transformer/diffusion_pytorch_model.safetensors"), "{:?}", summary.missing);
    assert!(!summary.complete && summary.to_string().contains("not taken for the transformer"), "{summary}");
}

/// Wan2.1's VAE in narrow: what can be inferred without a configuration.
const NARROW_VAE: &str = r#"{"_class_name": "AutoencoderKLWan", "base_dim": 2}"#;

/// A transformer that fits this VAE. Without a config.json heads have 128 channels.
fn single_transformer() -> TransformerConfig {
    let config = TRANSFORMER.replace(r#""attention_head_dim": 6"#, r#""attention_head_dim": 128"#);
    TransformerConfig::from_json(here(), &config.replace("_channels\": 2", "_channels\": 16")).unwrap()
}

fn single_files(folder: &Path) {
    let tensors = single_transformer().expected_tensors();
    save(folder.join("a.safetensors"), &original(Part::Transformer, tensors));
    save(folder.join("text_encoders/b.safetensors"), &original(Part::TextEncoder, text_encoder()));
    save(folder.join("vae/c.safetensors"), &original(Part::Vae, vae(NARROW_VAE)));
    tokenizer(folder.join("google/umt5-xxl/tokenizer.json"), 9);
}

#[test]
fn single_files_are_known_by_their_tensors() {
    let folder = tempfile::tempdir().unwrap();
    single_files(folder.path());
    let files = ModelFiles::find(folder.path()).unwrap();
    assert_eq!((files.layout, files.missing().len()), (Layout::Original, 0));
    let (config, _) = files.transformer().unwrap();
    assert_eq!(config, single_transformer());
    assert_eq!(files.text_encoder().unwrap().0, TextEncoderConfig::from_json(here(), TEXT_ENCODER).unwrap());
    assert_eq!(files.vae().unwrap().0, VaeConfig::from_json(here(), NARROW_VAE).unwrap());
    assert_eq!(files.scheduler().unwrap().flow_shift, Some(5.0));
}

#[test]
fn the_original_config_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    save(at("diffusion_pytorch_model.safetensors"), &original(Part::Transformer, transformer()));
    let config = r#"{"_class_name": "WanModel", "dim": 12, "num_heads": 2, "in_dim": 2, "out_dim": 2, "text_dim": 8,
        "freq_dim": 4, "ffn_dim": 10, "num_layers": 2, "model_type": "t2v"}"#;
    let no_config = ModelFiles::find(folder.path()).unwrap().transformer().unwrap_err().to_string();
    assert!(no_config.contains("width 12 is no multiple of 128"), "{no_config}");
    write(at("config.json"), config);
    let files = ModelFiles::find(folder.path()).unwrap();
    assert_eq!(files.transformer().unwrap().0, TransformerConfig::from_json(here(), TRANSFORMER).unwrap());
    assert_eq!(files.missing().len(), 3);
    assert!(files.missing()[0].contains("models_t5_umt5-xxl-enc-bf16.pth"));
}

#[test]
fn one_file_may_hold_every_part() {
    let folder = tempfile::tempdir().unwrap();
    let prefixed = |prefix: &str, tensors: Tensors| -> Tensors {
        tensors.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect()
    };
    let mut all = prefixed("model.diffusion_model.", original(Part::Transformer, transformer()));
    all.extend(prefixed("text_encoders.umt5xxl.transformer.", text_encoder()));
    all.extend(prefixed("vae.", original(Part::Vae, vae(NARROW_VAE))));
    save(folder.path().join("everything.safetensors"), &all);
    let files = ModelFiles::find(folder.path()).unwrap();
    assert_eq!(files.parts.len(), 3);
    assert_eq!(files.text_encoder().unwrap().1.len(), 12);
    assert_eq!(files.vae().unwrap().1.len(), 194);
}

#[test]
fn what_is_no_wan_model() {
    let folder = tempfile::tempdir().unwrap();
    let problem = || ModelFiles::find(folder.path()).unwrap_err().to_string();
    assert!(problem().contains("no model in it"));
    std::fs::write(folder.path().join("a.gguf"), b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    assert!(problem().contains("passed over: a.gguf (a file without tensors)"), "{}", problem());
    single_files(folder.path());
    std::fs::create_dir(folder.path().join("transformer_2")).unwrap();
    write(folder.path().join("model_index.json"), r#"{"_class_name": "WanPipeline"}"#);
    assert!(problem().contains("two transformers"), "{}", problem());
    write(folder.path().join("model_index.json"), r#"{"_class_name": "WanPipeline", "boundary_ratio": 0.9}"#);
    assert!(problem().contains("two transformers"), "{}", problem());
    std::fs::remove_dir(folder.path().join("transformer_2")).unwrap();
    write(folder.path().join("model_index.json"), r#"{"_class_name": "WanImageToVideoPipeline"}"#);
    assert!(problem().contains("WanImageToVideoPipeline"), "{}", problem());
    assert!(matches!(ModelFiles::find(folder.path().join("none")), Err(ModelError::Io { .. })));
}

/// A folder of single files.
fn original_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    single_files(folder.path());
    folder
}

/// Every part of the folder can be opened.
fn runs(folder: &Path) -> ModelFiles {
    let files = ModelFiles::find(folder).unwrap();
    let summary = ModelSummary::new(&files);
    assert!(summary.is_complete(), "{summary}");
    files
}

/// Files of other models and damaged files lie beside a good model. They are passed over, each with
/// its reason.
#[test]
fn neighbours_are_passed_over() {
    let folder = original_folder();
    let at = |name: &str| folder.path().join(name);
    let tensors = |names: &[(&str, &[usize])]| -> Tensors {
        names.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    };
    let t5 = [
        ("shared.weight", &[9, 8][..]),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", &[8, 8]),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", &[32, 3]),
        ("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", &[8, 8]),
        ("encoder.block.1.layer.0.SelfAttention.q.weight", &[8, 8]),
    ];
    let cases: [(&str, Tensors, &str); 8] = [
        ("text_encoders/t5xxl.safetensors", tensors(&t5), "T5 text encoder"),
        (
            "text_encoders/clip_l.safetensors",
            tensors(&[("text_model.encoder.layers.0.mlp.fc1.weight", &[2, 2])]),
            "CLIP",
        ),
        ("flux.safetensors", tensors(&[("double_blocks.0.img_attn.qkv.weight", &[2, 2])]), "Flux"),
        ("sd.safetensors", tensors(&[("model.diffusion_model.input_blocks.0.0.weight", &[2, 2, 3, 3])]), "UNet"),
        ("vae/sdxl.safetensors", tensors(&[("decoder.conv_in.weight", &[2, 4, 3, 3])]), "a VAE of another model"),
        ("lora.safetensors", tensors(&[("diffusion_model.blocks.0.self_attn.q.lora_A.weight", &[4, 2])]), "a LoRA"),
        (
            "vae/wan2.2_vae.safetensors",
            tensors(&[("decoder.conv_in.weight", &[8, 48, 3, 3, 3]), ("decoder.conv_out.weight", &[12, 8, 3, 3, 3])]),
            "Wan2.2's VAE (48 latent channels, 12 of output)",
        ),
        (
            "i2v.safetensors",
            tensors(&[("patch_embedding.weight", &[8, 36, 1, 2, 2]), ("blocks.0.self_attn.q.weight", &[8, 8])]),
            "image to video",
        ),
    ];
    for (name, tensors, _) in &cases {
        save(at(name), tensors);
    }
    let damaged: [(&str, &[u8], &str); 6] = [
        ("half.safetensors", b"abc", "first bytes"),
        ("old.pt", b"text", "first bytes"),
        ("upscaler.pth", b"\x80\x02}q\0.", "bare pickle"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("page.gguf", b"<!DOCTYPE html>", "web page"),
        ("empty.ckpt", b"", "empty"),
    ];
    for (name, bytes, _) in damaged {
        std::fs::write(at(name), bytes).unwrap();
    }
    write(at("other.safetensors.index.json"), r#"{"weight_map": {"a": "b-00001-of-00002.safetensors"}}"#);
    let files = runs(folder.path());
    let text = ModelSummary::new(&files).to_string();
    let expected = cases.iter().map(|(name, _, why)| (*name, *why));
    for (name, why) in expected.chain(damaged.map(|(name, _, why)| (name, why))).chain([("other.safetensors", "stale")])
    {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(line.contains(why), "{name}: {line}");
    }
}

#[test]
fn of_several_the_user_names_one() {
    let folder = original_folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(at("a.safetensors"), at("z.safetensors")).unwrap();
    let files = ModelFiles::find(folder.path()).unwrap();
    let problem = files.transformer().unwrap_err().to_string();
    assert!(problem.contains("a.safetensors and z.safetensors both hold it"), "{problem}");
    assert!(problem.contains("--transformer FILE"), "{problem}");
    let named = |file: &str| NamedFiles { transformer: Some(at(file)), ..NamedFiles::default() };
    let files = ModelFiles::find_named(folder.path(), &named("z.safetensors")).unwrap();
    assert!(files.transformer().unwrap().1.path().ends_with("z.safetensors"));
    assert_eq!(files.missing(), Vec::<String>::new());
    let by_file = ModelFiles::find(at("a.safetensors")).unwrap();
    assert!(by_file.transformer().unwrap().1.path().ends_with("a.safetensors"));
    let wrong = ModelFiles::find_named(folder.path(), &named("vae/c.safetensors")).unwrap_err().to_string();
    assert!(wrong.contains("it holds the vae, not the transformer"), "{wrong}");
    std::fs::write(at("page.safetensors"), b"<html>").unwrap();
    let wrong = ModelFiles::find_named(folder.path(), &named("page.safetensors")).unwrap_err().to_string();
    assert!(wrong.contains("web page"), "{wrong}");
    assert!(ModelFiles::find_named(folder.path(), &named("none")).is_err());
}

/// Files with the right tensors and other values are told by their names alone. They are never
/// taken by themselves.
#[test]
fn doubtful_files_are_taken_only_by_name() {
    let folder = original_folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(at("vae/c.safetensors"), at("vae/qwen_image_vae.safetensors")).unwrap();
    let files = runs(folder.path());
    assert!(files.vae().unwrap().1.path().ends_with("c.safetensors"));
    let high = "wan2.2_t2v_high_noise_14B.safetensors";
    std::fs::rename(at("a.safetensors"), at(high)).unwrap();
    let problem = ModelFiles::find(folder.path()).unwrap().transformer().unwrap_err().to_string();
    assert!(problem.contains("two experts of Wan2.2 A14B") && problem.contains("--transformer FILE"), "{problem}");
    let files = ModelFiles::find(at(high)).unwrap();
    assert!(files.transformer().is_ok() && files.warnings[0].contains("two experts"), "{:?}", files.warnings);
}

#[test]
fn folders_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("models--Wan-AI--Wan2.1");
    single_files(&root.join("snapshots/0123"));
    for place in [root.clone(), root.join("snapshots"), root.join("snapshots/0123")] {
        assert!(runs(&place).folder.ends_with("0123"));
    }
    std::fs::create_dir(root.join("snapshots/4567")).unwrap();
    let several = ModelFiles::find(&root).unwrap_err().to_string();
    assert!(several.contains("2 revisions"), "{several}");
    write(root.join("refs/main"), "0123\n");
    assert!(runs(&root).folder.ends_with("0123"));
}

#[test]
fn other_folders_endings_and_configurations() {
    let folder = original_folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("clip")).unwrap();
    std::fs::rename(at("text_encoders/b.safetensors"), at("clip/b.safetensors")).unwrap();
    std::fs::rename(at("google/umt5-xxl/tokenizer.json"), at("clip/tokenizer.json")).unwrap();
    std::fs::rename(at("a.safetensors"), at("a.sft")).unwrap();
    write(at("vae/config.json"), r#"{"_class_name": "AutoencoderKL"}"#);
    write(at("config.json"), r#"{"model_type": "flux"}"#);
    let files = runs(folder.path());
    assert_eq!(files.vae().unwrap().0.base_dim, 2);
}

/// Prefixes, shards without an index, and a wrong kind of ending.
#[test]
fn packagings_of_one_model() {
    let folder = original_folder();
    let at = |name: &str| folder.path().join(name);
    let tensors = single_transformer().expected_tensors();
    let id = ModelFiles::find(folder.path()).unwrap().transformer().unwrap().1.id();
    for prefix in ["_orig_mod.", "module.", "model.", "model.diffusion_model.", "net.module."] {
        let prefixed = tensors.iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.clone())).collect();
        save(at("a.safetensors"), &prefixed);
        assert_eq!(runs(folder.path()).transformer().unwrap().1.id(), id, "{prefix}");
    }
    std::fs::remove_file(at("a.safetensors")).unwrap();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    save(at("m-00001-of-00002.safetensors"), &first.to_vec());
    assert!(ModelFiles::find(folder.path()).unwrap().missing()[0].contains("transformer"));
    save(at("m-00002-of-00002.safetensors"), &second.to_vec());
    assert_eq!(runs(folder.path()).transformer().unwrap().1.id(), id);
}

#[test]
fn tensors_left_over() {
    let folder = diffusers();
    let at = |name: &str| folder.path().join(name);
    let weights = "transformer/diffusion_pytorch_model.safetensors";
    let find = || ModelFiles::find(folder.path()).unwrap();
    write(at("transformer/config.json"), &TRANSFORMER.replace(r#""num_layers": 2"#, r#""num_layers": 1"#));
    let problem = find().transformer().unwrap_err().to_string();
    assert!(problem.contains("blocks up to number 1, but its configuration says 1 blocks"), "{problem}");
    write(at("transformer/config.json"), TRANSFORMER);
    let mut gated = transformer();
    gated.push(("blocks.0.to_gate_compress.weight".into(), vec![12, 12]));
    save(at(weights), &gated);
    let (config, checkpoint) = find().transformer().unwrap();
    assert_eq!(leftover(Part::Transformer, &config, &checkpoint), None);
    assert!(few_steps(&checkpoint).is_some_and(|what| what.contains("FastWan")));
    let mut attached = transformer();
    for (name, _) in attached.iter_mut().filter(|(name, _)| name.contains(".to_q.")) {
        *name = name.replace(".to_q.", ".to_q.base_layer.");
    }
    attached.push(("blocks.0.attn1.to_q.lora_A.default.weight".into(), vec![4, 12]));
    save(at(weights), &attached);
    let problem = find().transformer().unwrap_err().to_string();
    assert!(problem.contains("a LoRA is attached"), "{problem}");
    save(at(weights), &transformer());
    write(at("vae/config.json"), &VAE.replace(r#""z_dim": 2"#, r#""z_dim": 2, "out_channels": 12"#));
    let tensors = vae(&VAE.replace(r#""z_dim": 2"#, r#""z_dim": 2, "out_channels": 12"#));
    save(at("vae/diffusion_pytorch_model.safetensors"), &tensors);
    let problem = find().vae().unwrap_err().to_string();
    assert!(problem.contains("12 of output"), "{problem}");
}

#[test]
fn tokenizers_of_other_models_are_noticed() {
    let folder = original_folder();
    let at = |name: &str| folder.path().join(name);
    let json = "google/umt5-xxl/tokenizer.json";
    let problems = || ModelSummary::new(&ModelFiles::find(folder.path()).unwrap()).all_problems();
    tokenizer(at(json), 5);
    assert!(problems()[0].contains("5 pieces, but the text encoder knows 9"), "{:?}", problems());
    write(at(json), "{}");
    assert!(problems()[0].contains("not a usable tokenizer"), "{:?}", problems());
    write(at(json), "version https://git-lfs.github.com/spec/v1\noid sha256:1\n");
    assert!(problems()[0].contains("git lfs pull"), "{:?}", problems());
    tokenizer(at("tokenizer.json"), 9);
    assert_eq!(problems(), Vec::<String>::new(), "another one is taken");
}

/// A SentencePiece model beside the encoder, or in it.
#[test]
fn tokenizers_without_json() {
    let model = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights/pieces.model")).unwrap();
    let folder = original_folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::remove_file(at("google/umt5-xxl/tokenizer.json")).unwrap();
    let encoder = TEXT_ENCODER.replace(r#""vocab_size": 9"#, r#""vocab_size": 75"#);
    let tensors = TextEncoderConfig::from_json(here(), &encoder).unwrap().expected_tensors();
    save(at("text_encoders/b.safetensors"), &original(Part::TextEncoder, tensors.clone()));
    let missing = ModelFiles::find(folder.path()).unwrap().missing();
    assert!(missing[0].contains("in the text encoder's file"), "{missing:?}");
    std::fs::write(at("text_encoders/spiece.model"), &model).unwrap();
    runs(folder.path());
    std::fs::remove_file(at("text_encoders/spiece.model")).unwrap();
    let zeros = vec![0u8; 1 << 16];
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = &zeros[..2 * shape.iter().product::<usize>()];
        (name.clone(), Saved::new(Dtype::F16, shape.clone(), bytes).unwrap())
    });
    let carried = [("spiece_model".to_owned(), Saved::new(Dtype::U8, vec![model.len()], &model).unwrap())];
    safetensors::serialize_to_file(views.chain(carried), None, &at("text_encoders/b.safetensors")).unwrap();
    let files = runs(folder.path());
    let tokenizer = files.tokenizer(&files.text_encoder().unwrap().0).unwrap();
    assert_eq!(tokenizer.encode("a cat", 512).unwrap().last(), Some(&1));
}
