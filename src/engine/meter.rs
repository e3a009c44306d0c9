//! What is measured of a step: how blocks and the whole stack change, the attention of the blocks, and what probes see.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use crate::caching::{DeltaStore, ProbeResult};
use crate::gpu::{DType, Stream, Tensor};
use crate::model::wan::transformer::{AttentionWatch, Pass, WanTransformer};
use crate::ops;

use super::capture::BlockRecord;
use super::{EngineError, Observe};

type Result<T> = std::result::Result<T, EngineError>;

/// Rows of a residual that a sample has at most: enough for inner products, and little even for large models.
const SAMPLE_ROWS: usize = 256;

/// Mean of |a - b|.
pub(super) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len().max(1) as f64
}

/// Mean of |a|.
pub(super) fn size(a: &[f32]) -> f64 {
    a.iter().map(|a| f64::from(a.abs())).sum::<f64>() / a.len().max(1) as f64
}

/// A copy of a tensor as it is at this point of the stream.
pub(super) fn copy(cx: &mut Stream, x: &Tensor) -> Result<Tensor> {
    let copy = cx.empty("copy", x.shape(), x.dtype())?;
    cx.copy(x, &copy)?;
    Ok(copy)
}

/// What is measured of a branch: its blocks' deltas from step to step, and its attention.
pub(super) struct Meter {
    observe: Observe,
    /// Deltas of every block and of the whole stack, kept for measuring only.
    deltas: DeltaStore,
    /// Context rows of the prompt's subject.
    subject: Vec<usize>,
}

/// What was measured of the whole stack's residual.
#[derive(Default)]
pub(super) struct Residual {
    pub change: Option<f64>,
    pub magnitude_ratio: Option<f64>,
    /// Some of its rows.
    pub sample: Option<Vec<f32>>,
}

/// What the blocks of one step left on the GPU, to be read back in one go: the GPU need not stop between blocks.
pub(super) struct Measured {
    watch: Option<AttentionWatch>,
    /// Two sums for each block, of the blocks in `changed`.
    changes: Tensor,
    changed: Vec<usize>,
}

impl Meter {
    pub fn new(observe: Observe, subject: Vec<usize>) -> Self {
        Self { observe, deltas: DeltaStore::new(2), subject }
    }

    /// Whether changes are measured.
    pub fn changes(&self) -> bool {
        self.observe.changes
    }

    /// Begins a step of a model of `blocks` blocks.
    pub fn begin(&self, cx: &mut Stream, blocks: usize) -> Result<Measured> {
        let watch = self.observe.attention.map(|mode| AttentionWatch::new(mode, self.subject.clone()));
        Ok(Measured { watch, changes: cx.empty("changes", &[blocks, 2], DType::F32)?, changed: Vec::new() })
    }

    /// Runs blocks; where wanted, one by one, measured.
    pub fn run_blocks(
        &mut self,
        cx: &mut Stream,
        (model, pass): (&WanTransformer, &Pass),
        range: Range<usize>,
        measured: &mut Measured,
        records: &mut [BlockRecord],
    ) -> Result<()> {
        if !self.observe.changes && !self.observe.times {
            return Ok(model.run_blocks(cx, pass, range, measured.watch.as_mut())?);
        }
        for block in range {
            let one = block..block + 1;
            if self.observe.times {
                cx.finish()?;
            }
            let start = Instant::now();
            let before = self.observe.changes.then(|| copy(cx, pass.hidden_states())).transpose()?;
            model.run_blocks(cx, pass, one.clone(), measured.watch.as_mut())?;
            if self.observe.times {
                cx.finish()?;
                records[block].seconds = Some(start.elapsed().as_secs_f32());
            }
            if let Some(before) = before {
                self.deltas.keep(cx, one.clone(), before, pass.hidden_states())?;
                if let [new, old] = self.deltas.get(&one) {
                    ops::change_into(cx, new, old, &measured.changes, block)?;
                    measured.changed.push(block);
                }
            }
        }
        Ok(())
    }

    /// Reads back what was measured.
    pub fn end(&self, cx: &mut Stream, measured: Measured, records: &mut [BlockRecord]) -> Result<()> {
        for (block, map) in measured.watch.iter().flat_map(|watch| &watch.received) {
            records[*block].received = Some(cx.read(map)?);
        }
        for (block, map) in measured.watch.iter().flat_map(|watch| &watch.paid) {
            records[*block].paid = Some(cx.read(map)?);
        }
        if !measured.changed.is_empty() {
            let sums = cx.read(&measured.changes)?;
            for block in measured.changed {
                records[block].change = Some(sums[2 * block] / sums[2 * block + 1]);
            }
        }
        Ok(())
    }

    /// How the whole stack's residual changed since it was last measured, the mean over tokens of the ratio of its magnitudes, and a
    /// sample of it.
    pub fn residual(&mut self, cx: &mut Stream, before: Tensor, after: &Tensor, count: usize) -> Result<Residual> {
        let whole = 0..count;
        self.deltas.keep(cx, whole.clone(), before, after)?;
        let change = match self.deltas.get(&whole) {
            [new, old] => {
                let sums = ops::change(cx, new, old)?;
                relative(&cx.read(&sums)?)
            }
            _ => None,
        };
        let width = after.columns();
        let kept =
            self.deltas.get(&whole).iter().map(|delta| cx.read(delta)).collect::<std::result::Result<Vec<_>, _>>()?;
        let Some(new) = kept.first() else { return Ok(Residual::default()) };
        let norm = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let magnitude_ratio = kept.get(1).map(|old| {
            let ratios = new.chunks_exact(width).zip(old.chunks_exact(width)).map(|(a, b)| norm(a) / norm(b));
            ratios.sum::<f64>() / after.rows() as f64
        });
        let stride = after.rows().div_ceil(SAMPLE_ROWS);
        let sample = new.chunks_exact(width).step_by(stride).flatten().copied().collect();
        Ok(Residual { change, magnitude_ratio, sample: Some(sample) })
    }
}

/// The quotient of two sums of [`ops::change`].
fn relative(sums: &[f32]) -> Option<f64> {
    Some(f64::from(*sums.first()?) / f64::from(*sums.get(1)?))
}

/// The probe's earlier deltas, newest first. They stay on the GPU: eight numbers a step are read back.
#[derive(Default)]
pub(super) struct Probes {
    last_step: Option<Tensor>,
    computed: VecDeque<Tensor>,
    now: Option<Tensor>,
}

impl Probes {
    /// Runs the first blocks and compares their delta with earlier ones.
    pub fn measure(
        &mut self,
        cx: &mut Stream,
        (model, pass): (&WanTransformer, &Pass),
        blocks: usize,
    ) -> Result<ProbeResult> {
        let delta = copy(cx, pass.hidden_states())?;
        model.run_blocks(cx, pass, 0..blocks, None)?;
        ops::subtract_from(cx, pass.hidden_states(), &delta)?;
        let sums = cx.empty("probe", &[4, 2], DType::F32)?;
        let (newer, older) = (self.computed.front(), self.computed.get(1));
        let pairs = [
            self.last_step.as_ref().map(|to| (&delta, to)),
            newer.map(|to| (&delta, to)),
            older.map(|to| (&delta, to)),
            newer.zip(older),
        ];
        for (slot, pair) in pairs.iter().enumerate() {
            if let Some((a, b)) = pair {
                ops::change_into(cx, a, b, &sums, slot)?;
            }
        }
        let [since_last_step, since_computed, to_older, between] = pairs.map(|pair| pair.is_some());
        let read = if since_last_step { cx.read(&sums)? } else { vec![0.0; 8] };
        let result = ProbeResult {
            since_last_step: since_last_step.then(|| relative(&read)).flatten(),
            since_computed: since_computed.then(|| relative(&read[2..])).flatten(),
            progress: (to_older && between).then(|| f64::from(read[4]) / f64::from(read[6])),
        };
        self.now = Some(delta);
        Ok(result)
    }

    /// Remembers the delta just measured; `computed`: the whole model ran in its step.
    pub fn keep(&mut self, computed: bool) {
        self.last_step = self.now.take();
        if let (true, Some(delta)) = (computed, &self.last_step) {
            self.computed.truncate(1);
            self.computed.push_front(delta.clone());
        }
    }
}
