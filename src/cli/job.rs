//! The common parts of commands that generate: the settings of a run, prompts from a file, the
//! adapter, and the progress bar of a study.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};

use crate::engine::{ClipSettings, Engine, GenerateRequest, StepDone};
use crate::gpu::Gpu;
use crate::study::{Cancel, Finished, Progress, Session, Size, StudyError, StudyEvent};

use super::generate::parse_size;
use super::{GpuArgs, ModelArgs, WrongUse};

/// Settings of every run of a command.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Prompts, one a line [default: "a cat walking on grass"]
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Use at most this many of --prompts
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub limit: Option<usize>,
    /// Seeds of the noise: 0 to N-1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Denoising steps (`generate` takes the model's own number)
    #[arg(long, default_value_t = 50)]
    pub steps: usize,
    /// Guidance; 1 for none [default: the model's]
    #[arg(long)]
    pub guidance_scale: Option<f64>,
    /// Size in pixels [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub size: Option<(usize, usize)>,
    /// Number of frames, 4 n + 1 [default: the model's]
    #[arg(long)]
    pub frames: Option<usize>,
}

/// Parses a count of at least 1.
pub fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

impl RunArgs {
    /// The request for the first prompt and seed, without reuse.
    ///
    /// # Errors
    /// There is no model, or its settings cannot be read.
    pub fn request(&self, prompt: &str) -> anyhow::Result<GenerateRequest> {
        let (model, files) = self.model.place()?;
        let defaults = GenerateRequest::of_files(&model, &files, prompt)?;
        let (width, height) = self.size.unwrap_or(defaults.clip.size());
        let clip = ClipSettings {
            width,
            height,
            num_frames: self.frames.unwrap_or(defaults.clip.num_frames),
            num_inference_steps: self.steps,
            guidance_scale: self.guidance_scale.unwrap_or(defaults.clip.guidance_scale),
            ..defaults.clip
        };
        Ok(GenerateRequest { clip, ..defaults })
    }

    /// The prompts.
    ///
    /// # Errors
    /// The file cannot be read, or holds no prompts.
    pub fn read_prompts(&self) -> anyhow::Result<Vec<String>> {
        let Some(path) = &self.prompts else { return Ok(vec!["a cat walking on grass".into()]) };
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = decoded(&bytes).ok_or_else(|| {
            WrongUse(format!("{} is not text in UTF-8, or in UTF-16 with a mark at its start", path.display()))
        })?;
        let blank = |c: char| c.is_whitespace() || c == '\u{feff}';
        let lines =
            text.lines().map(|line| line.trim_matches(blank)).filter(|line| !line.is_empty()).map(str::to_owned);
        let prompts: Vec<String> = lines.take(self.limit.unwrap_or(usize::MAX)).collect();
        if prompts.is_empty() {
            return Err(WrongUse(format!("{} holds no prompts", path.display())).into());
        }
        let (model, files) = self.model.place()?;
        let model = crate::model::find_named(&model, &files)?;
        for prompt in &prompts {
            let checked = model.check_condition(&prompt.as_str().into());
            checked.map_err(|error| WrongUse(format!("{}: {error}", path.display())))?;
        }
        Ok(prompts)
    }
}

/// Text in UTF-8, or in UTF-16 if its first bytes say so. The mark at the start is left out.
fn decoded(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let (encoding, mark) = encoding_rs::Encoding::for_bom(bytes).unwrap_or((encoding_rs::UTF_8, 0));
    encoding.decode_without_bom_handling_and_without_replacement(bytes.get(mark..)?)
}

/// The chosen adapter. A warning is printed if the jobs need more memory, in bytes, than it has.
///
/// # Errors
/// No adapter has this name, or no adapter can run the kernels.
pub fn open_gpu(args: &GpuArgs, needed: u64) -> anyhow::Result<Gpu> {
    let gpu = args.open()?;
    if let Some(warning) = memory_warning(needed, gpu.caps().memory) {
        note!("warning: {warning}");
    }
    Ok(gpu)
}

fn memory_warning(needed: u64, there: Option<u64>) -> Option<String> {
    let [needed, there] = [needed, there?].map(|bytes| bytes as f64 / 1e9);
    (needed > there).then(|| {
        format!("this takes up to {needed:.1} GB of GPU memory, the adapter has {there:.1}: a smaller size or fewer frames take less")
    })
}

/// Runs a job to its end; `step` sees every step.
///
/// # Errors
/// The job's own.
pub fn run_job(
    engine: &Engine,
    request: &GenerateRequest,
    step: impl FnMut(&StepDone),
) -> Result<Finished, StudyError> {
    let cancel = Cancel::default();
    let size = Size::run(request.clip.num_inference_steps, 1.0);
    Session::new(engine, &cancel, |_| {}).run(request.clone(), size, step)
}

/// The progress bar of a study.
pub struct StudyBar(ProgressBar);

impl StudyBar {
    /// A bar that shows nothing yet.
    ///
    /// # Errors
    /// The bar's template is wrong.
    pub fn new() -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len} {prefix}").context("progress bar")?;
        Ok(Self(ProgressBar::new(1).with_style(style)))
    }

    /// A session whose steps the bar counts and whose warnings stand above it.
    pub fn session<'a>(&'a self, engine: &'a Engine, cancel: &'a Cancel) -> Session<'a> {
        Session::new(engine, cancel, |event| match event {
            StudyEvent::Progress(progress) => self.show(&progress),
            StudyEvent::Warning(text) => self.say(&format!("warning: {text}")),
            _ => {}
        })
    }

    fn show(&self, progress: &Progress) {
        self.0.set_length(progress.steps as u64);
        self.0.set_position(progress.steps_done as u64);
        if !progress.phase.is_empty() {
            self.name(&progress.phase);
        }
        if let Some(left) = progress.seconds_left {
            self.0.set_prefix(FormattedDuration(Duration::from_secs_f64(left.min(1e9))).to_string());
        }
    }

    /// Shows the name of the current activity.
    pub fn name(&self, phase: &str) {
        self.0.set_message(phase.to_owned());
    }

    /// Prints a line above the bar.
    pub fn say(&self, line: &str) {
        self.0.suspend(|| note!("{line}"));
    }

    /// Ends the bar.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_other_systems() {
        let text = "a cat\r\n猫";
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let swapped: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let marked = |mark: &[u8], text: &[u8]| [mark, text].concat();
        for bytes in [
            text.as_bytes().to_vec(),
            marked(b"\xef\xbb\xbf", text.as_bytes()),
            marked(b"\xff\xfe", &utf16),
            marked(b"\xfe\xff", &swapped),
        ] {
            assert_eq!(decoded(&bytes).as_deref(), Some(text), "{bytes:?}");
        }
        assert_eq!(decoded(b"\xff"), None);
        assert_eq!(decoded(b"\xff\xfea").as_deref(), None, "half a character");
    }

    #[test]
    fn memory_is_only_spoken_of_when_there_is_too_little() {
        assert_eq!(memory_warning(8_000_000_000, Some(8_000_000_000)), None);
        assert_eq!(memory_warning(u64::MAX, None), None);
        let warning = memory_warning(21_340_000_000, Some(8_000_000_000)).unwrap();
        assert!(warning.contains("21.3 GB") && warning.contains("has 8.0"), "{warning}");
    }
}
