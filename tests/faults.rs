//! What happens when something breaks: weights that give NaN, files that change under a job, lost
//! devices. A job reports it with a cause, and the engine goes on with the next job.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::Golden;
use ditscope::caching::{self, Evidence, StrategyConfig};
use ditscope::engine::{Cause, Engine, EngineError, Event, GenerateRequest, Generated, NotFinite, Stage};
use ditscope::gpu::{Gpu, GpuError, GpuOptions};
use ditscope::model::ModelError;
use ditscope::weights::WeightsError;
use safetensors::{Dtype, SafeTensors};

const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";
const ENCODER: &str = "text_encoder/model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

/// A model folder with small synthetic weights in half precision.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    Golden::load("pipeline").materialise(folder.path(), Dtype::F16);
    folder
}

fn request(model: &Path) -> GenerateRequest {
    let mut request = GenerateRequest::of_model(model, "a cat walking on grass").expect("a model");
    (request.clip.width, request.clip.height) = (48, 32);
    (request.clip.num_frames, request.clip.num_inference_steps) = (5, 2);
    request
}

fn open() -> Gpu {
    Gpu::open(&GpuOptions::default()).expect("tests need an adapter")
}

fn engine_on(gpu: &Gpu) -> Engine {
    Engine::start(gpu.clone(), Duration::from_millis(100)).expect("a thread")
}

fn engine() -> Engine {
    engine_on(&open())
}

/// The result of a job, its number of steps and its warnings.
fn run(engine: &Engine, request: GenerateRequest) -> (Result<Generated, EngineError>, usize, Vec<String>) {
    engine.generate(request).expect("the engine runs");
    let (mut steps, mut warnings) = (0, Vec::new());
    for event in engine.events() {
        match event {
            Event::Finished(generated) => return (Ok(*generated), steps, warnings),
            Event::Failed(error) => return (Err(error), steps, warnings),
            Event::Step(_) => steps += 1,
            Event::Warning(text) => warnings.push(text),
            _ => {}
        }
    }
    panic!("the engine ended");
}

/// Replaces the first value of a tensor, or all values, of a file in half precision. Returns the
/// file's bytes from before.
fn patch(file: &Path, tensor: &str, value: f32, all: bool) -> Vec<u8> {
    let before = fs::read(file).expect("weights");
    let mut bytes = before.clone();
    let range = {
        let read = SafeTensors::deserialize(&bytes).expect("safetensors");
        let data = read.tensor(tensor).expect(tensor).data();
        let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
        start..start + if all { data.len() } else { 2 }
    };
    for half in bytes[range].chunks_exact_mut(2) {
        half.copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
    }
    fs::write(file, bytes).expect("weights");
    before
}

/// Wrong numbers never become a clip: the job ends within the step, and names phase, step, branch
/// and part. A sound model then runs on the same engine.
#[test]
fn numbers_that_are_not_finite_end_the_job_and_are_located() {
    let (engine, model) = (engine(), model());
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let cases = [
        (ENCODER, "encoder.block.1.layer.1.DenseReluDense.wo.weight", nan, false, Stage::Text, "layer 1, feed-forward"),
        (TRANSFORMER, "blocks.1.ffn.net.2.bias", nan, false, Stage::Denoise, "block 1, feed-forward"),
        (TRANSFORMER, "blocks.0.attn2.to_out.0.bias", infinity, false, Stage::Denoise, "block 0, cross-attention"),
        (TRANSFORMER, "blocks.1.attn1.to_v.weight", nan, false, Stage::Denoise, "block 1, self-attention"),
        (TRANSFORMER, "proj_out.bias", infinity, false, Stage::Denoise, "the output projection"),
        (VAE, "decoder.conv_out.bias", infinity, true, Stage::Decode, "latent frame 0, the last convolution"),
    ];
    for (file, tensor, value, all, stage, part) in cases {
        let path = model.path().join(file);
        let sound = patch(&path, tensor, value, all);
        let (result, steps, _) = run(&engine, request(model.path()));
        fs::write(&path, sound).expect("weights");
        let Err(EngineError::NotFinite(found)) = result else { panic!("{tensor}: {:?}", result.map(|_| "a clip")) };
        let NotFinite { stage: told, cause, adapter, .. } = &*found;
        assert_eq!((*told, cause), (stage, &Cause::Part(part.into())), "{tensor}");
        assert!(!adapter.is_empty() && found.to_string().contains(adapter), "{found}");
        let expected = if stage == Stage::Decode { 2 } else { 0 };
        assert_eq!(steps, expected, "{tensor}: finished steps");
        assert_eq!(found.step, (stage == Stage::Denoise).then_some([0, 2]), "{tensor}");
        assert_eq!(found.branch, (stage != Stage::Decode).then_some(0), "{tensor}");
    }
    // One colour is possible, so it is only warned of.
    let path = model.path().join(VAE);
    let sound = patch(&path, "decoder.conv_out.weight", 0.0, true);
    let (result, _, warnings) = run(&engine, request(model.path()));
    assert!(
        result.is_ok() && warnings.iter().any(|text| text.contains("5 of 5 frames show one colour")),
        "{warnings:?}"
    );
    fs::write(&path, sound).expect("weights");
    let (result, _, warnings) = run(&engine, request(model.path()));
    assert!(result.is_ok() && warnings.is_empty(), "{warnings:?}");
}

/// A download that begins anew, or a drive that goes away, while a job runs: an error that names
/// the file, where a read of the mapped file would end the program by SIGBUS.
#[test]
#[cfg(unix)]
fn weights_that_are_cut_short_under_a_job_are_an_error() {
    let (engine, model) = (engine(), model());
    let path = model.path().join(VAE);
    let sound = fs::read(&path).expect("weights");
    let mut long = request(model.path());
    long.clip.num_inference_steps = 12;
    engine.generate(long).expect("the engine runs");
    let mut error = None;
    for event in engine.events() {
        match event {
            Event::Started(_) => {
                fs::File::options().write(true).open(&path).expect("weights").set_len(1000).expect("cut");
            }
            Event::Failed(failed) => {
                error = Some(failed);
                break;
            }
            Event::Finished(_) => break,
            _ => {}
        }
    }
    let error = error.expect("the VAE was cut short before it was read");
    let EngineError::Model(ModelError::Weights(WeightsError::Changed { path: named })) = &error else {
        panic!("{error}")
    };
    assert_eq!(named, &path);
    fs::write(&path, sound).expect("weights");
    assert!(run(&engine, request(model.path())).0.is_ok(), "the engine goes on");
}

/// Runs a job, and destroys the device when the phase begins for the nth time, or after a step.
/// Returns the result, the events and the number of steps that were told.
fn lose(gpu: &Gpu, engine: &Engine, request: GenerateRequest, phase: Stage, nth: usize) -> (Generated, usize, String) {
    engine.generate(request).expect("the engine runs");
    let (mut seen, mut steps, mut told, mut started) = (0, Vec::new(), String::new(), 0);
    for event in engine.events() {
        match event {
            Event::Stage(stage) if stage == phase => {
                if seen == nth {
                    gpu.destroy();
                }
                seen += 1;
            }
            Event::Started(_) => started += 1,
            Event::Step(done) => {
                steps.push(done.record.step);
                assert!(done.record.state.is_none(), "nobody asked for states");
                if phase == Stage::Denoise && nth > 0 && steps.len() == nth {
                    gpu.destroy();
                }
            }
            Event::Warning(text) => told += &text,
            Event::Finished(generated) => {
                assert_eq!((started, &steps), (1, &(0..steps.len()).collect()), "each is told once");
                return (*generated, steps.len(), told);
            }
            Event::Failed(error) => panic!("{phase:?} {nth}: {error}"),
            _ => {}
        }
    }
    panic!("the engine ended");
}

/// A device that is lost in any phase is replaced by a new one. The clip is the same, bit for bit,
/// and the engine goes on with the next job.
#[test]
fn a_lost_device_is_replaced_in_every_phase() {
    let model = model();
    let of = |strategy: &StrategyConfig| {
        let mut request = request(model.path()).with_strategy(strategy.clone());
        request.clip.num_inference_steps = 6;
        request
    };
    let sound = engine();
    // The first and the second time that weights are loaded, every other phase, and steps.
    let phases = [(Stage::Load, 0), (Stage::Text, 0), (Stage::Load, 1), (Stage::Decode, 0)];
    let steps = [0, 2, 5].map(|step| (Stage::Denoise, step));
    for text in ["off", "uniform:every=3,warm-up=2,last=0"] {
        let strategy = &caching::parse(text, &Evidence::default()).expect("a strategy");
        let clip = run(&sound, of(strategy)).0.expect("a clip").frames;
        for (phase, nth) in phases.into_iter().chain(steps) {
            let gpu = open();
            let engine = engine_on(&gpu);
            let (generated, count, told) = lose(&gpu, &engine, of(strategy), phase, nth);
            assert!(generated.frames == clip && count == 6, "{text}, {phase:?} {nth}: {count} steps");
            assert!(told.contains("device was lost"), "{text}, {phase:?} {nth}: {told}");
            assert!(run(&engine, of(strategy)).0.is_ok_and(|again| again.frames == clip), "{phase:?} {nth}");
        }
    }
}

/// Whichever buffer is refused, the job ends with an error or does without, and the next job works.
#[test]
fn memory_that_is_refused_at_any_time_is_an_error() {
    let (model, gpu) = (model(), open());
    let engine = engine_on(&gpu);
    let mut failed = 0;
    for buffers in [0, 1, 7, 30, 90, 150, 200, 250, 300] {
        gpu.refuse_memory_after(buffers);
        match run(&engine, request(model.path())).0 {
            Ok(_) => {}
            Err(EngineError::Gpu(GpuError::OutOfMemory { .. })) => failed += 1,
            Err(other) => panic!("{buffers}: {other}"),
        }
        gpu.refuse_memory_after(u64::MAX);
    }
    assert!(failed > 3, "memory was refused {failed} times");
    assert!(run(&engine, request(model.path())).0.is_ok());
}
