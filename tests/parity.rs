//! The networks and the whole pipeline against diffusers and transformers, on synthetic weights (tests/golden). Both the full tier
//! and WebGPU's base tier, bindings forced small once, weights stored as f32, f16 and bf16.

mod common;

use std::time::Duration;

use common::{DTYPES, Golden, LIMIT, assert_close};
use ditscope::caching::StrategyConfig;
use ditscope::engine::{Engine, Event, GenerateRequest, Generated, Observe};
use ditscope::gpu::{Gpu, GpuOptions, Stream, StreamOptions, Tier};
use ditscope::model::wan::files::ModelFiles;
use ditscope::model::wan::text_encoder::TextEncoder;
use ditscope::model::wan::transformer::WanTransformer;
use safetensors::Dtype;

fn open(tier: Tier) -> Gpu {
    let options = GpuOptions { tier, poison: true, checked_shaders: true, ..Default::default() };
    Gpu::open(&options).expect("tests need a Vulkan, Metal or DX12 adapter")
}

/// A model folder for part loading: the loaders want a complete one only for the parts that they load.
fn folder(golden: &Golden, dtype: Dtype) -> (tempfile::TempDir, ModelFiles) {
    let dir = tempfile::tempdir().expect("temporary folder");
    golden.materialise(dir.path(), dtype);
    let files = ModelFiles::find(dir.path()).expect("model folder");
    (dir, files)
}

#[test]
fn transformer_equals_diffusers() {
    for tier in [Tier::Full, Tier::Base] {
        let gpu = open(tier);
        for golden in Golden::with_prefix("transformer") {
            for dtype in DTYPES {
                let (_dir, files) = folder(&golden, dtype);
                let (config, weights) = files.transformer().expect("transformer");
                let model = WanTransformer::load(&gpu, &config, &weights).expect("loads");
                for case in &golden.cases {
                    let Some(expected) = golden.output(case, dtype, "velocity") else { continue };
                    let mut cx = Stream::new(&gpu, StreamOptions::default());
                    let latents = golden.input(case, "latents");
                    let shape = &latents.shape[latents.shape.len() - 4..];
                    let context = model.prepare_text(&mut cx, &golden.input(case, "context").data).expect("text");
                    let rope = model.rope(&mut cx, [shape[1], shape[2], shape[3]]).expect("rope");
                    let input = cx.upload("latents", &latents.data, shape).expect("latents");
                    let timestep = case.param("timestep");
                    let velocity = model.forward(&mut cx, &input, timestep, &context, &rope).expect("forward");
                    let what = format!("{tier:?} {} {} {dtype:?}", golden.name, case.name);
                    assert_close(&what, &cx.read(&velocity).expect("read"), expected, LIMIT);
                }
            }
        }
    }
}

#[test]
fn text_encoder_equals_transformers() {
    let gpu = open(Tier::Full);
    let golden = Golden::load("text_encoder");
    for dtype in DTYPES {
        let (_dir, files) = folder(&golden, dtype);
        let (config, weights) = files.text_encoder().expect("text encoder");
        let encoder = TextEncoder::load(&gpu, &config, &weights).expect("loads");
        for case in &golden.cases {
            let Some(expected) = golden.output(case, dtype, "hidden") else { continue };
            let mut cx = Stream::new(&gpu, StreamOptions::default());
            let features = encoder.encode(&mut cx, &case.param::<Vec<u32>>("ids")).expect("encodes");
            assert_close(&format!("text encoder {} {dtype:?}", case.name), &features, expected, LIMIT);
        }
    }
}

/// Runs a request and gives the latents after every step, and what came out.
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
            let request = GenerateRequest {
                model: dir.path().into(),
                prompt: case.param("prompt"),
                negative_prompt: case.param("negative_prompt"),
                width: case.param("width"),
                height: case.param("height"),
                num_frames: case.param("num_frames"),
                num_inference_steps: case.param("num_inference_steps"),
                guidance_scale: case.param("guidance_scale"),
                flow_shift: None,
                scheduler: None,
                grid: None,
                seed: 0,
                latents: Some(golden.input(case, "latents").data),
                strategy: StrategyConfig::Off,
                observe: Observe::default(),
            };
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
                // The golden holds [3, F, H, W], the engine gives [F][H, W, 3].
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
