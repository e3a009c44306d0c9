use super::*;
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
    write(at("tokenizer/tokenizer.json"), "{}");
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
    assert_eq!(files.scheduler().unwrap().flow_shift, 3.0);
    assert!(files.tokenizer().unwrap().ends_with("tokenizer.json"));
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
    assert!(files.vae().unwrap_err().to_string().contains("vae (looked for weights in vae/)"));
    assert!(files.tokenizer().unwrap_err().to_string().contains("tokenizer/tokenizer.json"));
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
    assert_eq!((summary.parts.len(), summary.problems.len()), (1, 2));
    assert!(summary.problems[1].contains("line 1"), "causes are kept: {}", summary.problems[1]);
}

/// Wan2.1's VAE in narrow: what can be inferred without a configuration.
const NARROW_VAE: &str = r#"{"_class_name": "AutoencoderKLWan", "base_dim": 2}"#;

fn single_files(folder: &Path) {
    // Without a config.json heads have 128 channels.
    let config = TRANSFORMER.replace(r#""attention_head_dim": 6"#, r#""attention_head_dim": 128"#);
    let tensors = TransformerConfig::from_json(here(), &config).unwrap().expected_tensors();
    save(folder.join("a.safetensors"), &original(Part::Transformer, tensors));
    save(folder.join("text_encoders/b.safetensors"), &original(Part::TextEncoder, text_encoder()));
    save(folder.join("vae/c.safetensors"), &original(Part::Vae, vae(NARROW_VAE)));
    write(folder.join("google/umt5-xxl/tokenizer.json"), "{}");
}

#[test]
fn single_files_are_known_by_their_tensors() {
    let folder = tempfile::tempdir().unwrap();
    single_files(folder.path());
    let files = ModelFiles::find(folder.path()).unwrap();
    assert_eq!((files.layout, files.missing().len()), (Layout::Original, 0));
    let (config, _) = files.transformer().unwrap();
    let same = TransformerConfig::from_json(here(), &TRANSFORMER.replace(": 6", ": 128")).unwrap();
    assert_eq!(config, same);
    assert_eq!(files.text_encoder().unwrap().0, TextEncoderConfig::from_json(here(), TEXT_ENCODER).unwrap());
    assert_eq!(files.vae().unwrap().0, VaeConfig::from_json(here(), NARROW_VAE).unwrap());
    assert_eq!(files.scheduler().unwrap().flow_shift, 5.0);
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
    single_files(folder.path());
    std::fs::copy(folder.path().join("a.safetensors"), folder.path().join("z.safetensors")).unwrap();
    assert!(problem().contains("both hold the transformer"), "{}", problem());
    std::fs::create_dir(folder.path().join("transformer_2")).unwrap();
    write(folder.path().join("model_index.json"), r#"{"_class_name": "WanPipeline"}"#);
    assert!(problem().contains("two transformers"), "{}", problem());
    write(folder.path().join("model_index.json"), r#"{"_class_name": "WanPipeline", "boundary_ratio": 0.9}"#);
    assert!(problem().contains("two transformers"), "{}", problem());
    write(folder.path().join("model_index.json"), r#"{"_class_name": "WanImageToVideoPipeline"}"#);
    assert!(problem().contains("WanImageToVideoPipeline"), "{}", problem());
    assert!(ModelFiles::find(folder.path().join("a.safetensors")).unwrap_err().to_string().contains("found a file"));
    assert!(matches!(ModelFiles::find(folder.path().join("none")), Err(ModelError::Io { .. })));
}
