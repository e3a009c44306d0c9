//! Tests of capture files: writing and reading them, and hostile or damaged files.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::file::{CaptureError, Writer, open, read, save};
use super::*;
use crate::caching::{Action, BranchPlan, Forecast};
use crate::sampling::ClipSettings;
use crate::sampling::limits::MOST_FRAMES;

/// A guided run of 3 steps, 2 blocks and 2 x 2 x 2 tokens, with every field of a capture.
pub(crate) fn small() -> Capture {
    let store = StepPlan::both(BranchPlan::whole(2, Action::Store));
    let reuse = StepPlan::both(BranchPlan::whole(2, Action::Reuse(Forecast::hold())));
    let plans = [store.clone(), reuse, store];
    let mut capture = Capture {
        run: RunInfo {
            prompt: "a cat walking on grass".into(),
            clip: ClipSettings {
                width: 4,
                height: 4,
                num_frames: 5,
                num_inference_steps: 3,
                guidance_scale: 4.0,
                flow_shift: Some(3.0),
                seed: 7,
                fps: 8,
            },
            sigmas: vec![1.0, 0.6, 0.3, 0.0],
            expected: plans.to_vec(),
            blocks: 2,
            token_grid: [2, 2, 2],
            latent_shape: [4, 2, 4, 4],
            cost: Some(ForwardCost::even(10.0, 1.0, 2)),
            ..RunInfo::default()
        },
        ..Capture::default()
    };
    for (step, plan) in plans.into_iter().enumerate() {
        let record =
            |cell| BlockRecord { cell, change: Some(0.25), received: Some(vec![1.0; 8]), paid: None, seconds: None };
        let cond: Vec<_> = plan.cond.cells(2).into_iter().map(record).collect();
        let preview = Frames { width: 2, height: 2, frames: vec![vec![7; 12]; 2] };
        let (uncond, preview) = (cond.clone(), Some(preview));
        let plan = Some(plan);
        capture.steps.push(StepRecord { step, seconds: 0.5, plan, cond, uncond, preview, ..StepRecord::default() });
    }
    capture.masks.push(MaskRecord { estimator: "motion".into(), confidence: 0.9, tokens: vec![true; 8] });
    capture.warnings.push("a warning".into());
    capture.clip = Some(Frames { width: 4, height: 4, frames: vec![vec![200; 48]; 5] });
    capture.outcome = Some(Outcome { peak_memory: 1 << 20, ..Outcome::default() });
    capture
}

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small.capture");
    save(&path, &small()).unwrap();
    assert!(!dir.path().join("small.capture.partial").exists());
    std::fs::read(path).unwrap()
});

fn read_bytes(bytes: &[u8]) -> Result<super::file::Loaded, CaptureError> {
    read(bytes, Path::new("test.capture"))
}

#[test]
fn a_capture_survives_its_file() {
    let loaded = read_bytes(&BYTES).unwrap();
    assert_eq!(loaded.capture, small());
    assert_eq!(loaded.damage, None);
}

/// Older captures lack the requested number of steps and have the settings of the clip under the
/// same keys.
#[test]
fn runs_without_requested_steps_are_read() {
    let mut run = serde_json::to_value(small().run).unwrap();
    assert_eq!((&run["width"], &run["flow_shift"], &run["num_inference_steps"]), (&4.into(), &3.0.into(), &3.into()));
    run.as_object_mut().unwrap().remove("num_inference_steps");
    let run: RunInfo = serde_json::from_value(run).unwrap();
    assert_eq!((run.clip.num_inference_steps, run.requested_steps()), (0, 3));
    let clip = ClipSettings { num_inference_steps: 0, ..small().run.clip };
    assert_eq!(run, RunInfo { clip, ..small().run });
}

#[test]
fn fewer_steps_than_requested_are_less_work() {
    let mut capture = small();
    let whole = capture.flop_speedup().unwrap();
    capture.run.clip.num_inference_steps = 6;
    assert_eq!(capture.flop_speedup().unwrap(), 2.0 * whole);
    capture.steps.truncate(1);
    assert_eq!(capture.flop_speedup().unwrap(), 2.0, "one full step of three in place of six");
}

#[test]
fn a_file_cut_anywhere_gives_what_is_before_the_cut() {
    let whole = small();
    let mut most = 0;
    for length in 0..BYTES.len() {
        match read_bytes(&BYTES[..length]) {
            Ok(loaded) => {
                assert_eq!(loaded.capture.run, whole.run);
                let steps = loaded.capture.steps.len();
                assert_eq!(loaded.capture.steps[..], whole.steps[..steps]);
                assert!(steps >= most, "a longer file holds no fewer steps");
                most = steps;
            }
            Err(CaptureError::Foreign(_)) => assert!(length < 12),
            Err(CaptureError::Unreadable { .. }) => assert_eq!(most, 0),
            Err(other) => panic!("{length}: {other}"),
        }
    }
    assert_eq!(most, 3);
}

#[test]
fn foreign_and_newer_files_are_refused_with_a_reason() {
    assert!(matches!(read_bytes(b"\x89PNG\r\n\x1a\n and more"), Err(CaptureError::Foreign(_))));
    let mut newer = BYTES.clone();
    newer[8] = 2;
    let message = read_bytes(&newer).unwrap_err().to_string();
    assert!(message.contains("format 2") && message.contains("update"), "{message}");
    assert!(matches!(open(Path::new("/no/such/file")), Err(CaptureError::Io { .. })));
}

#[test]
fn unknown_chunks_are_skipped() {
    let mut bytes = BYTES.clone();
    let extra = [b"NEW!".as_slice(), &3u32.to_le_bytes(), &crc32fast::hash(b"abc").to_le_bytes(), b"abc"].concat();
    bytes.splice(12..12, extra);
    assert_eq!(read_bytes(&bytes).unwrap().capture, small());
}

/// The writer refuses records that readers refuse, so no run is lost.
#[test]
fn records_beyond_the_limits_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.capture");
    let mut writer = Writer::create(&path).unwrap();
    writer.write(&Record::Run(Box::default())).unwrap();
    let error = writer.write(&Record::Warning("x".repeat(65 << 20))).unwrap_err();
    assert!(error.to_string().contains("larger than the format allows"), "{error}");
    writer.write(&Record::Warning("small".into())).unwrap();
    writer.finish().unwrap();
    let loaded = open(&path).unwrap();
    assert_eq!((loaded.capture.warnings.len(), loaded.damage), (1, None));
}

#[test]
fn a_run_that_ended_early_is_in_the_partial_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.capture");
    let mut writer = Writer::create(&path).unwrap();
    let records = small().records();
    records[..3].iter().for_each(|record| writer.write(record).unwrap());
    drop(writer);
    assert!(!path.exists());
    let loaded = open(&dir.path().join("run.capture.partial")).unwrap();
    assert_eq!(loaded.capture.steps.len(), 2);
}

/// A failed run does not replace an earlier complete capture.
#[test]
fn a_failed_run_replaces_nothing_and_leaves_nothing_that_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let (path, partial) = (dir.path().join("run.capture"), dir.path().join("run.capture.partial"));
    let failed = |records: &[Record]| {
        let mut writer = Writer::create(&path).unwrap();
        records.iter().for_each(|record| writer.write(record).unwrap());
        writer.finish_failed().unwrap()
    };
    let records = small().records();
    assert_eq!(failed(&[Record::Outcome(Outcome::default())]), None);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(failed(&records[..3]), Some(path.clone()));
    assert_eq!(failed(&records[..2]), Some(partial.clone()));
    assert_eq!([&path, &partial].map(|path| open(path).unwrap().capture.steps.len()), [2, 1]);
}

/// A file of one megabyte may have a thousand million empty frames.
#[test]
fn frames_are_counted_while_they_are_read() {
    let frames = |count: usize| {
        let frames = Frames { width: 1, height: 1, frames: vec![Vec::new(); count] };
        let mut bytes = Vec::new();
        ciborium::into_writer(&frames, &mut bytes).unwrap();
        ciborium::from_reader::<Frames, _>(&bytes[..])
    };
    assert_eq!(frames(MOST_FRAMES).unwrap().frames.len(), MOST_FRAMES);
    assert!(frames(MOST_FRAMES + 1).unwrap_err().to_string().contains("at most 10000 frames"));
}

#[test]
fn records_that_do_not_fit_the_run_are_not_let_in() {
    type Change = fn(&mut Capture);
    let changes: [(&str, Change); 9] = [
        ("a map that is too short", |c| c.steps[1].cond[0].received = Some(vec![1.0; 7])),
        ("a block too many", |c| c.steps[1].cond = vec![c.steps[1].cond[0].clone(); 3]),
        ("a step twice", |c| c.steps[1].step = 0),
        ("a step beyond the end", |c| c.steps[2].step = 3),
        ("a preview of the wrong size", |c| c.steps[1].preview = Some(Frames { width: 9, ..Frames::default() })),
        ("frames of the wrong size", |c| {
            c.clip = Some(Frames { width: 9, height: usize::MAX, frames: vec![vec![0; 3]] });
        }),
        ("a plan for more blocks", |c| c.steps[1].plan = Some(StepPlan::compute(usize::MAX))),
        ("a mask of the wrong size", |c| c.masks[0].tokens.clear()),
        ("a time that is none", |c| c.steps[2].seconds = f64::NEG_INFINITY),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (what, change) in changes {
        let mut wrong = small();
        change(&mut wrong);
        let path = dir.path().join("wrong.capture");
        save(&path, &wrong).unwrap();
        let loaded = open(&path).unwrap();
        assert!(loaded.damage.is_some(), "{what} was let in");
        assert!(loaded.capture.steps.iter().zip(&small().steps).all(|(read, right)| read == right), "{what}");
    }
}

/// Version 0.1.0 recorded the steps of broken weights. They open, without the numbers that are
/// none.
#[test]
fn measurements_that_are_no_numbers_are_dropped() {
    let (mut broken, mut expected) = (small(), small());
    for step in &mut broken.steps {
        (step.prediction_change, step.magnitude_ratio) = (Some(f64::NAN), Some(f64::INFINITY));
        for block in step.cond.iter_mut().chain(&mut step.uncond) {
            (block.change, block.received) = (Some(f32::NAN), Some(vec![f32::NAN; 8]));
        }
    }
    for block in expected.steps.iter_mut().flat_map(|step| step.cond.iter_mut().chain(&mut step.uncond)) {
        (block.change, block.received) = (None, None);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.capture");
    save(&path, &broken).unwrap();
    let loaded = open(&path).unwrap();
    assert_eq!((loaded.capture, loaded.damage), (expected, None));
}

/// Two runs under one name: the second is refused, and the first is whole. What a run left behind
/// when it was killed is replaced.
#[test]
fn a_name_belongs_to_one_run_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.capture");
    std::fs::write(path.with_added_extension("partial"), "left behind").unwrap();
    let mut first = Writer::create(&path).unwrap();
    for record in small().records() {
        assert!(matches!(Writer::create(&path), Err(CaptureError::InUse(_))));
        first.write(&record).unwrap();
    }
    first.finish().unwrap();
    assert_eq!(open(&path).unwrap().capture, small());
    Writer::create(&path).unwrap();
    assert_eq!(open(&path).unwrap().capture, small(), "the name is free, and the file is not touched");
}

#[test]
fn runs_with_absurd_sizes_are_refused() {
    type Change = fn(&mut RunInfo);
    let changes: [Change; 5] = [
        |run| run.blocks = usize::MAX,
        |run| run.token_grid = [usize::MAX; 3],
        |run| run.latent_shape = [1 << 40; 4],
        |run| run.clip.width = 1 << 20,
        |run| run.expected = vec![StepPlan::compute(3)],
    ];
    let dir = tempfile::tempdir().unwrap();
    for change in changes {
        let mut wrong = small();
        change(&mut wrong.run);
        let path = dir.path().join("wrong.capture");
        save(&path, &wrong).unwrap();
        assert!(matches!(open(&path), Err(CaptureError::Unreadable { .. })));
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    use std::io::Write;
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..65 {
        packer.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let payload = packer.finish().unwrap();
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let bytes = [&BYTES[..12], b"RUN ", &length, &crc32fast::hash(&payload).to_le_bytes(), &payload].concat();
    let message = read_bytes(&bytes).unwrap_err().to_string();
    assert!(message.contains("more than any can hold"), "{message}");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_bytes(&bytes).ok();
        read_bytes(&[&BYTES[..12], bytes.as_slice()].concat()).ok();
    }

    /// The decoder and the checks survive random CBOR with a correct checksum.
    #[test]
    fn random_records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), tag in 0usize..6) {
        use std::io::Write;
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&bytes).unwrap();
        let payload = packer.finish().unwrap();
        let tag = [b"RUN ", b"STEP", b"MASK", b"WARN", b"CLIP", b"END "][tag];
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let chunk = [tag, &length[..], &crc32fast::hash(&payload).to_le_bytes(), &payload].concat();
        read_bytes(&[&BYTES[..], &chunk].concat()).unwrap();
    }

    #[test]
    fn flipped_bits_never_panic(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = BYTES.clone();
        let index = place.index(bytes.len());
        bytes[index] ^= 1 << bit;
        if let Ok(loaded) = read_bytes(&bytes) {
            prop_assert!(loaded.capture.steps.len() <= 3);
        }
    }

    /// The checks survive changed values inside well-formed records, as a hostile writer could make
    /// them.
    #[test]
    fn mutated_cbor_never_panics(record in 0usize..8, place in any::<prop::sample::Index>(), value in any::<u8>()) {
        use std::io::Write;
        let records = small().records();
        let mut out = BYTES[..12].to_vec();
        for (index, each) in records.iter().enumerate() {
            let mut cbor = Vec::new();
            ciborium::into_writer(each, &mut cbor).unwrap();
            if index == record {
                let at = place.index(cbor.len());
                cbor[at] = value;
            }
            let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(&cbor).unwrap();
            let payload = packer.finish().unwrap();
            let tag = match each {
                Record::Run(_) => b"RUN ", Record::Step(_) => b"STEP", Record::Mask(_) => b"MASK",
                Record::Warning(_) => b"WARN", Record::Clip(_) => b"CLIP", Record::Outcome(_) => b"END ",
            };
            out.extend_from_slice(tag);
            out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            out.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
            out.extend_from_slice(&payload);
        }
        if let Ok(loaded) = read_bytes(&out) {
            let capture = loaded.capture;
            prop_assert!(capture.hit_rate().is_finite());
            capture.flop_speedup();
        }
    }
}
