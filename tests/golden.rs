//! Tests of the goldens: synthetic weights equal Python's bit for bit, and every output can be
//! read.

use crate::common::{DTYPES, GOLDENS, Golden, LIMIT, Recipe, Tensor, rel_error, synth};

const EXPECTED_BITS: [u32; 4] = [0x3F35_FBD5, 0x3F9C_E299, 0x3F7C_A198, 0x3F37_2EFC];

/// Compares with FNV-1a's published test value and with values printed by tests/golden/synth.py.
#[test]
fn the_generator_is_pythons() {
    assert_eq!(synth::fnv1a64("foobar"), 0x85944171F73967E8);
    let recipe = Recipe { name: String::new(), shape: vec![2, 2], offset: 1.0, scale: 0.3 };
    let first = synth::fill("transformer/blocks.0.attn1.norm_q.weight", &recipe);
    assert_eq!(first.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), EXPECTED_BITS);
}

/// Compares every weight of every golden in every storage type. The test catches any change of the
/// generator, of rounding, and of the order or names of tensors.
#[test]
fn the_weights_are_pythons() {
    for name in GOLDENS {
        let golden = Golden::load(name);
        for (folder, part) in golden.parts() {
            for dtype in DTYPES {
                let weights = golden.weights(folder, dtype);
                let sum = synth::checksum(weights.iter().map(Vec::as_slice), dtype);
                let expected = &part.checksums[&format!("{dtype:?}")];
                assert_eq!(&format!("{sum:016x}"), expected, "{name} {folder} {dtype:?}");
            }
        }
    }
}

#[test]
fn every_output_is_there_and_its_reference_is_well_inside_the_limit() {
    for name in GOLDENS {
        let golden = Golden::load(name);
        for case in &golden.cases {
            for dtype in DTYPES {
                for (output, measured) in case.outputs.get(&format!("{dtype:?}")).into_iter().flatten() {
                    let stored = golden.output(case, dtype, output).expect(output);
                    assert_eq!(rel_error(&stored.data, &stored.data), 0.0);
                    assert!(measured.reference_error < LIMIT, "{name} {} {output}", case.name);
                }
            }
        }
    }
}

#[test]
fn a_model_folder_is_written_as_diffusers_lays_it_out() {
    let golden = Golden::load("pipeline");
    let dir = tempfile::tempdir().unwrap();
    golden.materialise(dir.path(), DTYPES[2]);
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        assert!(dir.path().join(file).is_file(), "{file}");
    }
    let bytes = std::fs::read(dir.path().join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(weights.len(), golden.parts().find(|(f, _)| *f == "vae").unwrap().1.tensors.len());
}

#[test]
fn slices_follow_the_axis() {
    let tensor = Tensor { shape: vec![2, 3, 2], data: (0..12).map(|v| v as f32).collect() };
    let middle = tensor.slice(1, 1..3);
    assert_eq!(middle.shape, [2, 2, 2]);
    assert_eq!(middle.data, [2.0, 3.0, 4.0, 5.0, 8.0, 9.0, 10.0, 11.0]);
}
