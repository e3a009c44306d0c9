use super::*;
use safetensors::tensor::{Dtype, TensorView as Saved};

type Row<'a> = (&'a str, &'a [usize], &'a [f32]);

fn save(path: &Path, rows: &[Row<'_>]) -> Checkpoint {
    let bytes: Vec<Vec<u8>> =
        rows.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = rows
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (*name, Saved::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
    Checkpoint::open(path).unwrap()
}

const Q: &str = "blocks.0.attn1.to_q.weight";

/// A transformer of two layers, [2, 3] and [2, 2].
fn transformer(folder: &Path) -> Checkpoint {
    save(
        &folder.join("t.safetensors"),
        &[
            (Q, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            ("blocks.0.attn1.to_q.bias", &[2], &[0.5, 0.5]),
            ("blocks.0.ffn.net.2.weight", &[2, 2], &[0.0; 4]),
            ("blocks.0.norm2.weight", &[2], &[1.0, 1.0]),
        ],
    )
}

const DOWN: &[f32] = &[1.0, 0.0, -1.0];
const UP: &[f32] = &[2.0, 4.0];

fn value(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    checkpoint.get(name).unwrap().to_f32().unwrap()
}

/// Every way of naming gives the same sums.
#[test]
fn names_of_every_program() {
    let folder = tempfile::tempdir().unwrap();
    let base = transformer(folder.path());
    for (down, up) in [
        ("transformer.blocks.0.attn1.to_q.lora_A.weight", "transformer.blocks.0.attn1.to_q.lora_B.weight"),
        (
            "base_model.model.blocks.0.attn1.to_q.lora_A.default.weight",
            "base_model.model.blocks.0.attn1.to_q.lora_B.default.weight",
        ),
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", "diffusion_model.blocks.0.self_attn.q.lora_B.weight"),
        (
            "diffusion_model.blocks.0.self_attn.q.lora_down.weight",
            "diffusion_model.blocks.0.self_attn.q.lora_up.weight",
        ),
        ("lora_unet_blocks_0_self_attn_q.lora_down.weight", "lora_unet_blocks_0_self_attn_q.lora_up.weight"),
        ("lora_unet_blocks_0_attn1_to_q.lora_down.weight", "lora_unet_blocks_0_attn1_to_q.lora_up.weight"),
    ] {
        let file = folder.path().join("lora.safetensors");
        save(&file, &[(down, &[1, 3], DOWN), (up, &[2, 1], UP)]);
        let merged = merged(&base, &file, 0.5).unwrap();
        assert_eq!(value(&merged, Q), [2.0, 2.0, 2.0, 6.0, 5.0, 4.0], "{down}");
        assert_eq!(merged.get(Q).unwrap().rows_to_f32(1..2).unwrap(), [6.0, 5.0, 4.0]);
        assert_ne!((merged.id(), merged.stamp()), (base.id(), base.stamp()));
        assert_ne!(merged.id(), super::merged(&base, &file, 0.25).unwrap().id(), "the strength counts");
    }
}

/// alpha / rank, several LoRAs, and tensors that are added whole.
#[test]
fn factors_and_whole_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let base = transformer(folder.path());
    let [first, second] = ["a", "b"].map(|name| folder.path().join(name).with_extension("safetensors"));
    save(
        &first,
        &[
            ("lora_unet_blocks_0_ffn_2.lora_down.weight", &[2, 2], &[1.0, 0.0, 0.0, 1.0]),
            ("lora_unet_blocks_0_ffn_2.lora_up.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
            ("lora_unet_blocks_0_ffn_2.alpha", &[], &[1.0]),
        ],
    );
    let once = merged(&base, &first, 1.0).unwrap();
    assert_eq!(value(&once, "blocks.0.ffn.net.2.weight"), [0.5, 1.0, 1.5, 2.0], "alpha is half the rank");
    save(
        &second,
        &[
            ("diffusion_model.blocks.0.self_attn.q.diff_b", &[2], &[1.0, 2.0]),
            ("diffusion_model.blocks.0.norm3.diff", &[2], &[0.25, 0.5]),
        ],
    );
    let both = merged(&once, &second, 2.0).unwrap();
    assert_eq!(value(&both, "blocks.0.attn1.to_q.bias"), [2.5, 4.5]);
    assert_eq!(value(&both, "blocks.0.norm2.weight"), [1.5, 2.0]);
    assert_eq!(value(&both, "blocks.0.ffn.net.2.weight"), [0.5, 1.0, 1.5, 2.0]);
}

#[test]
fn what_cannot_be_merged_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let base = transformer(folder.path());
    let file = folder.path().join("lora.safetensors");
    let problem = |rows: &[Row<'_>]| {
        save(&file, rows);
        merged(&base, &file, 1.0).unwrap_err().to_string()
    };
    let down: Row<'_> = ("blocks.0.attn1.to_q.lora_A.weight", &[1, 3], DOWN);
    assert!(problem(&[down]).contains("one of the two matrices"));
    assert!(problem(&[down, ("blocks.0.attn1.to_q.lora_B.weight", &[1, 1], &[1.0])]).contains("do not fit"));
    assert!(problem(&[("blocks.7.attn1.to_q.lora_A.weight", &[1, 3], DOWN)]).contains("has nothing for"));
    assert!(problem(&[("blocks.0.attn1.to_q.dora_scale", &[1], &[1.0])]).contains("a DoRA"));
    assert!(problem(&[("blocks.0.attn1.to_q.hada_w1_a", &[1], &[1.0])]).contains("a LoHa"));
    assert!(problem(&[("blocks.0.cross_attn.k_img.lora_A.weight", &[1], &[1.0])]).contains("image-to-video"));
    assert!(problem(&[("blocks.0.attn1.to_q.weight", &[1], &[1.0])]).contains("no LoRA has"));
    let other = ("diffusion_model.blocks.0.self_attn.q.lora_down.weight", &[1, 3][..], DOWN);
    assert!(problem(&[down, other]).contains("two tensors"));
    let up: Row<'_> = ("blocks.0.attn1.to_q.lora_B.weight", &[2, 1], UP);
    assert!(problem(&[down, up, ("blocks.0.attn1.to_q.alpha", &[1], &[f32::NAN])]).contains("finite"));
}
