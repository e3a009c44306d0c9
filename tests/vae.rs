//! Compares the autoencoder with diffusers' AutoencoderKLWan (goldens of tests/golden/make_vae.py).

use std::path::Path;

use crate::common::{Case, DTYPES, Golden, LIMIT, Tensor, assert_close};
use ditscope::gpu::{Gpu, GpuOptions, Stream, StreamOptions, Tier};
use ditscope::model::family::Latents;
use ditscope::model::wan::config::VaeConfig;
use ditscope::model::wan::vae::{Tiling, Vae, VideoChunk};
use ditscope::weights::Checkpoint;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

fn load(gpu: &Gpu, golden: &Golden, dtype: Dtype) -> Vae {
    let folder = tempfile::tempdir().unwrap();
    golden.materialise(folder.path(), dtype);
    load_from(gpu, folder.path())
}

fn load_from(gpu: &Gpu, folder: &Path) -> Vae {
    let vae = folder.join("vae");
    let path = vae.join("config.json");
    let config = VaeConfig::from_json(&path, &std::fs::read_to_string(&path).unwrap()).unwrap();
    Vae::load(gpu, &Checkpoint::open(&vae).unwrap(), &config).unwrap()
}

/// Converts `[t, h, w, c]` to `[c, t, h, w]`.
fn channels_first(frames: &VideoChunk) -> Vec<f32> {
    let c = frames.shape[3];
    (0..c).flat_map(|i| frames.values.iter().skip(i).step_by(c)).copied().collect()
}

/// Converts `[c, t, h, w]` to `[t, h, w, c]`.
fn channels_last(tensor: &Tensor) -> VideoChunk {
    let [c, t, h, w] = tensor.shape[..] else { panic!("{:?}", tensor.shape) };
    let plane = t * h * w;
    let values = (0..plane).flat_map(|p| (0..c).map(move |i| tensor.data[i * plane + p])).collect();
    VideoChunk { shape: [t, h, w, c], values }
}

fn decode(cx: &mut Stream, vae: &Vae, golden: &Golden, case: &Case) -> Vec<f32> {
    let latents = golden.input(case, "latents");
    let latents = Latents { shape: latents.shape.try_into().unwrap(), values: latents.data };
    let tiling = case.param::<Option<[usize; 4]>>("tiling");
    let tiling = tiling.map(|[a, b, c, d]| Tiling { tile: [a, b], stride: [c, d] });
    let mut all = VideoChunk::default();
    let mut chunks = Vec::new();
    vae.decode(cx, &latents, tiling, &mut |chunk| {
        chunks.push(chunk.shape[0]);
        all.shape = [all.shape[0] + chunk.shape[0], chunk.shape[1], chunk.shape[2], chunk.shape[3]];
        all.values.extend(chunk.values);
        Ok(())
    })
    .unwrap();
    let time = vae.config().temporal_compression();
    let expected: Vec<usize> = (0..latents.shape[1]).map(|i| if i == 0 { 1 } else { time }).collect();
    assert_eq!(chunks, expected);
    channels_first(&all)
}

fn check(gpu: &Gpu, name: &str, dtypes: &[Dtype]) {
    let golden = Golden::load(name);
    let mut cx = Stream::new(gpu, StreamOptions::default());
    for &dtype in dtypes {
        let vae = load(gpu, &golden, dtype);
        for case in &golden.cases {
            let [output, got] = match case.name.starts_with("decode") {
                true => ["frames", "decode"],
                false => ["latents", "encode"],
            };
            let Some(expected) = golden.output(case, dtype, output) else { continue };
            let values = if got == "decode" {
                decode(&mut cx, &vae, &golden, case)
            } else {
                vae.encode(&mut cx, &channels_last(&golden.input(case, "frames"))).unwrap().values
            };
            assert_close(&format!("{name} {dtype:?} {}", case.name), &values, expected, LIMIT);
        }
    }
}

/// A device with the options of the crate's unit tests, so that the driver can reuse compiled
/// kernels.
fn open(tier: Tier) -> Gpu {
    let options = GpuOptions::checked().with_tier(tier);
    Gpu::open(&options).expect("tests need a Vulkan, Metal or DX12 adapter")
}

#[test]
fn wan_levels_as_diffusers() {
    let gpu = open(Tier::Full);
    check(&gpu, "vae_wan", &DTYPES);
    check(&gpu, "vae_odd", &DTYPES[..1]);
}

/// diffusers clamps decoded frames. The frames of the goldens stay below the limit, so this test
/// makes the last convolution stronger.
#[test]
fn frames_stay_within_their_range() {
    let gpu = open(Tier::Full);
    let golden = Golden::load("vae_wan");
    let folder = tempfile::tempdir().unwrap();
    golden.materialise(folder.path(), Dtype::F32);
    let path = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let mut tensors = SafeTensors::deserialize(&file).unwrap().tensors();
    let stronger: Vec<u8> = {
        let (_, weight) = tensors.iter().find(|(name, _)| name == "decoder.conv_out.weight").unwrap();
        let values = weight.data().as_chunks::<4>().0.iter().map(|bytes| 10.0 * f32::from_le_bytes(*bytes));
        values.flat_map(f32::to_le_bytes).collect()
    };
    for (_, view) in tensors.iter_mut().filter(|(name, _)| name == "decoder.conv_out.weight") {
        *view = TensorView::new(Dtype::F32, view.shape().to_vec(), &stronger).unwrap();
    }
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    let vae = load_from(&gpu, folder.path());
    let mut cx = Stream::new(&gpu, StreamOptions::default());
    for case in golden.cases.iter().filter(|case| case.name.starts_with("decode")) {
        let values = decode(&mut cx, &vae, &golden, case);
        let outermost = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert_eq!(outermost, 1.0, "{}", case.name);
    }
}

/// Runs other levels and odd numbers of channels on the tier that every device has.
#[test]
#[ignore = "workgroup memory is slow on a CPU"]
fn other_levels_on_the_base_tier() {
    let gpu = open(Tier::Base);
    check(&gpu, "vae_odd", &DTYPES);
}
