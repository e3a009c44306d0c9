//! `ditscope generate`.

mod resume;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ArgMatches;
use crossbeam_channel::select;
use indicatif::{ProgressBar, ProgressStyle};

use crate::caching::{CLIP_SPREAD, Known};
use crate::engine::capture::file::{CaptureError, Writer};
use crate::engine::{
    Capture, ClipSettings, Condition, Engine, Event, GenerateRequest, Observe, Received, Record, RequestInfo,
    SchedulerChoice, Stage,
};
use crate::media::{self, portable_name};
use crate::profiling::profile::Profile;
use crate::sampling::Grid;
use crate::study::{Finished, evidence_of};

use super::strategy::StrategyArgs;
use super::{GpuArgs, ModelArgs, WrongUse, interrupt, job, latents};

pub(super) use resume::completed as resumed;

/// Longest GPU time of one submit when no window shares the GPU.
pub(super) const SUBMIT_BUDGET: Duration = Duration::from_millis(100);

/// Arguments of `ditscope generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to show
    #[arg(value_parser = parse_prompt, allow_hyphen_values = true)]
    prompt: String,
    /// What not to show [default: the model's: Wan's own list for single files and the original
    /// layout, nothing for diffusers']
    #[arg(long, allow_hyphen_values = true)]
    negative_prompt: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[arg(short, long, help = output_help())]
    output: Option<PathBuf>,
    /// Denoising steps [default: those of a plan in --strategy FILE.json, else the model's]
    #[arg(long)]
    steps: Option<usize>,
    /// Guidance; 1 for none [default: the model's]
    #[arg(long, allow_negative_numbers = true)]
    guidance_scale: Option<f64>,
    /// Shift of the sigma schedule [default: the model's]
    #[arg(long, allow_negative_numbers = true)]
    flow_shift: Option<f64>,
    /// Number of frames, 4 n + 1 [default: the model's]
    #[arg(long)]
    frames: Option<usize>,
    /// Size in pixels [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Seed of the noise; the same seed gives the same clip, and diffusers' noise on the CPU. -1
    /// draws one
    #[arg(long, default_value = "0", value_parser = parse_seed, allow_hyphen_values = true)]
    seed: Seed,
    /// Solver [default: the model's]
    #[arg(long, value_enum)]
    scheduler: Option<Solver>,
    /// Use the sigmas of Wan's own code instead of diffusers'
    #[arg(long)]
    reference_sigmas: bool,
    /// Start from these latents (safetensors, key `latents`)
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// Keep the initial latents (safetensors, key `latents`)
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Record the run, to be opened in the window: every step, block and preview (attention from
    /// 256 sampled queries a head)
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Let --capture hold what `generate --resume` needs to go on: 4 bytes a latent value and step,
    /// twice as much with a strategy that corrects (0.4 to 0.8 GB for 81 frames at 480p in 50
    /// steps)
    #[arg(long, requires = "capture")]
    resumable: bool,
    /// Go on with an interrupted run that was recorded with --resumable, to the same clip. The
    /// options and the prompt need not be said again
    #[arg(long, value_name = "CAPTURE")]
    resume: Option<PathBuf>,
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    strategy: StrategyArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Solver {
    Unipc,
    Euler,
}

pub(super) fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let (width, height) = text.split_once(['x', 'X']).ok_or("write it as WIDTHxHEIGHT, for example 64x64")?;
    let number = |text: &str| text.parse().map_err(|_| format!("\"{text}\" is no number of pixels"));
    Ok((number(width)?, number(height)?))
}

/// A seed, and whether it was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seed {
    value: u64,
    drawn: bool,
}

/// A number, or -1 for one that is drawn.
fn parse_seed(text: &str) -> Result<Seed, String> {
    if text == "-1" {
        // The standard library's hashers begin with random numbers of the system. 32 bits are
        // easier to write down.
        let value = RandomState::new().build_hasher().finish() >> 32;
        return Ok(Seed { value, drawn: true });
    }
    let value = text.parse().map_err(|_| format!("a seed is 0 to {}, or -1 to draw one", u64::MAX))?;
    Ok(Seed { value, drawn: false })
}

/// A prompt may begin with a hyphen. One word with a hyphen before it is a mistyped option.
fn parse_prompt(text: &str) -> Result<String, String> {
    let option = text.len() > 1 && text.starts_with('-') && !text.contains(char::is_whitespace);
    if option {
        return Err(format!("there is no option {text}; a prompt of one word with a hyphen before it stands after --"));
    }
    Ok(text.into())
}

impl Args {
    /// The options of the run with the seed that was drawn, so that a run that goes on has the
    /// same.
    fn remembered(&self, options: Vec<String>) -> Vec<String> {
        let seed = format!("--seed={}", self.seed.value);
        options.into_iter().map(|option| if option.starts_with("--seed=") { seed.clone() } else { option }).collect()
    }

    fn request(&self) -> anyhow::Result<GenerateRequest> {
        let (model, files) = self.model.place()?;
        let defaults = GenerateRequest::of_files(&model, &files, self.prompt.as_str())?;
        let (width, height) = self.size.unwrap_or(defaults.clip.size());
        let planned = self.strategy.planned_steps()?;
        let clip = ClipSettings {
            width,
            height,
            num_frames: self.frames.unwrap_or(defaults.clip.num_frames),
            num_inference_steps: self.steps.or(planned).unwrap_or(defaults.clip.num_inference_steps),
            guidance_scale: self.guidance_scale.unwrap_or(defaults.clip.guidance_scale),
            flow_shift: self.flow_shift.or(defaults.clip.flow_shift),
            seed: self.seed.value,
            ..defaults.clip
        };
        Ok(GenerateRequest {
            negative: self.negative_prompt.as_deref().map_or(defaults.negative, Condition::from),
            clip,
            scheduler: self.scheduler.map(|solver| match solver {
                Solver::Unipc => SchedulerChoice::UniPc,
                Solver::Euler => SchedulerChoice::Euler,
            }),
            grid: self.reference_sigmas.then_some(Grid::Reference),
            latents: self.latents.as_deref().map(latents::read).transpose()?,
            observe: match self.capture {
                Some(_) => Observe {
                    attention: Some(Received::Sampled(256)),
                    changes: true,
                    state: self.resumable,
                    ..Observe::default()
                },
                None => Observe::default(),
            },
            ..defaults
        })
    }
}

/// Generates a clip and writes it.
pub fn run(args: &Args, matches: &ArgMatches) -> anyhow::Result<()> {
    let mut request = args.request()?;
    let frames = request.clip.num_frames;
    let output = args.output.clone().unwrap_or_else(|| unused(file_name(&args.prompt, frames)));
    media::check_path(&output)?;
    for path in [&args.save_latents, &args.capture].into_iter().flatten() {
        media::check_place(path)?;
        if *path == output || (args.save_latents == args.capture) {
            return Err(WrongUse(format!("two of the outputs are to be {}", path.display())).into());
        }
    }
    let facts = RequestInfo::of(&request)?;
    media::check_clip(&output, request.clip.width, request.clip.height)?;
    // A full run needs no profile, so an unreadable one must not stop it.
    let wanted = args.strategy.wants_reuse();
    let profile = wanted.then(|| args.strategy.fitting_profile(&request.model, &facts)).transpose()?.flatten();
    let learning = args.strategy.learnt_file(&facts);
    let learnt = args.strategy.learnt(&facts);
    request.strategy = args.strategy.resolve(&evidence_of(&facts, profile.as_ref(), &learnt))?;
    request.observe.residuals = learning.is_some() && !request.strategy.caches();
    let expected = request.strategy.expected_psnr().filter(|_| !request.strategy.is_off());
    if let Some(warning) = profile.as_ref().filter(|_| expected.is_some()).and_then(|it| elsewhere(it, &request)) {
        note!("warning: {warning}");
    }
    let kept = facts.strategy_memory(&request.strategy, request.clip.num_inference_steps, request.clip.guided());
    let gpu = job::open_gpu(&args.gpu, facts.gpu_memory + kept)?;
    if !args.json {
        note!("{:.80} on {}", request.condition, gpu.adapter_name());
        if args.seed.drawn {
            note!("seed {}", args.seed.value);
        }
        let unsaid = args.negative_prompt.is_none() && request.clip.guided();
        if let Some(own) = request.negative.text().filter(|text| unsaid && !text.is_empty()) {
            note!("negative prompt of the model: {own:.60}...");
        }
        request.strategy.known().iter().for_each(|known| note!("{}", outlook(&request, *known)));
    }
    if let Some(file) = &learning {
        // Learning must never stand in the way of a clip.
        let noted = file.note_plan(&request.strategy, &facts);
        let told = noted.unwrap_or_else(|error| Some(format!("nothing is learnt from this run: {}", error.full())));
        told.iter().for_each(|text| note!("note: {text}"));
    }
    let earlier = args.resume.as_deref().map(resume::Earlier::open).transpose()?;
    request.earlier = earlier.as_ref().map(|earlier| earlier.capture.clone());
    let recorder = args.capture.as_deref().map(Writer::create).transpose()?;
    let engine = Engine::start(gpu, SUBMIT_BUDGET)?;
    engine.generate(request.clone())?;
    let command = matches.subcommand_matches(resume::NAME).filter(|_| args.resumable);
    let mut recording =
        Recording::new(recorder, command.map(|command| args.remembered(resume::options(command))).unwrap_or_default());
    let followed = follow(&engine, args.json, &mut recording);
    let finished = match (followed, &recording.rest) {
        (Err(error), Some(place)) => return Err(error.context(format!("the run until then is in {}", place.display()))),
        (followed, _) => followed?,
    };
    if let Some(earlier) = earlier {
        earlier.remove();
    }
    // Another process may have written a file of this name in the meantime.
    let output = if args.output.is_some() { output } else { unused(file_name(&args.prompt, frames)) };
    // The clip is written first. It took longest, so a later file that cannot be written must not
    // lose it.
    let summary = summary(&output, &finished, expected);
    let generated = &finished.generated;
    if let (Some(file), Some(measured)) = (&learning, &generated.measured)
        && let Err(error) = file.add(measured.clone())
    {
        note!("warning: nothing is learnt from this run: {}", error.full());
    }
    generated.write(&output, &summary.to_string())?;
    let saved = match &args.save_latents {
        Some(path) => latents::write(path, &generated.initial_latents, generated.latent_shape),
        None => Ok(()),
    };
    if args.json {
        out!("{summary}");
    } else {
        print_summary(&output, &request, &finished, expected);
    }
    recording.finish().and(saved).with_context(|| format!("{} is written, but not all else", output.display()))
}

/// What the plan is made from, and what is expected of it.
fn outlook(request: &GenerateRequest, known: Known) -> String {
    let expected = match request.strategy.expected_psnr() {
        Some(psnr) if psnr.is_finite() => {
            format!("; expected: {psnr:.0} dB to the clip without reuse, give or take {CLIP_SPREAD:.0}")
        }
        _ => String::new(),
    };
    format!("planned from {}{expected}", known.words())
}

/// The clip, and the time and memory that it took, in words.
fn print_summary(
    output: &Path,
    request: &GenerateRequest,
    Finished { generated, capture }: &Finished,
    expected: Option<f64>,
) {
    let seconds = &generated.seconds;
    out!(
        "{}: {} frames of {}x{} in {:.1} s (text {:.1}, denoising {:.1}, decoding {:.1})",
        output.display(),
        generated.frames.len(),
        generated.width,
        generated.height,
        seconds.total,
        seconds.text,
        seconds.denoise,
        seconds.decode
    );
    if let (Some(speedup), true) = (capture.flop_speedup(), !request.strategy.is_off()) {
        let expected = match expected {
            Some(psnr) if psnr.is_finite() => format!(", {psnr:.0} dB expected"),
            Some(_) => ": identical to the clip without reuse".into(),
            None => String::new(),
        };
        out!(
            "{}: {:.0} % of the blocks reused, {speedup:.2} times less work in denoising{expected}",
            request.strategy.name(),
            100.0 * capture.hit_rate()
        );
    }
}

/// A warning if the profile was measured on other clips than the request asks for. Plans carry
/// over to other clips, but the predicted fidelity may not. A different number of steps needs no
/// warning, because the planner accounts for it.
fn elsewhere(profile: &Profile, request: &GenerateRequest) -> Option<String> {
    let (there, here) = (&profile.settings.clip, &request.clip);
    let solver = request.scheduler.map(SchedulerChoice::name);
    let differences = [
        (
            (there.size(), there.num_frames) != (here.size(), here.num_frames),
            format!("{}x{} pixels and {} frames", there.width, there.height, there.num_frames),
        ),
        (there.guidance_scale != here.guidance_scale, format!("guidance {}", there.guidance_scale)),
        (solver.is_some_and(|solver| solver != profile.settings.scheduler), profile.settings.scheduler.clone()),
        (
            here.flow_shift.is_some_and(|shift| there.flow_shift.is_some_and(|there| shift != there)),
            format!("shift {}", there.flow_shift.unwrap_or(1.0)),
        ),
    ];
    let listed: Vec<_> = differences.into_iter().filter(|(differs, _)| *differs).map(|(_, there)| there).collect();
    (!listed.is_empty())
        .then(|| format!("the profile is of {}: the PSNR that it expects may not hold here", listed.join(", ")))
}

/// How progress looks.
fn bar_style() -> anyhow::Result<ProgressStyle> {
    ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len} {eta}").context("progress bar")
}

/// Writes the capture while the run goes on. A write error does not stop the run: it is reported at
/// the end.
struct Recording {
    writer: Option<Writer>,
    /// The command, for a run that can be gone on with.
    command: Vec<String>,
    failure: Option<CaptureError>,
    /// The file or folder that holds the record of a failed run.
    rest: Option<PathBuf>,
}

impl Recording {
    fn new(writer: Option<Writer>, command: Vec<String>) -> Self {
        Self { writer, command, failure: None, rest: None }
    }

    fn observe(&mut self, event: &Event, records: &mut [Record]) {
        let Some(writer) = &mut self.writer else { return };
        for record in &mut *records {
            if let Record::Run(run) = record {
                run.command.clone_from(&self.command);
            }
        }
        let written = records.iter().try_for_each(|record| writer.write(record));
        let done = match (written, event) {
            (Ok(()), Event::Finished(_)) => self.writer.take().map_or(Ok(()), Writer::finish),
            (Ok(()), Event::Failed(_)) => {
                self.writer.take().map_or(Ok(None), Writer::finish_failed).map(|place| self.rest = place)
            }
            (other, _) => other,
        };
        if let Err(error) = done {
            (self.writer, self.failure) = (None, Some(error));
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        self.failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// The part of a record that the summary needs. Maps and pictures are dropped, because they take
/// gigabytes for large models.
fn slim(mut record: Record) -> Option<Record> {
    match &mut record {
        Record::Step(step) => {
            (step.preview, step.state) = (None, None);
            for block in step.cond.iter_mut().chain(&mut step.uncond) {
                (block.received, block.paid) = (None, None);
            }
        }
        Record::Clip(_) => return None,
        _ => {}
    }
    Some(record)
}

/// Shows progress and records the run until the job ends. The returned capture is slim.
fn follow(engine: &Engine, quiet: bool, recording: &mut Recording) -> anyhow::Result<Finished> {
    let mut capture = Capture::default();
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(1) };
    bar.set_style(bar_style()?);
    let (asked, mut ending) = (interrupt::receiver(), false);
    loop {
        let event = if ending {
            engine.events().recv()
        } else {
            select! {
                recv(engine.events()) -> event => event,
                recv(asked) -> _ => { ending = true; engine.control().cancel(); continue }
            }
        };
        let event = event.context("the engine stopped without a word")?;
        let mut records = event.records();
        recording.observe(&event, &mut records);
        records.into_iter().filter_map(slim).for_each(|record| capture.push(record));
        match event {
            Event::Stage(stage) => bar.set_message(match stage {
                Stage::Load => "loading",
                Stage::Text => "text",
                Stage::Denoise => "denoising",
                Stage::Decode => "decoding",
            }),
            Event::Started(_) | Event::Mask(_) => {}
            Event::Step(done) => {
                bar.set_length(done.steps as u64);
                bar.set_position(done.record.step as u64 + 1);
            }
            Event::Warning(text) => bar.suspend(|| note!("warning: {text}")),
            Event::Finished(generated) => {
                bar.finish_and_clear();
                return Ok(Finished { generated: *generated, capture });
            }
            Event::Failed(error) => {
                bar.finish_and_clear();
                return Err(error.into());
            }
        }
    }
}

/// The summary of a run: the clip, its settings and its times. `--json` prints it, and the output
/// file holds it.
fn summary(output: &Path, Finished { generated, capture }: &Finished, expected: Option<f64>) -> serde_json::Value {
    let mut summary = capture.run.settings();
    summary["output"] = output.display().to_string().into();
    summary["expected_psnr"] = expected.into();
    summary["planned_from"] = capture.run.strategy.known().map(Known::words).into();
    summary["hit_rate"] = capture.hit_rate().into();
    summary["flop_speedup"] = capture.flop_speedup().into();
    summary["seconds"] = serde_json::json!(generated.seconds);
    summary["peak_memory"] = generated.peak_memory.into();
    summary
}

/// What `--output` takes, for the help.
fn output_help() -> String {
    let endings = media::endings();
    format!(
        "Output: {endings} (.png is animated), or a folder ending in / [default: the prompt with .mp4, or .png for \
         one frame, and a number where that exists]"
    )
}

/// `a cat walking on grass` -> `a-cat-walking-on-grass.mp4`, or `.png` for a single frame.
fn file_name(prompt: &str, frames: usize) -> PathBuf {
    const LONGEST: usize = 60;
    let words: Vec<String> =
        prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    let mut name = words.join("-").chars().take(LONGEST).collect::<String>().trim_end_matches('-').to_owned();
    if name.is_empty() {
        name = "clip".into();
    }
    let end = if frames == 1 { "png" } else { "mp4" };
    PathBuf::from(portable_name(&format!("{name}.{end}")))
}

/// The path, if no file of this name exists. Otherwise the path with the first free number: `-2`,
/// `-3`... An older clip is therefore never replaced by accident.
fn unused(path: PathBuf) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let end = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = (2..).map(|number: u32| path.with_file_name(format!("{stem}-{number}.{end}")));
    std::iter::once(path.clone()).chain(numbered).find(|path| !path.exists()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::Cell;
    use crate::engine::{BlockRecord, Frames, StepRecord};

    #[test]
    fn older_clips_stay() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, third] = ["a.mp4", "a-2.mp4", "a-3.mp4"].map(|name| folder.path().join(name));
        for next in [&first, &second, &third] {
            assert_eq!(&unused(first.clone()), next);
            std::fs::write(next, "").unwrap();
        }
    }

    #[test]
    fn prompts_become_file_names() {
        assert_eq!(file_name("A cat, walking on grass!", 5), PathBuf::from("a-cat-walking-on-grass.mp4"));
        assert_eq!(file_name("../..//", 5), PathBuf::from("clip.mp4"));
        assert_eq!(file_name("猫", 1), PathBuf::from("猫.png"));
        assert_eq!(file_name("Aux!", 5), PathBuf::from("aux-.mp4"), "Windows has a device of this name");
        let long = format!("{} cat", "a".repeat(59));
        assert_eq!(file_name(&long, 5), PathBuf::from(format!("{}.mp4", "a".repeat(59))), "cut at a word's end");
    }

    /// Slim records keep numbers and drop data that is as large as the video.
    #[test]
    fn slim_records_have_neither_maps_nor_pictures() {
        let map = Some(vec![1.0; 8]);
        let block =
            BlockRecord { cell: Cell::Computed, change: Some(0.5), received: map.clone(), paid: map, seconds: None };
        let step = StepRecord {
            cond: vec![block.clone()],
            uncond: vec![block],
            preview: Some(Frames::default()),
            ..Default::default()
        };
        let Some(Record::Step(step)) = slim(Record::Step(Box::new(step))) else { panic!("the step is gone") };
        assert_eq!(step.preview, None);
        for block in step.cond.iter().chain(&step.uncond) {
            assert_eq!((&block.received, &block.paid, block.change), (&None, &None, Some(0.5)));
        }
        assert_eq!(slim(Record::Clip(Frames::default())), None);
    }

    #[test]
    fn seeds_are_given_or_drawn() {
        assert_eq!(parse_seed("18446744073709551615"), Ok(Seed { value: u64::MAX, drawn: false }));
        let [a, b] = [0, 1].map(|_| parse_seed("-1").unwrap());
        assert!(a.drawn && b.drawn && a != b && a.value < 1 << 32);
        assert!(parse_seed("-2").unwrap_err().contains("-1 to draw one") && parse_seed("x").is_err());
    }

    #[test]
    fn prompts_may_begin_with_a_hyphen() {
        assert_eq!(parse_prompt("- a cat"), Ok("- a cat".into()));
        assert_eq!(parse_prompt("-"), Ok("-".into()));
        assert!(parse_prompt("--stepz").unwrap_err().contains("no option --stepz"));
    }

    #[test]
    fn sizes_parse_or_say_how() {
        assert_eq!(parse_size("64x48"), Ok((64, 48)));
        for wrong in ["64", "x", "64x", "64*64", "-1x5"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
