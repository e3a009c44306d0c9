//! Compares the networks and the whole pipeline with diffusers and transformers, on synthetic
//! weights (tests/golden). The weights are stored as f32, f16 and bf16. The transformers run on the
//! full tier and on WebGPU's base tier, and once with small bindings and submits.

use std::time::Duration;

use std::path::Path;

use crate::common::{Case, DTYPES, Golden, LIMIT, Tensor, assert_close};
use ditscope::engine::{ClipSettings, Engine, Event, GenerateRequest, Generated, Latents};
use ditscope::gpu::{Gpu, GpuOptions, Stream, StreamOptions, Tier};
use ditscope::model::wan::files::ModelFiles;
use ditscope::model::wan::patches::Patches;
use ditscope::model::wan::text_encoder::TextEncoder;
use ditscope::model::wan::transformer::WanTransformer;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

fn open(tier: Tier) -> Gpu {
    let options = GpuOptions::checked().with_tier(tier);
    Gpu::open(&options).expect("tests need a Vulkan, Metal or DX12 adapter")
}

/// A model folder with the parts of a golden. A loader needs only the part that it loads.
fn folder(golden: &Golden, dtype: Dtype) -> (tempfile::TempDir, ModelFiles) {
    let dir = tempfile::tempdir().expect("temporary folder");
    golden.materialise(dir.path(), dtype);
    let files = ModelFiles::find(dir.path()).expect("model folder");
    (dir, files)
}

/// The velocity of a case.
fn velocity(model: &WanTransformer, gpu: &Gpu, golden: &Golden, case: &Case) -> Vec<f32> {
    let mut cx = Stream::new(gpu, StreamOptions::default());
    velocity_of(model, &mut cx, &golden.input(case, "latents"), golden, case)
}

/// The velocity of given latents with the other inputs of a case.
fn velocity_of(model: &WanTransformer, cx: &mut Stream, latents: &Tensor, golden: &Golden, case: &Case) -> Vec<f32> {
    let shape = &latents.shape[latents.shape.len() - 4..];
    let context = model.prepare_text(cx, &golden.input(case, "context").data).expect("text");
    let patches = Patches::new([shape[1], shape[2], shape[3]], model.config().patch_size).expect("patches");
    let rope = model.rope(cx, &patches).expect("rope");
    model.forward(cx, &latents.data, &patches, case.param("timestep"), &context, &rope).expect("forward")
}

/// Compares the cases of one golden on one tier, with the weights stored in given types.
fn transformer_equals_diffusers(tier: Tier, name: &str, dtypes: &[Dtype]) {
    let gpu = open(tier);
    let golden = Golden::load(name);
    for &dtype in dtypes {
        let (_dir, files) = folder(&golden, dtype);
        let (config, weights) = files.transformer().expect("transformer");
        let model = WanTransformer::load(&gpu, &config, &weights).expect("loads");
        for case in &golden.cases {
            let Some(expected) = golden.output(case, dtype, "velocity") else { continue };
            let what = format!("{tier:?} {} {} {dtype:?}", golden.name, case.name);
            assert_close(&what, &velocity(&model, &gpu, &golden, case), expected, LIMIT);
        }
    }
}

#[test]
fn full_tier_transformers() {
    for golden in Golden::with_prefix("transformer") {
        transformer_equals_diffusers(Tier::Full, &golden.name, &DTYPES);
    }
}

/// A CPU driver takes half a minute and more to compile each attention kernel of the base tier. So
/// the goldens are tests of their own, which run in parallel, and each golden takes one type of
/// weights, so that all types run.
#[test]
fn base_tier_transformer_3x40() {
    transformer_equals_diffusers(Tier::Base, "transformer_3x40", &[Dtype::F32]);
}

#[test]
fn base_tier_transformer_2x128() {
    transformer_equals_diffusers(Tier::Base, "transformer_2x128", &[Dtype::F16]);
}

#[test]
fn base_tier_transformer_6x32() {
    transformer_equals_diffusers(Tier::Base, "transformer_6x32", &[Dtype::BF16]);
}

#[test]
fn base_tier_transformer_patch1() {
    transformer_equals_diffusers(Tier::Base, "transformer_patch1", &[Dtype::BF16]);
}

/// With long videos neither a binding nor a submit holds a tensor of all tokens. Working in parts
/// does not change a bit.
#[test]
fn transformer_in_parts_is_the_same() {
    let golden = Golden::load("transformer_patch1");
    let case = &golden.cases[0];
    let shape = vec![5, 4, 12, 12];
    let data = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.7).sin() * 1.5).collect();
    let latents = Tensor { shape, data };
    let (_dir, files) = folder(&golden, Dtype::F32);
    let (config, weights) = files.transformer().expect("transformer");
    let run = |max_binding, budget| {
        let options = GpuOptions::checked().with_max_binding(max_binding);
        let gpu = Gpu::open(&options).expect("tests need a Vulkan, Metal or DX12 adapter");
        let model = WanTransformer::load(&gpu, &config, &weights).expect("loads");
        let mut cx = Stream::new(&gpu, StreamOptions::default().with_budget(budget));
        velocity_of(&model, &mut cx, &latents, &golden, case)
    };
    let budget = StreamOptions::default().budget;
    let whole = run(None, budget);
    // The largest weights take 98,304 bytes, which fit. The tokens take 147,456 bytes, their hidden
    // layer 230,400, and their q, k and v 442,368.
    assert_eq!(run(Some(100_000), budget), whole, "bindings");
    assert_eq!(run(None, Duration::ZERO), whole, "submits");
}

/// The finite, non-negative values of an 8-bit float in the order of their codes, which is
/// ascending.
fn fp8_values(dtype: Dtype) -> Vec<f32> {
    let (mantissa, bias, last) = if dtype == Dtype::F8_E4M3 { (3, 7, 0x7e) } else { (2, 15, 0x7b) };
    let value = |code: i32| {
        let (exponent, fraction) = (code >> mantissa, (code % (1 << mantissa)) as f32 / (1 << mantissa) as f32);
        let (hidden, exponent) = if exponent == 0 { (0.0, 1) } else { (1.0, exponent) };
        (hidden + fraction) * 2.0_f32.powi(exponent - bias)
    };
    (0..=last).map(value).collect()
}

/// Rewrites a checkpoint's Linear weights as 8-bit floats in the layout of published files, with
/// scales if `scaled`. Writes the same weights in f32 to `wide`.
fn to_fp8(path: &Path, wide: &Path, dtype: Dtype, scaled: bool) {
    let values = fp8_values(dtype);
    let file = std::fs::read(path).expect("weights");
    let (mut narrow, mut widened) = (Vec::new(), Vec::new());
    for (name, view) in SafeTensors::deserialize(&file).expect("safetensors").tensors() {
        let data: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let shape = view.shape().to_vec();
        if !(name.starts_with("blocks.") && name.ends_with(".weight") && shape.len() == 2) {
            narrow.push((name.clone(), Dtype::F32, shape.clone(), view.data().to_vec()));
            widened.push((name, Dtype::F32, shape, view.data().to_vec()));
            continue;
        }
        let largest = data.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if scaled { largest / 400.0 } else { 1.0 };
        let mut codes = Vec::with_capacity(data.len());
        let mut rounded = Vec::with_capacity(data.len());
        for value in data {
            let code = values.partition_point(|small| *small < value.abs() / scale).min(values.len() - 1);
            codes.push(code as u8 | if value < 0.0 { 0x80 } else { 0 });
            rounded.extend((values[code] * scale * value.signum()).to_le_bytes());
        }
        narrow.push((name.clone(), dtype, shape.clone(), codes));
        widened.push((name.clone(), Dtype::F32, shape, rounded));
        if scaled {
            let name = name.replace(".weight", ".scale_weight");
            narrow.push((name, Dtype::F32, vec![1], scale.to_le_bytes().to_vec()));
        }
    }
    if scaled {
        narrow.push(("scaled_fp8".into(), dtype, vec![0], Vec::new()));
    }
    for (tensors, path) in [(narrow, path), (widened, wide)] {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("sizes agree"))
        });
        safetensors::serialize_to_file(views, None, path).expect("weights written");
    }
}

#[test]
fn fp8_weights_equal_the_f32_ones_that_they_stand_for() {
    const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
    let gpu = open(Tier::Full);
    let golden = Golden::load("transformer_6x32");
    for (dtype, scaled) in [(Dtype::F8_E4M3, true), (Dtype::F8_E4M3, false), (Dtype::F8_E5M2, true)] {
        let [(narrow, files), (wide, wide_files)] = [(); 2].map(|()| folder(&golden, Dtype::F32));
        to_fp8(&narrow.path().join(WEIGHTS), &wide.path().join(WEIGHTS), dtype, scaled);
        let [got, expected] = [files, wide_files].map(|files| {
            let (config, weights) = files.transformer().expect("transformer");
            let model = WanTransformer::load(&gpu, &config, &weights).expect("loads");
            velocity(&model, &gpu, &golden, &golden.cases[0])
        });
        let expected = Tensor { shape: vec![expected.len()], data: expected };
        assert_close(&format!("{dtype:?}, scaled: {scaled}"), &got, &expected, LIMIT);
    }
}

#[test]
fn text_encoder_equals_transformers() {
    let gpu = open(Tier::Full);
    let golden = Golden::load("text_encoder");
    for dtype in DTYPES {
        let (_dir, files) = folder(&golden, dtype);
        let (config, weights) = files.text_encoder().expect("text encoder");
        let encoder = TextEncoder::new(&config, &weights);
        let ids: Vec<Vec<u32>> = golden.cases.iter().map(|case| case.param("ids")).collect();
        let prompts: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let mut cx = Stream::new(&gpu, StreamOptions::default());
        let features = encoder.encode(&mut cx, &prompts).expect("encodes");
        for (case, features) in golden.cases.iter().zip(features) {
            let Some(expected) = golden.output(case, dtype, "hidden") else { continue };
            assert_close(&format!("text encoder {} {dtype:?}", case.name), &features, expected, LIMIT);
        }
    }
}

/// Runs a request and returns the latents after every step and the result.
fn generate(gpu: Gpu, request: GenerateRequest) -> (Vec<Vec<f32>>, Generated) {
    let engine = Engine::start(gpu, Duration::from_millis(100)).expect("engine");
    engine.generate(request).expect("queued");
    let mut steps = Vec::new();
    for event in engine.events() {
        match event {
            Event::Step(done) => steps.push(done.latents),
            Event::Finished(generated) => return (steps, *generated),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    panic!("the engine stopped")
}

#[test]
fn pipeline_equals_diffusers() {
    let gpu = open(Tier::Full);
    let golden = Golden::load("pipeline");
    for dtype in DTYPES {
        let (dir, _files) = folder(&golden, dtype);
        for case in &golden.cases {
            let latents = golden.input(case, "latents");
            let mut request = GenerateRequest::of_model(dir.path(), case.param::<String>("prompt")).expect("a model");
            request.negative = case.param::<String>("negative_prompt").into();
            request.clip = ClipSettings::default();
            request.clip.width = case.param("width");
            request.clip.height = case.param("height");
            request.clip.num_frames = case.param("num_frames");
            request.clip.num_inference_steps = case.param("num_inference_steps");
            request.clip.guidance_scale = case.param("guidance_scale");
            let shape = latents.shape.try_into().expect("four extents");
            request.latents = Some(Latents { shape, values: latents.data });
            let (steps, generated) = generate(gpu.clone(), request);
            let what = |name: &str| format!("pipeline {} {dtype:?} {name}", case.name);
            for (i, latents) in steps.iter().enumerate() {
                let name = format!("step_{i}");
                if let Some(expected) = golden.output(case, dtype, &name) {
                    assert_close(&what(&name), latents, expected, LIMIT);
                }
            }
            let expected = golden.output(case, dtype, "latents").expect("latents");
            assert_close(&what("latents"), &generated.latents, expected, LIMIT);
            if let Some(frames) = golden.output(case, dtype, "frames") {
                // The golden has [3, F, H, W], the engine returns [F][H, W, 3].
                let area = generated.width * generated.height;
                let pixel = |c: usize, i: usize| generated.frames[i / area][i % area * 3 + c];
                let planar: Vec<f32> = (0..3)
                    .flat_map(|c| (0..area * generated.frames.len()).map(move |i| (c, i)))
                    .map(|(c, i)| pixel(c, i))
                    .collect();
                assert_close(&what("frames"), &planar, frames, LIMIT);
            }
        }
    }
}
