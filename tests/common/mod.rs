//! The goldens of `tests/golden` for the tests: synthetic model folders, inputs, and the outputs of
//! diffusers and transformers. `tests/golden/README.md` says how they were made.

pub mod synth;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

pub use synth::Recipe;

/// The names of all goldens, which are the names of their files.
pub const GOLDENS: [&str; 8] = [
    "transformer_3x40",
    "transformer_2x128",
    "transformer_patch1",
    "transformer_6x32",
    "text_encoder",
    "vae_wan",
    "vae_odd",
    "pipeline",
];

/// Storage types of the synthetic checkpoints.
pub const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// Largest `rel_error` with f32 activations, for weights stored in any of `DTYPES`. The reference
/// uses the rounded weights.
pub const LIMIT: f64 = 2e-5;

/// An f32 tensor on the CPU, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, slowest first.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Vec<f32>,
}

/// A synthetic model folder with test cases and reference outputs.
pub struct Golden {
    /// Name of the golden's files, without extension.
    pub name: String,
    /// The cases, in the order of the script that made them.
    pub cases: Vec<Case>,
    parts: BTreeMap<String, Part>,
    files: BTreeMap<String, Value>,
    outputs: BTreeMap<String, Tensor>,
}

/// One model of the folder: its config.json and the recipes of its weights.
#[derive(Deserialize)]
pub struct Part {
    /// The config.json that diffusers or transformers writes.
    pub config: Value,
    /// The weights, in the order of the checksum.
    pub tensors: Vec<Recipe>,
    /// The `synth::checksum` of all weights for each storage type, in hexadecimal.
    pub checksums: BTreeMap<String, String>,
}

/// One run of the model.
#[derive(Deserialize)]
pub struct Case {
    /// The name, unique within the golden.
    pub name: String,
    /// Arguments that are not tensors, such as timestep, ids and prompt.
    #[serde(default)]
    pub params: Value,
    /// The error of the reference's f32 run, by dtype and then by output.
    pub outputs: BTreeMap<String, BTreeMap<String, Measured>>,
    #[serde(default)]
    inputs: BTreeMap<String, Recipe>,
}

/// A fact about one output.
#[derive(Deserialize)]
pub struct Measured {
    /// `rel_error` of the unmodified reference in f32 against the stored output. The stored output
    /// was computed in f64.
    pub reference_error: f64,
}

/// The contents of data/NAME.json.
#[derive(Deserialize)]
struct Document {
    parts: BTreeMap<String, Part>,
    files: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

/// The tokenizer with as many pieces as the text encoder knows. Those that are added are in no
/// text, and are as likely as the least likely of the others.
fn tokenizer_of(known: usize) -> Value {
    let text = fs::read_to_string(data_file("tokenizer.json")).expect("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&text).expect("tokenizer.json");
    let pieces = tokenizer["model"]["vocab"].as_array_mut().expect("pieces");
    let least = pieces.iter().filter_map(|piece| piece[1].as_f64()).fold(f64::INFINITY, f64::min);
    for number in pieces.len()..known {
        pieces.push(serde_json::json!([format!("\u{f8ff}{number}"), least]));
    }
    tokenizer
}

impl Golden {
    /// Reads a golden by name (one of `GOLDENS`).
    pub fn load(name: &str) -> Self {
        let text = fs::read_to_string(data_file(&format!("{name}.json"))).expect(name);
        let doc: Document = serde_json::from_str(&text).expect(name);
        let outputs = read_tensors(&data_file(&format!("{name}.safetensors")));
        Self { name: name.into(), cases: doc.cases, parts: doc.parts, files: doc.files, outputs }
    }

    /// The goldens whose name starts with `prefix`.
    pub fn with_prefix(prefix: &str) -> Vec<Self> {
        GOLDENS.iter().filter(|name| name.starts_with(prefix)).map(|name| Self::load(name)).collect()
    }

    /// The models with the names of their folders.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &Part)> {
        self.parts.iter().map(|(folder, part)| (folder.as_str(), part))
    }

    /// Writes the model folder in diffusers' layout into `dir`, with weights stored as `dtype`.
    pub fn materialise(&self, dir: &Path, dtype: Dtype) {
        for (folder, part) in &self.parts {
            let folder_path = dir.join(folder);
            write_json(&folder_path.join("config.json"), &part.config);
            let weights = self.weights(folder, dtype);
            let views = part.tensors.iter().zip(&weights).map(|(recipe, bytes)| {
                (&recipe.name, TensorView::new(dtype, recipe.shape.clone(), bytes).expect("sizes agree"))
            });
            safetensors::serialize_to_file(views, None, &folder_path.join(weights_file(folder)))
                .expect("weights written");
        }
        for (path, contents) in &self.files {
            write_json(&dir.join(path), contents);
        }
        if let Some(encoder) = self.parts.get("text_encoder") {
            let known = encoder.config["vocab_size"].as_u64().expect("vocab_size");
            write_json(&dir.join("tokenizer/tokenizer.json"), &tokenizer_of(known as usize));
        }
    }

    /// The bytes of all weights of `folder` stored as `dtype`, in the order of `Part::tensors`.
    pub fn weights(&self, folder: &str, dtype: Dtype) -> Vec<Vec<u8>> {
        let recipes = &self.parts[folder].tensors;
        let key = |recipe: &Recipe| format!("{}/{folder}/{}", self.name, recipe.name);
        recipes.iter().map(|r| synth::encode(&synth::fill(&key(r), r), dtype)).collect()
    }

    /// The synthetic input `name` of `case`.
    pub fn input(&self, case: &Case, name: &str) -> Tensor {
        let recipe = &case.inputs[name];
        let data = synth::fill(&format!("{}/{}/{name}", self.name, case.name), recipe);
        Tensor { shape: recipe.shape.clone(), data }
    }

    /// The reference output `name` of `case` with weights stored as `dtype`. `None` if it was not
    /// kept.
    pub fn output(&self, case: &Case, dtype: Dtype, name: &str) -> Option<&Tensor> {
        self.outputs.get(&format!("{}/{dtype:?}/{name}", case.name))
    }
}

impl Case {
    /// Deserialises a parameter, for example `case.param::<f32>("timestep")`.
    pub fn param<T: serde::de::DeserializeOwned>(&self, name: &str) -> T {
        serde_json::from_value(self.params[name].clone()).expect(name)
    }
}

impl Tensor {
    /// The elements `range` of axis `axis`, with all other axes whole.
    pub fn slice(&self, axis: usize, range: std::ops::Range<usize>) -> Tensor {
        let inner: usize = self.shape[axis + 1..].iter().product();
        let data = self
            .data
            .chunks_exact(self.shape[axis] * inner)
            .flat_map(|outer| &outer[range.start * inner..range.end * inner])
            .copied()
            .collect();
        let mut shape = self.shape.clone();
        shape[axis] = range.len();
        Tensor { shape, data }
    }
}

/// `||a - b|| / ||b||` in f64. Panics if the lengths differ or a value of `a` is not finite.
pub fn rel_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "different sizes");
    assert!(a.iter().all(|v| v.is_finite()), "not finite");
    let square = |v: f64| v * v;
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let norm: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    (difference / norm).sqrt()
}

/// Asserts that the `rel_error` of `actual`, row-major in the shape of `expected`, is at most
/// `limit`. Prints the error.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &Tensor, limit: f64) {
    let error = rel_error(actual, &expected.data);
    println!("{what}: {error:.2e}");
    assert!(error <= limit, "{what}: relative error {error:.2e} is above {limit:.0e}");
}

/// Reads all tensors of an f32 safetensors file.
pub fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).expect("golden outputs");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |view: TensorView<'_>| {
        assert_eq!(view.dtype(), Dtype::F32);
        let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect();
        Tensor { shape: view.shape().to_vec(), data }
    };
    file.iter().map(|(name, view)| (name.to_owned(), tensor(view))).collect()
}

/// The path of a committed golden file.
pub fn data_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name)
}

/// The name of the weights' file, which differs between transformers and diffusers.
fn weights_file(folder: &str) -> &'static str {
    match folder {
        "text_encoder" => "model.safetensors",
        _ => "diffusion_pytorch_model.safetensors",
    }
}

fn write_json(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().expect("inside the folder")).expect("folder");
    fs::write(path, serde_json::to_string_pretty(value).expect("JSON")).expect("file written");
}
