//! Untrusted bytes for every reader: damaged files never panic, never hang, and never take much
//! more memory than they have bytes.
//!
//! The test command tries a fixed number of damaged inputs a reader. `scripts/fuzz` tries many
//! more: it sets `DITSCOPE_FUZZ_CASES` and `DITSCOPE_FUZZ_SEED`. An input that fails is kept, and
//! its path and seed are printed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::Golden;
use ditscope::caching::{Evidence, StrategyConfig, parse};
use ditscope::engine::capture::file;
use ditscope::media;
use ditscope::model::wan::config::{SchedulerConfig, TextEncoderConfig, TransformerConfig, VaeConfig};
use ditscope::model::wan::prompt_clean;
use ditscope::model::wan::tokenizer::Tokenizer;
use ditscope::profiling::profile::Profile;
use ditscope::weights::Checkpoint;
use safetensors::Dtype;

/// Number of damaged inputs a reader in the test command. Readers of large inputs get fewer.
const CASES: u64 = 150;
/// The longest that a reader may take for one input. The test command shares its cores.
const LONGEST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];
/// Memory that a reader may take besides four times the input.
const SPARE: usize = 64 << 20;

/// Counts the memory of the thread that fuzzes.
struct Counting;

thread_local! {
    /// Bytes in use since the count began, and the most that were.
    static USED: Cell<[isize; 2]> = const { Cell::new([0; 2]) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // The thread's variables may be gone while the thread ends.
    USED.try_with(|used| {
        let [now, most] = used.get();
        used.set([now + bytes, most.max(now + bytes)]);
    })
    .ok();
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
}

/// Random numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Damages an input in a few places. Small changes at the start reach headers, and words that
/// readers know reach deeper than random bytes.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    const WORDS: [&str; 16] = [
        "18446744073709551615",
        "-1",
        "1e999",
        "0",
        "null",
        "{}",
        "[]",
        "\"\"",
        "99999999999",
        "NaN",
        "true",
        "[[[[",
        "\u{feff}",
        "\0",
        "4294967295",
        "0.5",
    ];
    for _ in 0..=random.below(4) {
        let near = random.below(2) == 0;
        let end = if near { bytes.len().min(600) } else { bytes.len() };
        let at = random.below(end);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 | 2 => {
                let any = random.next() as u8;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.pick(&[0, 1, 0x7f, 0x80, 0xff, any]);
                }
            }
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            4 => {
                let some = bytes[at..(at + random.below(64)).min(bytes.len())].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, some);
            }
            5 => {
                let end = (at + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            // Another value in place of a number of a text, or anywhere.
            6 => {
                let word = random.pick(&WORDS).as_bytes();
                let digit = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
                let start = bytes[at..].iter().position(digit).map_or(at, |found| at + found);
                let length = bytes[start..].iter().take_while(|byte| digit(byte)).count();
                bytes.splice(start..start + length, word.iter().copied());
            }
            _ => {
                let value = random.pick(&[0u64, u64::MAX, 1 << 31, 1 << 32, 1 << 40, i64::MAX as u64]).to_le_bytes();
                let width = random.pick(&[2usize, 4, 8]);
                for (byte, value) in bytes.iter_mut().skip(at).take(width).zip(value) {
                    *byte = value;
                }
            }
        }
    }
}

/// A reader, and sound inputs to damage.
struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    /// Bytes that a reader may take besides [`SPARE`] and four times the input: what the format
    /// itself may hold.
    more: usize,
    read: Reader,
}

type Reader = Box<dyn Fn(&[u8])>;

/// A target that reads text.
fn text(name: &'static str, seeds: &[&str], read: impl Fn(&str) + 'static) -> Target {
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    Target { name, seeds, more: 0, read: Box::new(move |bytes| read(&String::from_utf8_lossy(bytes))) }
}

/// A target that reads a file of this name.
fn in_file(folder: &Path, name: &'static str, seeds: Vec<Vec<u8>>, read: impl Fn(&Path) + 'static) -> Target {
    let path = folder.join(name);
    let read = move |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        read(&path);
    };
    Target { name, seeds, more: 0, read: Box::new(read) }
}

/// Reads tensors as a loader does.
fn read_weights(path: &Path) {
    if let Ok(checkpoint) = Checkpoint::open(path) {
        for tensor in checkpoint.tensors().take(50) {
            tensor.to_f32().ok();
        }
    }
}

fn targets(folder: &Path) -> Vec<Target> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read(here.join(path)).expect(path);
    let string = |path: &str| String::from_utf8(read(path)).expect(path);
    let model = folder.join("model");
    Golden::load("transformer_3x40").materialise(&model, Dtype::F16);
    let weights = fs::read(model.join("transformer/diffusion_pytorch_model.safetensors")).expect("weights");
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 6, 5);
    encoder.set_animated(2, 0).expect("two frames");
    let mut writer = encoder.write_header().expect("a header");
    (0..2).for_each(|_| writer.write_image_data(&[200; 30]).expect("a frame"));
    writer.finish().expect("an end");
    let clip = media::Clip::new(8, 6, 8, vec![vec![90; 144]; 3]).expect("a clip");
    let made = |name: &str| {
        let path = folder.join(name);
        media::write(&path, &clip, "{\"seed\": 1}").expect("written");
        fs::read(path).expect("read")
    };
    let gif = made("seed.gif");
    let videos = vec![gif.clone(), made("seed.mp4"), made("seed.png")];
    let config = |part: &str| string(&format!("assets/demo-model/{part}"));
    let none = Path::new("config.json");
    let evidence = Evidence::new((0..9).map(|step| 1.0 - f64::from(step) / 8.0).collect(), 12);
    // What the capture's format allows for one record.
    let capture = Target {
        name: "capture",
        seeds: vec![read("assets/demo.capture")],
        more: 2 << 30,
        read: Box::new(move |bytes| {
            file::read(bytes, Path::new("a.capture")).ok();
        }),
    };
    vec![
        in_file(folder, "a.safetensors", vec![weights], read_weights),
        in_file(
            folder,
            "a.safetensors.index.json",
            vec![br#"{"weight_map": {"a": "a-00001-of-00002.safetensors"}}"#.to_vec()],
            read_weights,
        ),
        in_file(folder, "a.png", vec![png], |path| drop(media::read_gray(path))),
        in_file(folder, "a.gif", vec![gif], |path| drop(media::read_gray(path))),
        in_file(folder, "a.mp4", videos, |path| drop(media::read_settings(path))),
        in_file(folder, "tokenizer.json", vec![read("tests/golden/data/tokenizer.json")], |path| {
            if let Ok(tokenizer) = Tokenizer::load(path) {
                tokenizer.encode("a cat walking on grass", 512).ok();
            }
        }),
        in_file(
            folder,
            "strategy.json",
            vec![br#"{"name": "uniform", "warm_up": 3, "last": 1, "every": 2}"#.to_vec()],
            |path| {
                StrategyConfig::read(path).ok();
            },
        ),
        capture,
        Target {
            name: "profile",
            seeds: vec![read("assets/demo-model/profile.json")],
            more: 0,
            read: Box::new(|bytes| drop(Profile::from_json(bytes))),
        },
        text(
            "strategy",
            &["uniform:every=2,warm-up=3,last=1", "profiling:blocks=0-3+7,list=random", "speedup=2"],
            move |text| {
                parse(text, &evidence).ok();
            },
        ),
        text("prompt", &["a cat &amp;amp; a dog\n ðŸ˜€ walking", "caf\u{c3}\u{a9} \u{fb01}"], |text| {
            drop(prompt_clean(text))
        }),
        text("transformer", &[&config("transformer/config.json")], move |text| {
            drop(TransformerConfig::from_json(none, text))
        }),
        text("text encoder", &[&config("text_encoder/config.json")], move |text| {
            drop(TextEncoderConfig::from_json(none, text))
        }),
        text("vae", &[&config("vae/config.json")], move |text| drop(VaeConfig::from_json(none, text))),
        text("scheduler", &[&config("scheduler/scheduler_config.json")], move |text| {
            drop(SchedulerConfig::from_json(none, text))
        }),
    ]
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Keeps an input that failed.
fn keep(name: &str, bytes: &[u8]) -> PathBuf {
    let place = std::env::temp_dir().join(format!("ditscope-fuzz-{}-{}", name.replace(' ', "-"), std::process::id()));
    fs::write(&place, bytes).expect("kept");
    place
}

#[test]
fn damaged_inputs_are_errors() {
    let (asked, first) = (number("DITSCOPE_FUZZ_CASES", 0), number("DITSCOPE_FUZZ_SEED", 1));
    let longest = LONGEST[usize::from(asked == 0)];
    let only = std::env::var("DITSCOPE_FUZZ_READER").ok().filter(|only| !only.is_empty());
    let folder = tempfile::tempdir().expect("temporary folder");
    for target in targets(folder.path()) {
        if only.as_ref().is_some_and(|only| only != target.name) {
            continue;
        }
        let size = target.seeds.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let cases = if asked > 0 { asked } else { (CASES / (1 + size / 20_000)).max(8) };
        let (mut slowest, mut largest) = (Duration::ZERO, 0);
        for case in 0..cases {
            let mut random = Random(first.wrapping_mul(1 << 32).wrapping_add(case));
            let mut bytes = target.seeds[random.below(target.seeds.len())].clone();
            damage(&mut random, &mut bytes);
            let failed = |what: &str| {
                let place = keep(target.name, &bytes);
                panic!("{}, seed {first}, case {case}: {what}; the input is {}", target.name, place.display());
            };
            USED.with(|used| used.set([0; 2]));
            let start = Instant::now();
            if catch_unwind(AssertUnwindSafe(|| (target.read)(&bytes))).is_err() {
                failed("a panic");
            }
            let (took, [_, most]) = (start.elapsed(), USED.with(Cell::get));
            if took > longest {
                failed(&format!("{took:?}"));
            }
            if most > (SPARE + target.more + 4 * bytes.len()) as isize {
                failed(&format!("{most} bytes of memory for an input of {}", bytes.len()));
            }
            (slowest, largest) = (slowest.max(took), largest.max(most));
        }
        println!("{}: {cases} inputs, {slowest:?} and {} KiB at most", target.name, largest >> 10);
    }
}
